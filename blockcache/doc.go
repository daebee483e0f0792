// Package blockcache holds the frames of a store: which versions of which
// blocks are in RAM, under a limit that counts every byte, and what leaves RAM
// in which order when the limit is reached.
//
// # The few types
//
// A [Version] is one version of one block and the places where its image is: a
// frame, a slot of temporary storage, its place in the data file. A [Latch]
// guards the places of all versions of a block (R4) and the table's entry for
// the newest one. A [Cache] owns latches, frames, the order of eviction and the
// spiller. An [Entry] stands for a version that has no frame.
//
// # What leaves, and in which order
//
// Frames live off the Go heap (L9). [Cache.NewFrame] makes room by what hurts
// least: clean heads by S3-FIFO down to a floor, frames of originals that the
// data file still holds, clean heads below the floor, originals that the
// spiller writes to temporary storage (oldest first, batched), overflow beyond
// MaxRAM under a cap of its own, and last the end of a snapshot. Dirty heads
// leave by way of the cleaner, private versions by [Cache.SpillPrivate]; both
// belong to the store above.
//
// # What is no frame
//
// A version without a frame has no Version either: it is frozen (freeze.go). Its
// entry is in a page, which is a frame of class index; what leads to entries is on
// the Go heap and counts twice. Both take frames away, and so do the buffers that
// [Cache.Charge] grants. When they have half of MaxRAM temporary storage counts as
// full, and the ladder goes on; the write transaction may have an eighth more
// (budget.go), so that a small one always finds room.
//
// # Protocol
//
//   - A frame's bytes do not change once its version is published. So who pinned
//     a version under its latch reads it without. Blocks of the changed-block map
//     have one version, which changes: they are read and written under the latch.
//   - Places change under the latch. "In place" is cleared before the second
//     copy is written; a frame or slot may not go while it is the only place.
//   - A read miss marks the version Loading under the latch, reads without it,
//     and puts the frame in under the latch; everyone else who needs that
//     version waits on the latch. The frame is taken beforehand: nobody waits
//     for memory with a latch or with a Loading mark that a spiller or cleaner
//     needs (R7).
//   - A pointer to a version without a frame is good while the latch is held, or
//     while the version is Loading or pinned. When the latch is let go it is
//     frozen, and who looks it up next gets another one.
//   - Lock order: latch, lists.mu, the snapshot set's lock, entries.mu, frames.mu.
//     Eviction starts from a list and takes latches by TryLock.
//   - A dead version's frame goes with its last pin (deadBit in pins).
//
// # Caveats
//
// Memory for frames comes in chunks and stays with the process until Close; only
// overflow, and what the Go heap has instead of frames, goes back at once. Pages of
// entries go when they are empty: entries that go at random leave pages that are
// not, but never more than there were at the peak, which is what the shares bound.
// Watermarks are in gauge.go and watermark.go; what the host has to do with the cap of
// overflow is in host.go.
package blockcache
