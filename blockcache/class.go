package blockcache

import "sync/atomic"

// Class is what a frame is charged as.
type Class uint8

// The classes of frames.
const (
	ClassClean    Class = iota // newest version, in place
	ClassDirty                 // newest version, not yet in place
	ClassOriginal              // replaced version, wanted or perhaps wanted
	ClassPrivate               // of the open write transaction
	ClassReserve               // working memory of cleaner, spiller, securing reads (R7)
	ClassDead                  // unreachable, still pinned
	ClassIndex                 // pages of entries
	classCount
)

func (c Class) String() string {
	return [...]string{"clean", "dirty", "original", "private", "reserve", "dead", "index"}[c]
}

// classOf is the class that a version's frame belongs to. Under the latch.
func classOf(v *Version) Class {
	switch v.Role {
	case RolePrivate:
		return ClassPrivate
	case RoleHead:
		if v.Dirty {
			return ClassDirty
		}
		return ClassClean
	case RoleDead:
		return ClassDead
	}
	return ClassOriginal
}

// counts are frames per class, but for those of entries.
type counts [ClassIndex]atomic.Int64

// Frames is how many frames a class has now.
func (c *Cache) Frames(class Class) int64 {
	if class == ClassIndex {
		return c.entries.inPages.Load()
	}
	return c.counts[class].Load()
}

// Bytes is what the frames of a class hold now.
func (c *Cache) Bytes(class Class) int64 { return c.Frames(class) * int64(c.opts.BlockSize) }

// Reclass tells the budget that what was of class from before the caller
// changed v's role or dirty state is now what v is. Under the latch.
func (c *Cache) Reclass(v *Version, from Class) {
	if to := classOf(v); to != from && v.data != nil {
		c.counts[from].Add(-1)
		c.counts[to].Add(1)
	}
}

// ClassOf is the class of v's frame. Under the latch.
func (c *Cache) ClassOf(v *Version) Class { return classOf(v) }
