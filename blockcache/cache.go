package blockcache

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/spill"
)

// deadBit in Version.pins says that the last Unpin frees the frame.
const deadBit = 1 << 30

// Options of a cache.
type Options struct {
	BlockSize        int                        // bytes
	RAMBytesMax      int64                      // MaxRAM: everything below is charged to it
	OverflowBytesMax int64                      // RAM beyond MaxRAM, for originals that temporary storage refused
	HostReserve      int64                      // memory of the host that overflow leaves alone
	Host             func() (HostMemory, error) // nil: AskHost
	Marks            map[string]Marks           // by the level's name; "" is for those that have none
	Spill            *spill.Store               // temporary storage; its owner is the cache from then on
	// Exhausted is called when RAM, temporary storage and overflow are used up
	// and originals are held: break a snapshot, report whether that freed
	// anything. It is called without locks held.
	Exhausted func() bool
	// NeedClean is called when frames are short because heads are dirty. It
	// must not block.
	NeedClean func()
}

// RAMBytesMin is the smallest MaxRAM for a block size: room for the standing
// reserve, for a path of the tree with its neighbours, and for progress.
func RAMBytesMin(blockSize int) int64 { return 384 * int64(blockSize+descriptorBytes) }

// Cache holds the frames of one store. Safe for concurrent use.
type Cache struct {
	opts    Options
	shadow  shadow.Blocks // empty without the tag invariants
	latches [latchCount]Latch
	frames  frames
	lists   lists
	counts  counts
	reload  reload
	spiller spiller
	gauges  gauges
	entries entries
	budget  budget
	owner   Owner        // of originals; set before there are any
	frozen  atomic.Int64 // heads without a Version
	shared  atomic.Bool  // the standing reserve is everybody's

	evicted, spilled, overflowed, frameWaits atomic.Int64
}

// Open makes an empty cache.
func Open(o Options) (*Cache, error) {
	if o.Host == nil {
		o.Host = AskHost
	}
	c := &Cache{opts: o}
	c.gauges.init(&c.opts)
	c.initLatches()
	framesMax := o.RAMBytesMax / int64(o.BlockSize+descriptorBytes)
	c.frames.init(o.BlockSize)
	c.frames.limit = framesMax - standingReserve
	c.grantOverflow(c.gauges.memory.now(time.Now()))
	c.budget.ram = o.RAMBytesMax
	c.entries.init(&c.frames)
	c.lists.init(framesMax)
	c.reload.init(c)
	c.spiller.start(c)
	return c, nil
}

// Close stops the spiller and gives all memory back. No version may be used
// afterwards.
func (c *Cache) Close() error {
	c.spiller.stop()
	c.reload.close()
	return errors.Join(c.opts.Spill.Close(), c.frames.close())
}

// FramesMax is how many frames MaxRAM allows.
func (c *Cache) FramesMax() int64 { return c.frames.limit }

// SetOwner says who has the index of originals. Before there are any.
func (c *Cache) SetOwner(o Owner) { c.owner = o }

// floor is how many clean frames originals do not push out while there is
// temporary storage.
func (c *Cache) floor() int64 { return c.Room() / 8 }

// Adopt gives v the frame d, which holds v's image, and charges it. Under the
// latch, or for a version nobody else can reach.
func (c *Cache) Adopt(v *Version, d []byte) {
	v.data = d
	c.counts[ClassReserve].Add(-1)
	c.counts[classOf(v)].Add(1)
	v.show()
	c.held(v, 1)
}

// held tells the owner of an original of an image more or fewer.
func (c *Cache) held(v *Version, delta int) {
	if v.Entry != 0 {
		c.owner.Held(v.Entry, delta)
	}
}

// Keep puts a version that has a frame where it may leave RAM from: clean heads
// and originals. Under the latch or not, but not with lists.mu held.
func (c *Cache) Keep(v *Version) {
	switch {
	case v.data == nil:
	case v.Role == RoleOriginal:
		c.lists.addOriginal(v)
	case v.Role == RoleHead && !v.Dirty && v.InPlace:
		c.lists.remember(v)
	}
}

// KeepCleaned is Keep for a head that the cleaner wrote: it was used.
func (c *Cache) KeepCleaned(v *Version) { c.lists.again(v) }

// Forget takes a version out of the lists that Keep put it in.
func (c *Cache) Forget(v *Version) { c.lists.forget(v) }

// Touch counts a use of a head. A use that is lost to a race does not matter.
func (c *Cache) Touch(v *Version) {
	if n := v.freq.Load(); n < freqMax {
		v.freq.Store(n + 1)
	}
}

// Unpin ends a pin.
func (c *Cache) Unpin(v *Version) {
	if v.pins.Add(-1) == deadBit {
		c.freeDead(v)
	}
}

// freeDead gives the frame of a dead version back: once, though someone who came
// without the latch may pin and unpin a dead version again.
func (c *Cache) freeDead(v *Version) {
	if !v.gone.CompareAndSwap(false, true) {
		return
	}
	c.counts[ClassDead].Add(-1)
	c.frames.give(v.data)
}

// dropFrame takes the frame of a version that has another place. Under the
// latch, not pinned.
func (c *Cache) dropFrame(v *Version) {
	c.checkFrame(v, "a frame that goes")
	c.counts[classOf(v)].Add(-1)
	d := v.data
	v.data = nil
	c.held(v, -1)
	if v.Role == RoleOriginal {
		c.latchOf(v.ID).Settle(v)
	}
	c.frames.give(d)
}

// Kill ends a version: nobody can find it any more, its places are freed. Its
// frame goes when the last pin does. Under the latch (or for a private
// version, by its owner).
func (c *Cache) Kill(v *Version) {
	c.lists.forget(v)
	c.killLocked(v)
}

func (c *Cache) killLocked(v *Version) {
	c.checkFrame(v, "a version that ends")
	from := classOf(v)
	v.Role = RoleDead
	v.live.Store(nil)
	v.Older = nil
	c.DropSlot(v)
	if v.data == nil {
		return
	}
	c.counts[from].Add(-1)
	c.counts[ClassDead].Add(1)
	if v.pins.Or(deadBit) == 0 {
		c.freeDead(v)
	}
}

// DropSlot gives up the place in temporary storage of a version that has
// another one. Under the latch.
func (c *Cache) DropSlot(v *Version) {
	if v.slot != 0 {
		c.dropSlot(v)
	}
}

// dropSlot gives a version's place in temporary storage back. Under the latch.
func (c *Cache) dropSlot(v *Version) {
	c.FreeSlot(v.slot)
	v.slot = 0
	c.held(v, -1)
}

// FreeSlot gives a place in temporary storage back, of a version that is only
// an entry; zero is none. Under the latch.
func (c *Cache) FreeSlot(slot spill.Slot) {
	if slot != 0 {
		c.reload.forget(slot)
		c.opts.Spill.Free(slot)
		c.spiller.notFull()
	}
}

// ClearInPlace says that the data file will not hold v much longer. Under the
// latch; v has a frame or a slot (R4).
func (c *Cache) ClearInPlace(v *Version) {
	c.checkKept(v)
	v.InPlace = false
	if v.Role == RoleOriginal && v.data != nil {
		c.lists.addOriginal(v)
	}
}

// NewVersion makes a private version of a block in a frame of its own, zeroed
// or to be overwritten by the caller.
func (c *Cache) NewVersion(id block.ID, t block.Type) (*Version, error) {
	d, err := c.NewFrame()
	if err != nil {
		return nil, err
	}
	v := &Version{ID: id, Type: t, Role: RolePrivate}
	c.Adopt(v, d)
	return v, nil
}

// BlockBytes is the size of a block.
func (c *Cache) BlockBytes() int64 { return int64(c.opts.BlockSize) }
