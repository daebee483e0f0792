package snapshot

import (
	"math/bits"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// Original is the index's entry for a version that was replaced and is still
// wanted: by reader snapshots (it is in one sublist), by backups (their bits in
// wants), or both. One version has one entry, whoever shares it (L2).
//
// Guarded by Set.mu, except for what the block's latch guards in its Version.
type Original struct {
	v     *blockcache.Version
	set   *Set
	bytes int64     // in RAM and in temporary storage
	next  *Original // in sub
	sub   *sublist  // nil: no reader wants it (any more)
	wants uint8     // a bit for each backup that will still read it
	gone  bool      // out of the index
}

func lessOriginal(a, b *Original) bool {
	if a.v.ID != b.v.ID {
		return a.v.ID < b.v.ID
	}
	return a.v.LSN < b.v.LSN
}

// probe is a search key.
func probe(id block.ID, lsn block.LSN) *Original {
	return &Original{v: &blockcache.Version{ID: id, LSN: lsn}}
}

// Held keeps account of what the original takes. Called under the block's
// latch, whenever its frame or slot comes or goes.
func (o *Original) Held(delta int64) {
	o.set.mu.Lock()
	defer o.set.mu.Unlock()
	o.change(func() { o.bytes += delta })
	for i := range o.set.backups {
		if b := o.set.backups[i]; b != nil && o.wants&(1<<i) != 0 {
			b.held += delta
			b.heldPeak = max(b.heldPeak, b.held)
		}
	}
}

// change applies f to the entry and keeps the counts of bytes that exactly one
// holder keeps: a backup, or the readers of one sublist.
func (o *Original) change(f func()) {
	o.addExclusive(-o.bytes)
	f()
	o.addExclusive(o.bytes)
}

func (o *Original) addExclusive(n int64) {
	switch {
	case o.gone:
	case o.sub != nil && o.wants == 0:
		o.sub.find().held += n
	case o.sub == nil && bits.OnesCount8(o.wants) == 1:
		if b := o.set.backups[bits.TrailingZeros8(o.wants)]; b != nil {
			b.exclusive += n
		}
	}
}

// sublist holds the originals that one point was the newest to want when they
// were replaced, and that were born in one interval between two points. This is
// the deadlist of ZFS: ending a point frees whole sublists, or passes them on,
// without looking at what is in them.
type sublist struct {
	born        *interval
	first, last *Original
	held        int64    // bytes of its originals that no backup wants
	into        *sublist // where it was merged
}

func (l *sublist) find() *sublist {
	for l.into != nil {
		if l.into.into != nil {
			l.into = l.into.into
		}
		l = l.into
	}
	return l
}

func (l *sublist) add(o *Original) {
	if l.last == nil {
		l.first = o
	} else {
		l.last.next = o
	}
	l.last = o
}

// merge appends all of m.
func (l *sublist) merge(m *sublist) {
	if m.first != nil {
		if l.last == nil {
			l.first = m.first
		} else {
			l.last.next = m.first
		}
		l.last = m.last
	}
	l.held += m.held
	m.first, m.last, m.held, m.into = nil, nil, 0, l
}

// interval stands for the births in (point before, point]. When a point ends
// its interval becomes part of the next point's.
type interval struct {
	point *Point // owner, while it is a root
	into  *interval
}

func (i *interval) find() *interval {
	for i.into != nil {
		if i.into.into != nil {
			i.into = i.into.into
		}
		i = i.into
	}
	return i
}
