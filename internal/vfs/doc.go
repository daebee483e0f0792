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
// # The operating system
//
// Files are opened close-on-exec, never through a symbolic link in the last
// part of the name, and never as descriptor 0, 1 or 2; what is no regular file
// is refused. A file may have several names: a publish by [FS.Link] has two for
// a moment. Who must not share a file locks it: the lock is on the file itself,
// whichever name leads to it, and excludes other processes and other parts of
// this one.
//
// Each mechanism stands in a file of its own, named after it. Linux has the best
// of each. Elsewhere: no holes; Allocate writes zeros (or sets the size, on
// Windows) and cannot fill holes; advice is not passed on; on Windows there are
// no modes, and SyncDir is worth what open_reparse_windows.go says.
//
// # Testing
//
// Package simfs implements the same interfaces in memory, with power cuts and
// faults. Package vfstest is the suite that both pass.
package vfs
