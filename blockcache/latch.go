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
	table  []*Version // buckets, chained by Version.hash; a power of two
	heads  int
	cache  *Cache
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

func (l *Latch) init(c *Cache) {
	l.cache = c
	l.loaded.L = &l.mu
	l.table = make([]*Version, 16)
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

func (l *Latch) bucket(id block.ID) **Version {
	return &l.table[hash(id)>>16&uint64(len(l.table)-1)]
}

// Head is the table's entry for a block: its newest version (which may be
// loading, or say that the block is free), or nil when the newest version is
// in place in the data file and nowhere else.
func (l *Latch) Head(id block.ID) *Version {
	for v := *l.bucket(id); v != nil; v = v.hash {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// Insert makes v the head of a block that has no entry.
func (l *Latch) Insert(v *Version) {
	if l.heads >= 2*len(l.table) {
		l.grow()
	}
	b := l.bucket(v.ID)
	v.hash, *b = *b, v
	v.Role = RoleHead
	l.heads++
}

func (l *Latch) grow() {
	old := l.table
	l.table = make([]*Version, 2*len(old))
	for _, v := range old {
		for v != nil {
			next := v.hash
			b := l.bucket(v.ID)
			v.hash, *b = *b, v
			v = next
		}
	}
}

// Remove takes the head v out of the table.
func (l *Latch) Remove(v *Version) {
	for p := l.bucket(v.ID); *p != nil; p = &(*p).hash {
		if *p == v {
			*p, v.hash = v.hash, nil
			l.heads--
			return
		}
	}
}

// Replace puts v in the place of the head old, which becomes pending behind it.
func (l *Latch) Replace(old, v *Version) {
	for p := l.bucket(v.ID); *p != nil; p = &(*p).hash {
		if *p == old {
			v.hash, *p, old.hash = old.hash, v, nil
			break
		}
	}
	v.Role = RoleHead
	v.Older = old
	old.Role = RolePending
}

// Heads calls f for every head under this latch, which the caller holds.
func (l *Latch) Heads(f func(*Version)) {
	for _, v := range l.table {
		for ; v != nil; v = v.hash {
			f(v)
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
