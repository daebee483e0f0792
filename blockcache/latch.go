package blockcache

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/spillwaydb/spillway/block"
)

const latchCount = 128 // power of two

// Latch guards the versions of the blocks that hash to it: their places (R4),
// the table's entry for their newest version, and the chain of pending ones.
//
// It is held for a few instructions at a time: never across I/O, never while a
// frame is reserved, never together with another latch.
type Latch struct {
	mu     sync.Mutex
	loaded sync.Cond
	table  atomic.Pointer[[]place] // changed under mu, searched with or without it
	heads  int
	cold   EntryTable // heads without a Version
	bare   []*Version // that have no frame: see settle
}

// place is one place of a latch's table: open addressing, linear probing, a power
// of two, at most half full. The number stands beside the pointer, so that a
// look-up touches one cache line until it has found its version.
type place struct {
	id atomic.Uint64
	v  atomic.Pointer[Version] // nil: empty
}

func (e *place) set(v *Version) {
	e.id.Store(uint64(v.ID))
	e.v.Store(v)
}

// Latch locks and returns the latch of a block.
func (c *Cache) Latch(id block.ID) *Latch {
	l := c.latchOf(id)
	l.mu.Lock()
	return l
}

func (c *Cache) latchOf(id block.ID) *Latch {
	return &c.latches[hash(id)>>(64-7)]
}

func hash(id block.ID) uint64 { return uint64(id) * 0x9e3779b97f4a7c15 }

// tableMin is how many places a table has at first.
const tableMin = 16

// initLatches makes all latches. Their first tables are of one piece.
func (c *Cache) initLatches() {
	places := make([]place, latchCount*tableMin)
	tables := make([][]place, latchCount)
	for i := range c.latches {
		tables[i] = places[i*tableMin:][:tableMin:tableMin]
		c.latches[i].init(c, &tables[i])
	}
}

func (l *Latch) init(c *Cache, table *[]place) {
	l.loaded.L = &l.mu
	l.cold.c = c
	l.table.Store(table)
}

// Lock takes a latch again that [Cache.Latch] returned.
func (l *Latch) Lock() { l.mu.Lock() }

// Unlock releases the latch. What has no frame is frozen: no pointer to a version
// without one is good after it, unless the version is Loading or pinned.
func (l *Latch) Unlock() {
	if len(l.bare) > 0 {
		l.settle()
	}
	l.mu.Unlock()
}

// Wait releases the latch until someone calls [Latch.Wake], then takes it
// again. What was found before must be looked up anew.
func (l *Latch) Wait() { l.loaded.Wait() }

// Wake lets everyone go on who waits on this latch.
func (l *Latch) Wake() { l.loaded.Broadcast() }

// find is the place of a block in a table, or the empty place where it would go.
func find(t []place, id block.ID) int {
	at := home(t, id)
	for range t { // without the latch there may be no end to meet
		if t[at].v.Load() == nil || t[at].id.Load() == uint64(id) {
			break
		}
		at = (at + 1) & (len(t) - 1)
	}
	return at
}

// home is where the search for a block begins.
func home(t []place, id block.ID) int { return int(hash(id) >> 16 & uint64(len(t)-1)) }

// Head is the table's entry for a block: its newest version (which may be
// loading, or say that the block is free), or nil when the newest version is
// in place in the data file and nowhere else.
func (l *Latch) Head(id block.ID) *Version {
	v := l.framed(id)
	if v == nil && l.cold.n > 0 {
		v = l.thawHead(id)
	}
	return v
}

// framed is Head, but for heads that are frozen. With or without the latch.
func (l *Latch) framed(id block.ID) *Version {
	t := *l.table.Load()
	return t[find(t, id)].v.Load()
}

// Live returns the head of a block, pinned, with its image, if it is in a frame
// and no newer than lsn: without the latch. nil says that the latch must be
// asked.
//
// The order makes it safe: pin, then look whether the version is still live.
// Who takes a frame away makes the version not live, then looks for pins. And a
// head that is at or below the LSN of an open snapshot is what that snapshot
// sees, also if it is replaced now: its successor is newer than the snapshot. That
// is why what a free block's place holds must not become a head while there are
// newer originals.
func (c *Cache) Live(id block.ID, lsn block.LSN) (*Version, []byte) {
	v := c.latchOf(id).framed(id)
	if v == nil || v.ID != id { // the table was changing
		return nil, nil
	}
	v.Pin()
	p := v.live.Load()
	if p == nil || v.LSN > lsn {
		c.Unpin(v)
		return nil, nil
	}
	c.Touch(v)
	return v, unsafe.Slice(p, c.opts.BlockSize)
}

// AheadMax is how many blocks one call of [Cache.Ahead] looks at.
const AheadMax = 8

// Ahead touches the versions and frames of blocks that will be asked for soon, so
// that the memory is on its way for all of them at once: [Cache.Live] alone would
// wait for one after the other. The result means nothing. What is read of a frame
// may be just then written, by whom it belongs to since it was found; the memory
// of frames stays mapped while anyone uses the store.
//
//go:norace
func (c *Cache) Ahead(ids []block.ID) (nothing byte) {
	var frames [AheadMax]*byte
	for i, id := range ids[:min(len(ids), AheadMax)] {
		if v := c.latchOf(id).framed(id); v != nil {
			frames[i] = v.live.Load()
		}
	}
	for _, p := range frames {
		if p != nil {
			nothing += *p
		}
	}
	return nothing
}

// show makes a head in a frame live. Under the latch. A block of the changed-block
// map never is: its frame is written to.
func (v *Version) show() {
	if v.data != nil && v.Role == RoleHead && !v.Freed && v.Type != block.TypeMap {
		v.live.Store(unsafe.SliceData(v.data))
	}
}

// Insert makes v the head of a block that has no entry.
func (l *Latch) Insert(v *Version) {
	t := *l.table.Load()
	if 2*(l.heads+1) > len(t) {
		t = l.grow(t)
	}
	l.cold.c.checkHead(v)
	v.Role = RoleHead
	v.show()
	t[find(t, v.ID)].set(v)
	l.heads++
}

func (l *Latch) grow(old []place) []place {
	t := make([]place, 2*len(old))
	for i := range old {
		if v := old[i].v.Load(); v != nil {
			t[find(t, v.ID)].set(v)
		}
	}
	l.table.Store(&t)
	return t
}

// Remove takes the head v out of the table. Entries that were pushed past its
// place move back, so that no search meets a gap before its end.
func (l *Latch) Remove(v *Version) {
	t := *l.table.Load()
	gap := find(t, v.ID)
	if t[gap].v.Load() != v {
		return
	}
	v.live.Store(nil)
	l.heads--
	mask := len(t) - 1
	for at := (gap + 1) & mask; t[at].v.Load() != nil; at = (at + 1) & mask {
		if (at-home(t, block.ID(t[at].id.Load())))&mask >= (at-gap)&mask {
			t[gap].set(t[at].v.Load())
			gap = at
		}
	}
	t[gap].v.Store(nil)
}

// Replace puts v in the place of the head old, which becomes pending behind it.
func (l *Latch) Replace(old, v *Version) {
	l.cold.c.checkHead(v)
	t := *l.table.Load()
	v.Role = RoleHead
	v.Older = old
	v.show()
	t[find(t, old.ID)].set(v)
	old.live.Store(nil)
	old.Role = RolePending
}

// Heads calls f for every head under this latch, which the caller holds. f does
// not change the table, nor the version: that may be a likeness.
func (l *Latch) Heads(f func(*Version)) {
	t := *l.table.Load()
	for i := range t {
		if v := t[i].v.Load(); v != nil {
			f(v)
		}
	}
	l.cold.All(func(h Handle) { f(l.cold.c.Likeness(h, RoleHead)) })
}

// EachLatch locks the latches one after the other and calls f with each.
func (c *Cache) EachLatch(f func(*Latch)) {
	for i := range c.latches {
		l := &c.latches[i]
		l.mu.Lock()
		f(l)
		l.Unlock()
	}
}
