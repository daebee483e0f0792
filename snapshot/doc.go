// Package snapshot keeps the list of who reads an older state of a store, and
// the index of originals: versions of blocks that were replaced and that someone
// of them still wants.
//
// # The few types
//
// A [Set] is the live snapshots of one store. A [Reader] sees one commit for as
// long as it is open; readers of one LSN share a [Point]. A [Backup] reads every
// block once, and wants the original of a block only until that block is done
// (L3). An [Original] is one version, kept once for all who want it (L2).
//
// # Who wants what
//
// The durable horizon is a point like any other, so a reader that opens there
// cannot miss a version (R1, R2). When the horizon has passed the commit that
// replaced a version, [Set.Replaced] decides: the newest point below that commit
// answers for all readers in one comparison, and each live backup, of which there
// are at most [BackupsMax], for itself (R11): it wants what is not done, and, narrowed to
// an incremental, what that carries. So a commit's cost does not grow with the
// number of open readers.
//
// Originals of readers are held in sublists, by the point that is the newest to
// want them and the interval between points in which they were born: the
// deadlists of ZFS. Ending a point frees whole sublists or passes them on to the
// point before; it costs what it frees, in slices of the lock.
//
// # How a snapshot ends
//
// Closed by who opened it, or broken: [Set.BreakVictim] when nothing else gives
// memory back (R13), [Set.BreakWanting] when an original is lost. From then on
// every use of it returns a [BrokenError] that says why (L10).
//
// # Locks
//
// A block's latch is taken before Set.mu, never the other way round. What is to
// be freed is therefore collected under mu and dropped after it. A [Backup] and a
// [Reader] may be used by one goroutine at a time, Err by any.
//
// # Caveats
//
// Entries of the index are on the Go heap. One whose original has a frame is
// charged with it; those of spilled originals are bounded by temporary storage,
// not by MaxRAM. Of the ladder only the last rung is here: backups do not fall
// forward yet.
package snapshot
