package blockcache

import "github.com/spillwaydb/spillway/spill"

// Stats are counts and sizes of a cache, in frames unless a name says bytes.
type Stats struct {
	FramesMax, FramesInUse, FramesPeak       int64
	Clean, Dirty, Originals, Private, Pinned int64
	Index                                    int64 // of entries: what is known of versions without a frame
	LentBytes                                int64 // of MaxRAM: what the Go heap has of it
	Evicted, Spilled, FrameWaits             int64
	Overflowed                               int64 // frames taken beyond MaxRAM, one after the other
	Temporary                                spill.Stats
}

// Counts count what happened to originals, in frames.
type Counts struct{ Spilled, Overflowed int64 }

// Counts returns them. It takes no lock.
func (c *Cache) Counts() Counts { return Counts{c.spilled.Load(), c.overflowed.Load()} }

// Stats returns the counts.
func (c *Cache) Stats() Stats {
	c.frames.mu.Lock()
	inUse, peak, lent := c.frames.inUse, c.frames.inUseMax, c.frames.lentTo
	c.frames.mu.Unlock()
	return Stats{
		FramesMax: c.frames.limit, FramesInUse: inUse, FramesPeak: peak,
		Clean: c.Frames(ClassClean), Dirty: c.Frames(ClassDirty), Originals: c.Frames(ClassOriginal),
		Private: c.Frames(ClassPrivate), Pinned: c.Frames(ClassDead) + c.Frames(ClassReserve),
		Index: c.Frames(ClassIndex), LentBytes: lent,
		Evicted: c.evicted.Load(), Spilled: c.spilled.Load(), FrameWaits: c.frameWaits.Load(),
		Overflowed: c.overflowed.Load(),
		Temporary:  c.opts.Spill.Stats(),
	}
}
