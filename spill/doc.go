// Package spill is bounded temporary storage: places for versions of blocks
// that RAM has no room for, in files that have no name and die with the
// process.
//
// A [Store] has one file in each directory it was given. The file is an array
// of slots of one block each; [Store.Write] puts a batch of versions into free
// slots, as long sequential runs, round the directories, and hands out a
// [Slot] for each. [Store.Read] brings a version back and proves that it is
// the one asked for. [Store.Free] gives a slot back. format.go is the only
// description of a slot's bytes.
//
// # What may be relied on
//
//   - Bounds (L9): no file is ever longer than its directory's BytesMax, and
//     every block-sized part of BytesMax can be used, however slots were freed.
//     RAM follows the files' size, at about 1/25,000 (MetaBytes); nothing
//     grows with the database.
//   - Room first (R7): file system space is reserved, in steps, before anything
//     is written into it. "No space left" makes a directory full for a while,
//     never failed; it is tried again after space was given back, or after
//     retryInterval.
//   - Trouble stays here (L10): after an I/O error a directory takes no more
//     writes; what it holds can still be read. Store.Write then goes on in the
//     other directories and reports *[IOError] only if items are left over.
//   - Nothing wrong is ever returned: each slot is bound to its block number,
//     LSN, place and use. A stale, misplaced, lost or damaged write is a
//     *block.CorruptError.
//   - The page cache stays the database's (R17): writeback of each run is
//     started at once, and every cacheTailBytes all clean pages of the file are
//     dropped; what stays is that much, and what the device has yet to write.
//     Linux only: no other system has such advice. O_DIRECT would do without
//     the advice, but not every file system has it, and it needs aligned
//     buffers on every read.
//   - Nothing is synced: after a crash nobody could find it.
//   - Space goes back as it frees: a wholly free extent is punched out, a free
//     tail is cut off, by a goroutine of the store (trim.go), after trimDelay
//     so that frees gather. One or two growth steps are kept until the last
//     slot is free.
//
// # Locks
//
// All methods are safe for concurrent use. Taken in this order:
//
//	Store.life      Close excludes all calls; every call holds it shared
//	Store.writer    one Write at a time: staging buffer, use counter, page cache tails
//	Store.trimming  one trim at a time; never taken with writer
//	dir.growing     the file's size: the writer's Allocate, the trimmer's Truncate
//	dir.mu          the map of slots and all counters; never held across I/O
//
// So Free never waits for I/O, Read and Stats only for their own (Stats asks the
// file system for its free bytes), and only Close makes others wait. A slot's
// bytes have no lock: the caller must not free a slot that is being read, or it
// may get a false *block.CorruptError, never wrong data.
package spill
