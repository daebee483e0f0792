// Package vfs is the seam between Spillway and the file system: every file of
// the store, of temporary storage and of a repository is reached through [FS]
// and [File], so that tests can cut the power or fail the n-th operation while
// production runs on [OS].
//
// Rules that callers may rely on:
//   - ReadAt and WriteAt are the only data paths; there is no file position.
//   - What a Sync that returned nil covers survives a power cut: the data
//     written before it, and the file's size. Names (create, rename, link,
//     remove) survive only after [FS.SyncDir] of their directory.
//   - After a Sync that failed nothing may be assumed of the data written since
//     the last good one (law L8: callers stop, they never try again).
//   - A reservation made by [File.Allocate] is what makes a later WriteAt into
//     it safe from "no space left on device", as far as the system can promise.
//
// Files are opened close-on-exec and never through a symbolic link in the last
// part of the name.
package vfs
