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
// spiller.
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
//   - Lock order: latch, lists.mu, the snapshot set's lock, frames.mu. Eviction
//     starts from a list and takes latches by TryLock.
//   - A dead version's frame goes with its last pin (deadBit in pins).
//
// # Caveats
//
// Memory for frames comes in chunks and stays with the process until Close;
// only overflow goes back at once. Watermarks are in watermark.go.
package blockcache
