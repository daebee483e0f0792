// Command bench keeps databases busy, and measures.
//
// "bench load" holds a database open under a write load and serves its admin
// socket, so that livebackup can be tried on it from another terminal. Package
// bench/load does the work; what is here are flags, printing and exit codes.
//
// A line a second goes to standard output, the summary at the end too; with
// --json only the summary does, as one JSON object. Ctrl-C ends the load cleanly:
// writers finish their transaction, the socket is removed, the database is
// closed, the summary is printed. A second Ctrl-C kills.
//
// "bench backup" measures backups, chains of them, rolling log forward and
// compression, with the harness of package bench; each measurement is a process of
// its own, which is this program with the hidden command "task".
//
// Exit codes: 0 done (also when a load without --duration was ended by Ctrl-C),
// 1 failed, 2 usage, 130 or 143 when a signal ended it before its time.
package main
