package blockcache

import "time"

// NewFrame returns a frame of class reserve, making room for it by what hurts
// least first:
//
//  1. a frame that is free under MaxRAM
//  2. a clean head, down to the floor
//  3. the frame of an original that the data file still holds (L4)
//  4. while temporary storage has room: a clean head down to half the floor, then
//     what the spiller frees, waiting for the disk
//  5. when it has none, or entries take their share of MaxRAM: overflow, up to
//     its cap and what the host can give; then a snapshot is broken (R13)
//  6. any clean head
//  7. what the cleaner frees, waiting for the disk
//
// The floor keeps writers from reading every block of their working set from the
// disk because a snapshot is open.
//
// The caller holds no latch, and no pin that a cleaner or spiller would need
// (R7). It fails only if the operating system has no memory.
func (c *Cache) NewFrame() ([]byte, error) { return c.newFrame(0, c.opts.NeedClean) }

// NewReserveFrame is NewFrame for the cleaner: it may use the standing reserve
// (R7) and never waits for the cleaner.
func (c *Cache) NewReserveFrame() ([]byte, error) { return c.newFrame(standingReserve, nil) }

// standingReserve is how many frames are kept from all but the cleaner.
const standingReserve = 32

// ShareReserve gives the standing reserve to everybody: there is no cleaner any more.
// What is dirty then stays so, and that may be all other frames.
func (c *Cache) ShareReserve() {
	c.shared.Store(true)
	c.Progress()
}

func (c *Cache) newFrame(extra int64, needClean func()) ([]byte, error) {
	var moved chan struct{}
	for {
		if c.shared.Load() {
			extra = standingReserve
		}
		if d, _, err := c.take(extra, 0); d != nil || err != nil {
			return d, err
		}
		if c.makeRoom(needClean) {
			continue
		}
		if c.Frames(ClassOriginal) > 0 && c.spiller.isFull() {
			if d, over, err := c.take(extra, c.overflowMax()); d != nil || err != nil {
				if over {
					c.overflowed.Add(1)
				}
				return d, err
			}
			if c.opts.Exhausted != nil && c.opts.Exhausted() {
				continue
			}
		}
		if moved == nil { // try once more, now that progress is being watched
			moved = c.frames.watch()
			continue
		}
		c.frameWaits.Add(1)
		if !c.frames.wait(moved) {
			c.evict()
		}
		moved = nil
	}
}

// overflowMax is how many frames beyond MaxRAM there may be now. While entries have their
// share of MaxRAM, overflow is no way out of that, and has little: each original there
// takes another entry.
func (c *Cache) overflowMax() int64 {
	most := c.frames.overflow.Load()
	if c.isCrowded() {
		most = min(most, c.frames.limit/4)
	}
	return most
}

func (c *Cache) take(extra, overflow int64) (d []byte, over bool, err error) {
	if refused("frame") {
		return nil, false, nil
	}
	d, over, err = c.frames.take(extra, overflow)
	if d != nil {
		c.counts[ClassReserve].Add(1)
	}
	return d, over, err
}

// GiveFrame takes back a frame of class reserve that no version adopted.
func (c *Cache) GiveFrame(d []byte) {
	c.counts[ClassReserve].Add(-1)
	c.frames.give(d)
}

// makeRoom reports whether a frame came free without I/O.
func (c *Cache) makeRoom(needClean func()) bool {
	c.spiller.kick()
	if c.Frames(ClassClean) > c.floor() && c.evict() {
		return true
	}
	if c.dropInPlace() {
		return true
	}
	if needClean != nil {
		needClean()
	}
	if c.Frames(ClassOriginal) == 0 {
		return c.evict()
	}
	if !c.spiller.isFull() && c.Frames(ClassClean) > c.floor()/2 && c.evict() {
		return true
	}
	c.spiller.demand() // clean frames may be there, but all pinned
	return false
}

// Progress wakes those who wait for a frame: heads became clean, or originals
// lost their last pin.
func (c *Cache) Progress() { c.frames.progress() }

// Available is how many frames can be had without I/O and without going below
// the floor of clean ones.
func (c *Cache) Available() int64 {
	return c.frames.spare() + max(0, c.Frames(ClassClean)-c.floor())
}

// waitMax bounds a wait for a frame: what makes one evictable (a pin that
// ends, say) does not always tell.
const waitMax = 10 * time.Millisecond

// watch names a moment: wait returns at once if progress was made since.
func (f *frames) watch() chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = true
	return f.moved
}

// wait reports whether progress was made.
func (f *frames) wait(moved chan struct{}) bool {
	t := time.NewTimer(waitMax)
	defer t.Stop()
	select {
	case <-moved:
		return true
	case <-t.C:
		return false
	}
}

func (f *frames) progress() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progressLocked()
}

func (f *frames) progressLocked() {
	if f.waiting {
		close(f.moved)
		f.moved = make(chan struct{})
		f.waiting = false
	}
}
