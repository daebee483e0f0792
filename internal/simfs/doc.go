// Package simfs is a file system in memory for tests that cut the power, fail
// the n-th operation or fill the disk. [FS] implements vfs.FS; what a test does
// to it is deterministic, given the same calls and the same random source.
//
// # The model of the disk
//
// Every crash test of Spillway assumes this model, and no more than this:
//
//   - A sector of 512 bytes is written whole or not at all. Anything larger may
//     be torn at any sectors, in any order, across files too.
//   - Until a Sync that returns nil, each sector of a file holds what it held at
//     the last good Sync or what any write since then made of it: the latest of
//     the writes that happened to reach the disk.
//   - Changes of size, reservations and punched holes of one file reach the disk
//     in their order: a crash keeps the first so many. They are independent of
//     data. A size may be there without the data, the area then reads as zeros
//     or, where a write (not Truncate or Allocate) extended the file, as
//     garbage. Data beyond the size that was kept is gone. Data written to where
//     a lost Truncate or PunchHole had freed the old blocks is gone, and the old
//     data is back.
//   - A hole gives back whole pages of 4 KiB; what it has in other pages is
//     zeros written there, pending like any other data.
//   - Sync of a file covers its data, its size and its reservations, and no name.
//   - SyncDir covers the names in that directory: created, made, linked, renamed
//     or removed. Until then each such operation is kept or lost by itself. A
//     rename within a directory is atomic; between directories the new name and
//     the end of the old one may be kept one without the other, so that the file
//     has both names or none.
//   - A file whose removal is lost is there again with what had reached the disk.
//   - Locks, open files and files of OpenTemp end with the power.
//   - A Sync that fails covers nothing. What it should have covered stays
//     pending, or is lost while the cache shows it still, or is lost and the
//     cache shows the old: [SyncFailure].
//   - That a write could not be written out is told once, to whoever syncs the file
//     next, and then to nobody: [Fault.WriteBack]. Linux tells each descriptor once;
//     two of one file are too many to rely on that.
//
// Not modelled: symbolic links, permissions (modes are only recorded), times, names
// that a failed SyncDir loses for good (a file system with a journal stops instead),
// and rot; for the last there is [FS.FlipBits].
//
// # Use
//
// Run the code under test, cut with [FS.CutAfter] at each event in turn, take a
// few states of the disk by [FS.Crash], open each and check. [FS.Kill] is the
// end of the process alone: what was written and not synced is still there, and
// still not on disk. [FS.Fail] injects errors and counts what it let pass, so
// that a sweep knows its end; [Sites] knows which places in the product it has met.
// [FS.Trace] shows every operation in its order.
// [FS.Moments] keeps the disk of each event of one run, and [Moment.States] lists
// what a cut there could leave, one by one instead of at random.
package simfs
