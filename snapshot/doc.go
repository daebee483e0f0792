// Package snapshot keeps the list of who reads an older state of a store, and
// the index of originals: versions of blocks that were replaced and that someone
// of them still wants.
//
// # The few types
//
// A [Set] is the live snapshots of one store. A [Reader] sees one commit for as
// long as it is open; readers of one LSN share a point. A [Backup] reads every
// block once, and wants the original of a block only until that block is done
// (L3). An original is one version, kept once for all who want it (L2).
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
// point before; it costs what it frees, in slices of the lock (leaving.go).
//
// # How a snapshot ends
//
// A [Backup] that can fall forward does that first (forward.go): it lives on, wants
// nothing, and its owner knows what to do. Else it ends:
// closed by who opened it, or broken: [Set.BreakVictim] when nothing else gives
// memory back (R13), [Set.BreakWanting] when an original is lost. From then on
// every use of it returns a [BrokenError] that says why (L10).
//
// What it held leaves slice by slice (leaving.go). Who closes or releases a snapshot lets
// go of all of it; who needs room, of one slice, and a goroutine does the rest: a commit
// that finds no room waits no longer because a million originals go. [Set.Close] waits
// for the goroutine, and comes before the cache is closed.
//
// # Locks
//
// A block's latch is taken before Set.mu, never the other way round. What is to
// be freed is therefore collected under mu and dropped after it. A [Backup] and a
// [Reader] may be used by one goroutine at a time, Err by any.
//
// # What it takes
//
// An original is an entry of 40 bytes off the Go heap, and a handle of it in the
// index and in the queue of each backup that wants it: 12 bytes of heap each at
// most, which count twice. Only one that has a frame has a Version as well. All of
// it is asked of MaxRAM (L9), and counts as held by who wants the original: so one
// that the data file still has, which takes nothing else, is found by R13, too.
//
// # Caveats
//
// Readers without a name are only counted, by point. The age of those, by which R13
// prefers victims, is that of their point: how long ago it became the horizon, not
// when the last of them came. So a reader that has just joined an old point is not
// taken for young. A point and its lists are on the Go heap; the lists, which come
// with originals, are charged, the point belongs to who opened a reader there.
package snapshot
