// Package wal is the redo log: what a commit changed, durable before anyone
// sees it. A commit is one or more records of opaque bytes under one LSN;
// commits are made durable in groups, and after a power cut the end of the log
// is proven, not guessed (R5).
//
// A [Log] is made by [Create] or [Open] and ended by [Log.Close]. Its writer
// calls, for each commit, Reserve (before the commit has an LSN), Append, and
// after it let the next writer in, Sync. The cleaner calls Release after each
// checkpoint; who else needs old commits keeps a [Holder] and calls Read.
//
// # Segments
//
// The log is a run of segments in files of fixed names and size, whose space is
// allocated before their first use. Unless syncs are large they are then written
// through with zeros: from there on, and wherever a file is used again, a sync
// changes no metadata. A segment's header has a random salt, to which each of its
// records is bound, and names the record that it follows. format.go describes the
// bytes.
//
// A segment is always in one of these states; the arrow names who moves it:
//
//	(none) --prepare--> ready --turn--> current --turn--> live --recycle--> idle
//	idle --prepare--> ready        ready --surplus--> idle --surplus--> (none)
//
// Nothing is written on the way from live to ready: until its file's next use a
// released segment stays readable, and recovery ignores it because a newer one
// begins at or before the first LSN that it needs.
//
// # Who does what under which lock
//
// Log.mu guards the place of the next record, the active group and the lists of
// segments; no I/O is done under it. The syncing role (Log.syncing) is owned by
// one goroutine at a time: it takes the active group, releases mu, writes and
// syncs its runs, moves the horizon, tells OnDurable, wakes those whose commits
// are covered and hands the role to the first sleeper that is not. Meanwhile
// others append to the other group. One preparation of a spare runs at a time,
// in the background when nobody waits for it.
//
// # What is durable when
//
// A run is written with one write and one sync. A run that begins a segment is
// preceded by the segment's header, copy A then copy B, each synced, after all
// earlier records were. So at any power cut at most one group is in doubt, and
// every claim "synced" in a record or header was true when it was written.
//
// # What cannot be detected
//
// Damage to the very last group, or to the commits behind the last claim, looks
// like a torn tail unless [Start].Durable says better; MarkIdle and Close
// narrow this to nothing. Removing the newest segment files by hand looks like
// a log that ended earlier, with the same remedy.
//
// # Failure
//
// The first failed write or sync poisons the log (L8): Append, Sync and Release
// return [ErrFailed] with the first cause until the log is opened again; Read
// goes on. Lack of space appears in Reserve only and poisons nothing (R7).
package wal
