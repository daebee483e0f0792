// Package mvcc is the store: transactions over versioned blocks, commit,
// checkpoint, recovery, allocation, and the source of live backups. It knows
// blocks, not keys: a front door (package kv is one) keeps its own structure in
// them and 64 bytes at the root.
//
// # The few types
//
// A [Store] is an open database directory. A [WriteTx] edits private copies of
// blocks; there is one at a time. A [ReadTx] sees one commit for as long as it
// is open. A [Backup] hands out every block in use as of one commit, once. A
// [Builder] makes a database directory from what a backup handed out. A [LogTail]
// hands out the log of durable commits, which [Store.Apply] rolls a standby
// forward by. An [Image] is a state that can be opened without being a directory.
// The word LSN means the number of a commit.
//
// # A version's life
//
//	private --publish--> head --replaced--> pending --sweep--> original --> gone
//	                                                \--------------------> gone
//
// A commit publishes its private versions as the heads of their blocks; what
// they replace hangs behind them, pending, until readers see the commit. Only
// then it is known who can want the old version: nobody who opens later. The
// sweep makes it an original if a live snapshot wants it (package snapshot), or
// frees it (R1, R2). While a version has no frame, whatever it is, it is an entry of
// package blockcache and nothing else.
//
// # Commit, step by step
//
//  1. wait for the dirty limit; encode the redo; reserve log space. Until here
//     the commit can be refused, whole (R7). Data-file space was reserved when
//     the block was allocated.
//  2. publish, then append the last record, with the publishing lock held: a
//     sync by someone else can make the commit durable only after its blocks
//     can be found; and the cleaner, which may find them first, waits for the
//     record.
//  3. let the next writer in; it sees this commit, durable or not (R3).
//  4. wait for the shared sync. The log tells the new horizon before anyone
//     wakes: readers see the commit, the sweep runs, then the commit is
//     acknowledged (L7).
//
// In the weaker modes step 4 does not wait: readers see the newest commit, while
// recovery, in-place writes and backups keep to what is durable.
//
// # Checkpoint
//
// The cleaner works in rounds (cleaner.go): it writes every block with a change
// at or below C, the durable horizon at the start, by way of second copies, syncs,
// and records that redo starts at C+1. It always picks the head, pins it, and
// makes it durable before it writes, so a hot block is no obstacle (R8).
// Second copies are left out for a block whose whole image is in the log from
// the redo start in force on; the sync before the record is what allows that.
//
// # Changed blocks
//
// Each commit marks the extents of its blocks with its LSN in the changed-block map,
// before it takes that LSN (changemap.go). Map blocks are in no version and no log; they
// are written in place by the cleaner. An incremental backup looks at extents with a mark
// above its base, and takes the blocks whose own LSN is (increment.go).
//
// Where the marks are raised, changes are counted by block (heat.go): a backup hands out
// originals in hand first, then what changes often, then the rest (order.go).
//
// # Falling forward
//
// A backup whose originals outgrow what was granted gives them up, and becomes one of a
// later commit that carries redo (fallforward.go). Builder and Prover apply that redo by
// the rules of recovery (forwardredo.go).
//
// # What is remembered of changes
//
// How many different blocks change within 10 s to a day is counted exactly, kept by
// the hour of the week behind the superblocks, and told by [Store.Changes]: package
// forecast makes of it what a backup will cost (changes.go).
//
// # Recovery
//
// Open repairs torn blocks from second copies written since the checkpoint in
// force, reads the log twice (first for the blocks it frees, then to redo), and
// refuses if a block has no sound copy. It writes in place only as the cleaner
// does, and can be cut at any point.
//
// A block whose place rotted is repaired while the store is open (repair.go): from RAM,
// from the log, or from an image of it that is given; the cleaner writes it.
//
// # Modes
//
// A store is opened for writing, read-only (readonly.go), from an image
// (image.go), or, if its superblock says so, as a standby (apply.go), which
// Promote ends (promote.go). While it is quiet (quiesce.go) it changes no file.
// heads.go says how a copy of a database is told from the database.
//
// # Locks
//
// In this order: the applier's, writer (held by the open write transaction, and
// by a standby from the first record of a commit to the last), the cleaner's
// turn, resting, anchor.writing, the data file's syncing, the history's, publishing,
// sweeping, a block's latch, the lists of package blockcache, the set of package
// snapshot. Nothing waits for I/O with a latch held; the cleaner waits for no
// frame but of the standing reserve, and for the writer only while a commit is
// on its way into the log.
//
// # Caveats
//
// An open ReadTx or Backup keeps originals; see Options for what bounds them and
// what happens then. Blocks that a transaction returned must be released before
// it ends. After a failed write or sync of the store's own files every commit is
// refused until the store is opened again (L8).
package mvcc
