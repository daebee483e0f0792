// Command livebackup takes, lists, proves and restores backups of Spillway
// databases, also of one that another process has open and is writing to.
//
// It has no logic of its own: package livebackup does the work, package kv opens
// databases (so that a check proves trees, too), and package internal/demo is the
// demonstration. What is here are flags, printing, progress and exit codes.
//
// # Which process works
//
// A command that needs a database first asks its admin socket. If a process
// serves it, the blocks come through the socket and that process goes on with its
// work. If nobody answers, this process opens the database itself, and closes it
// when the command ends. If somebody has it open without serving it, the command
// says so and exits with code 5.
//
// # Output
//
// A result goes to standard output: text for people, or with --json exactly one
// JSON value. Everything else (progress, notes, errors) goes to standard error;
// only with --json is an error, too, a JSON object on standard output. Progress is
// shown only if standard error is a terminal.
//
// # Ending
//
// The first interrupt, termination or hangup signal cancels what runs: a partial backup
// or restore is removed, or kept for the next run, which goes on with it; then the
// command exits with 128 plus the signal's number. The second signal kills. All exit codes are listed by
// "livebackup help exit-codes" and in exit.go.
package main
