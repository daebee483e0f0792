package blockcache

import (
	"sync"

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
	table  []entry // open addressing, linear probing; a power of two, at most half full
	heads  int
}

// entry is one place of a latch's table. The number stands beside the pointer,
// so that a look-up touches one cache line until it has found its version.
type entry struct {
	id block.ID
	v  *Version // nil: empty
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

func (l *Latch) init() {
	l.loaded.L = &l.mu
	l.table = make([]entry, 16)
}

// Lock takes a latch again that [Cache.Latch] returned.
func (l *Latch) Lock() { l.mu.Lock() }

// Unlock releases the latch.
func (l *Latch) Unlock() { l.mu.Unlock() }

// Wait releases the latch until someone calls [Latch.Wake], then takes it
// again. What was found before must be looked up anew.
func (l *Latch) Wait() { l.loaded.Wait() }

// Wake lets everyone go on who waits on this latch.
func (l *Latch) Wake() { l.loaded.Broadcast() }

// home is where the search for a block begins.
func (l *Latch) home(id block.ID) int { return int(hash(id) >> 16 & uint64(len(l.table)-1)) }

// find is the place of a block in the table, or the empty place where it would
// go.
func (l *Latch) find(id block.ID) int {
	at := l.home(id)
	for l.table[at].v != nil && l.table[at].id != id {
		at = (at + 1) & (len(l.table) - 1)
	}
	return at
}

// Head is the table's entry for a block: its newest version (which may be
// loading, or say that the block is free), or nil when the newest version is
// in place in the data file and nowhere else.
func (l *Latch) Head(id block.ID) *Version { return l.table[l.find(id)].v }

// Insert makes v the head of a block that has no entry.
func (l *Latch) Insert(v *Version) {
	if 2*(l.heads+1) > len(l.table) {
		l.grow()
	}
	l.table[l.find(v.ID)] = entry{v.ID, v}
	v.Role = RoleHead
	l.heads++
}

func (l *Latch) grow() {
	old := l.table
	l.table = make([]entry, 2*len(old))
	for _, e := range old {
		if e.v != nil {
			l.table[l.find(e.id)] = e
		}
	}
}

// Remove takes the head v out of the table. Entries that were pushed past its
// place move back, so that no search meets a gap before its end.
func (l *Latch) Remove(v *Version) {
	gap := l.find(v.ID)
	if l.table[gap].v != v {
		return
	}
	l.heads--
	mask := len(l.table) - 1
	for at := (gap + 1) & mask; l.table[at].v != nil; at = (at + 1) & mask {
		if home := l.home(l.table[at].id); (at-home)&mask >= (at-gap)&mask {
			l.table[gap], gap = l.table[at], at
		}
	}
	l.table[gap] = entry{}
}

// Replace puts v in the place of the head old, which becomes pending behind it.
func (l *Latch) Replace(old, v *Version) {
	l.table[l.find(old.ID)] = entry{v.ID, v}
	v.Role = RoleHead
	v.Older = old
	old.Role = RolePending
}

// Heads calls f for every head under this latch, which the caller holds. f does
// not change the table.
func (l *Latch) Heads(f func(*Version)) {
	for _, e := range l.table {
		if e.v != nil {
			f(e.v)
		}
	}
}

// EachLatch locks the latches one after the other and calls f with each.
func (c *Cache) EachLatch(f func(*Latch)) {
	for i := range c.latches {
		l := &c.latches[i]
		l.mu.Lock()
		f(l)
		l.mu.Unlock()
	}
}
