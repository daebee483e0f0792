package blockcache

import (
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/spill"
)

// Role is what a version is to the store; it decides which class of the budget
// its frame is charged to.
type Role uint8

// A version moves only along these arrows:
//
//	Private --publish--> Head --replace--> Pending --sweep--> Original --> Dead
//	Private --rollback--> Dead      Head --evict--> Dead     Pending --sweep--> Dead
const (
	RolePrivate  Role = iota // of a write transaction, in no table
	RoleHead                 // the newest version of its block
	RolePending              // replaced, by a commit that may not be durable (R1)
	RoleOriginal             // replaced, kept because a snapshot wants it (L2)
	RoleDead                 // nobody can reach it: it is gone (its frame lives as long as its pins), or frozen
)

// Owner has the index of originals. It is called under the latch of the block.
type Owner interface {
	// Held tells of one image more, or fewer, that an original has in RAM or in
	// temporary storage.
	Held(entry Handle, delta int)
	// Freeze takes over what an original that has no frame says. From then on
	// the version is dead, and the entry stands for it.
	Freeze(v *Version)
}

// Version is one version of one block, and the places where its image is: in a
// frame, in a slot of temporary storage, in place in the data file, or in
// several of them. It is reachable as long as one place is left.
//
// The places and all fields below "guarded" change under the block's latch
// only (R4). The bytes of a frame never change once the version is published,
// so a pinned version is read without the latch. The exception are heads of type
// block.TypeMap: their bytes are read and written under the latch.
//
// What a reader touches comes first, in one cache line.
type Version struct {
	ID  block.ID
	LSN block.LSN // the commit that made it; of a head being loaded: unknown yet

	live atomic.Pointer[byte] // the frame of a head, for who comes without the latch
	pins atomic.Int32
	freq atomic.Uint32 // hits since it was queued, at most freqMax
	data []byte        // the frame: a whole block, or nil. Guarded by the latch
	Type block.Type

	// Guarded by the latch.
	Role    Role
	Until   block.LSN  // the commit that replaced or freed it; 0 while it is newest
	slot    spill.Slot // place in temporary storage, or zero
	InPlace bool       // the data file holds exactly this version at its place
	Dirty   bool       // newest version, not yet in place
	Freed   bool       // a head that says: this block is free since LSN
	Loading bool       // someone reads its image into a frame; wait on the latch
	Rec     block.LSN  // of a dirty head: first commit whose change is not in place
	Image   block.LSN  // newest commit that logged the whole image of this block
	Older   *Version   // the version this one replaced, while that is pending
	Entry   Handle     // of an original: its place in the index

	// Guarded by lists.mu.
	queue      queue
	prev, next *Version

	gone atomic.Bool // the frame of a dead version was given back
}

// Data is the image in the frame, trailer included but not sealed, or nil.
// Read it under the latch, or with the version pinned.
func (v *Version) Data() []byte { return v.data }

// Slot is the version's place in temporary storage, or zero. Under the latch.
func (v *Version) Slot() spill.Slot { return v.slot }

// Pin keeps the frame (and a dead version's frame, too) until [Cache.Unpin].
// Under the latch, or by who has a pin already.
func (v *Version) Pin() { v.pins.Add(1) }

// Pinned reports whether anyone holds a pin.
func (v *Version) Pinned() bool { return v.pins.Load() > 0 }
