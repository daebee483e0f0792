package blockcache

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/yield"
	"github.com/spillwaydb/spillway/spill"
)

// spillBatch is how many originals go to temporary storage in one write.
const spillBatch = 128

// fullFor is how long temporary storage counts as full behind a write that found no room:
// a file system has room again also when nobody here gave any back, and only a write
// finds that out.
const fullFor = time.Second

// spiller moves originals whose frame is their only image to temporary storage,
// oldest first, while fewer frames than low are available, until high are. It
// pins what it writes, needs no frame itself and waits for nobody but the disk,
// so that everyone may wait for it (R7).
type spiller struct {
	c          *Cache
	low, high  int64
	kicked     chan struct{}
	quit       chan struct{}
	done       sync.WaitGroup
	demanded   atomic.Bool               // someone waits for a frame
	full       atomic.Pointer[time.Time] // when the last write found no room; nil: it did not
	freed      atomic.Bool               // enough slots were freed since
	vacated    atomic.Int64              // slots freed since it was full or enough
	worthWhile int64                     // how many slots are enough
	batch      []*Version
	items      []spill.Item
	slots      []spill.Slot
}

func (s *spiller) start(c *Cache) {
	s.c = c
	s.low = max(c.frames.limit/16, 16)
	s.high = 2 * s.low
	slots := c.opts.Spill.Stats().LimitBytes / int64(c.opts.BlockSize)
	s.worthWhile = max(1, min(2*spillBatch, slots/8))
	s.kicked = make(chan struct{}, 1)
	s.quit = make(chan struct{})
	s.done.Go(s.run)
}

func (s *spiller) stop() {
	close(s.quit)
	s.done.Wait()
}

// kick makes the spiller look, if frames are short.
func (s *spiller) kick() {
	if s.c.Available() < s.low {
		s.wake()
	}
}

// demand makes the spiller write at least one batch: someone found no frame.
func (s *spiller) demand() {
	s.demanded.Store(true)
	s.wake()
}

func (s *spiller) wake() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// isFull reports whether temporary storage takes no more: it has no room, or
// the entries of what is there take their share of MaxRAM (L9).
func (s *spiller) isFull() bool {
	at := s.full.Load()
	return at != nil && time.Since(*at) < fullFor || s.c.isCrowded()
}

// notFull is called when a slot comes free. Temporary storage counts as full
// until there is room for a batch worth writing: otherwise everyone who needs a
// frame would wait for a write of one block.
func (s *spiller) notFull() {
	if s.vacated.Add(1) >= s.worthWhile {
		s.vacated.Store(0)
		s.freed.Store(true)
		s.full.Store(nil)
	}
}

func (s *spiller) run() {
	for {
		select {
		case <-s.quit:
			return
		case <-s.kicked:
		}
		wasFull, wrote := s.isFull(), false
		for (s.demanded.Swap(false) || s.c.Available() < s.high) && s.spillSome() {
			wrote = true
			select {
			case <-s.quit:
				return
			default:
			}
		}
		if wrote || s.isFull() != wasFull { // or who waits and we would wake each other for nothing
			s.c.Progress()
		}
	}
}

// spillSome writes one batch and reports whether it made room.
func (s *spiller) spillSome() bool {
	if s.c.isCrowded() {
		return false
	}
	s.c.pickOriginals(s)
	if len(s.batch) == 0 {
		return false
	}
	n, err := s.write(s.batch)
	s.c.spilled.Add(int64(n))
	return n > 0 && err == nil
}

// write puts versions that the caller has pinned into temporary storage, drops
// the frames of those that nobody else has pinned, and unpins all. It returns
// how many were written.
func (s *spiller) write(batch []*Version) (int, error) {
	c := s.c
	s.items, s.slots = s.items[:0], s.slots[:0]
	for _, v := range batch {
		s.items = append(s.items, spill.Item{ID: v.ID, LSN: v.LSN, Data: v.data})
		s.slots = append(s.slots, 0)
	}
	s.freed.Store(false)
	n, err := c.opts.Spill.Write(s.items, s.slots)
	yield.At("originals written to slots, not noted")
	for i, v := range batch {
		if i < n {
			c.spilledTo(v, s.slots[i])
		}
		c.Unpin(v)
	}
	yield.At("originals in slots and frames")
	for _, v := range batch {
		c.dropSpilled(v)
	}
	if err != nil { // of a failure temporary storage has told: each frame that is needed asks again
		s.setFull()
	} else if s.full.Load() != nil {
		s.full.Store(nil)
	}
	return n, err
}

func (s *spiller) setFull() {
	if !s.freed.Load() {
		now := time.Now()
		s.full.Store(&now)
	}
}

// spilledTo notes a version's slot, or frees the slot of one that died.
func (c *Cache) spilledTo(v *Version, slot spill.Slot) {
	l := c.Latch(v.ID)
	defer l.Unlock()
	if v.Role == RoleDead {
		c.opts.Spill.Free(slot)
		return
	}
	v.slot = slot
	c.held(v, 1)
}

// dropSpilled takes the frame of a version that is in a slot now; a pinned one
// goes back to the list and is dropped at the next try.
func (c *Cache) dropSpilled(v *Version) {
	l := c.Latch(v.ID)
	defer l.Unlock()
	switch {
	case v.data == nil || v.Role == RoleDead:
	case v.Pinned() || v.slot == 0:
		c.Keep(v)
	default:
		c.lists.forget(v)
		c.dropFrame(v)
	}
}

// pickOriginals fills s.batch with the oldest originals, pinned and out of
// their list; those that are in a slot already lose their frame on the way.
func (c *Cache) pickOriginals(s *spiller) {
	s.batch = s.batch[:0]
	q := &c.lists
	q.mu.Lock()
	defer q.mu.Unlock()
	for range 4 * spillBatch {
		v := q.originals.tail
		if v == nil || len(s.batch) == spillBatch {
			return
		}
		q.originals.remove(v)
		l := c.latchOf(v.ID)
		if !l.mu.TryLock() {
			q.originals.push(v)
			continue
		}
		c.pickOne(s, v)
		l.Unlock()
	}
}

func (c *Cache) pickOne(s *spiller, v *Version) {
	switch {
	case v.Role != RoleOriginal || v.data == nil || v.Loading:
	case v.Pinned():
		c.lists.originals.push(v)
	case v.slot != 0:
		c.dropFrame(v)
	default:
		c.checkFrame(v, "a frame that is spilled")
		v.Pin()
		s.batch = append(s.batch, v)
	}
}

// SpillPrivate writes private versions of a write transaction to temporary
// storage and takes their frames: then they are to be frozen. Called by the
// transaction only; the versions are pinned by nobody. spill.ErrFull when there is
// no room.
func (c *Cache) SpillPrivate(batch []*Version) error {
	w := spiller{c: c}
	for _, v := range batch {
		v.Pin()
	}
	n, err := w.write(batch)
	if err == nil && n < len(batch) {
		err = spill.ErrFull
	}
	return err
}

// Unspill reads a private version that was frozen back into the frame d, and
// gives its slot and its entry up. Called by its transaction only.
func (c *Cache) Unspill(h Handle, d []byte) (*Version, error) {
	e := c.Entry(h)
	if err := c.ReadSlotInto(e.Slot, e.ID, e.LSN, d); err != nil {
		return nil, err
	}
	v := c.Thaw(h, RolePrivate)
	c.DropSlot(v)
	c.Adopt(v, d)
	return v, nil
}
