package snapshot

import (
	"math/bits"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// An original is the index's entry for a version that was replaced and is still
// wanted: by reader snapshots (it is in one sublist), by backups (their bits in
// Wants), or both. One version has one entry, whoever shares it (L2). It is named
// by its handle; while the version has a frame there is a Version as well, whose
// number in Set.attached stands where the slot would be.
//
// Guarded by Set.mu, except for what the block's latch guards: Type, Slot and
// EntryInPlace. Images counts its frame and its slot.
type original = blockcache.Entry

// The owner's flags of an original.
const (
	isAttached = blockcache.EntryOwn << iota // it has a Version
	isGone                                   // out of the index
	isInList                                 // a reader wants it
)

// originalBytes is what an original takes beside its images: its entry, and what
// the trees have for it.
const originalBytes = blockcache.EntryBytes + treeItemBytes

// treeItemBytes is what an ordered index has on the Go heap for each item, twice.
const treeItemBytes = 2 * 12

// probe is the handle of a search key.
const probe = blockcache.Handle(0)

// at is the entry of a handle.
func (s *Set) at(h blockcache.Handle) *original {
	if h == probe {
		return &s.key
	}
	return s.cache.Entry(h)
}

// search key: the tree's order asks for it by the handle probe.
func (s *Set) probe(id block.ID, lsn block.LSN) blockcache.Handle {
	s.key.ID, s.key.LSN = id, lsn
	return probe
}

func (s *Set) less(a, b blockcache.Handle) bool {
	x, y := s.at(a), s.at(b)
	if x.ID != y.ID {
		return x.ID < y.ID
	}
	return x.LSN < y.LSN
}

// bytes is what an original takes in all.
func (s *Set) bytes(o *original) int64 {
	return originalBytes + int64(o.Images)*s.cache.BlockBytes()
}

// Held keeps account of what the original takes. Called under the block's
// latch, whenever its frame or slot comes or goes.
func (s *Set) Held(h blockcache.Handle, delta int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.at(h)
	had := o.Images
	s.change(o, func() { o.Images = uint8(int(o.Images) + delta) })
	bytes := int64(delta) * s.cache.BlockBytes()
	for i, b := range s.backups {
		if b != nil && o.Wants&(1<<i) != 0 {
			b.held += bytes
			b.heldPeak = max(b.heldPeak, b.held)
			b.tally.store(had, o.Images)
		}
	}
}

// change applies f to the entry and keeps the counts of bytes that exactly one
// holder keeps: a backup, or the readers of one sublist.
func (s *Set) change(o *original, f func()) {
	s.addExclusive(o, -s.bytes(o))
	f()
	s.addExclusive(o, s.bytes(o))
}

func (s *Set) addExclusive(o *original, n int64) {
	switch {
	case o.Flags&isGone != 0:
	case o.Flags&isInList != 0 && o.Wants == 0:
		if l := s.listOf(o); l != nil {
			l.held += n
		}
	case o.Flags&isInList == 0 && bits.OnesCount8(o.Wants) == 1:
		if b := s.backups[bits.TrailingZeros8(o.Wants)]; b != nil {
			b.exclusive += n
		}
	}
}

// listOf is the sublist that an original is in; nil if that is being released.
func (s *Set) listOf(o *original) *sublist {
	at := s.search(o.Until) - 1
	if at < 0 || s.points[at].lsn < o.LSN {
		return nil
	}
	p := s.points[at]
	if at, found := p.find(s.points[s.search(o.LSN)].born); found {
		return p.dead[at]
	}
	return nil
}

// attach gives an original its Version.
func (s *Set) attach(h blockcache.Handle, v *blockcache.Version) {
	n := len(s.attached)
	if last := len(s.detached) - 1; last >= 0 {
		n, s.detached = int(s.detached[last]), s.detached[:last]
		s.attached[n] = v
	} else {
		s.attached = append(s.attached, v)
	}
	o := s.at(h)
	o.Slot, o.Flags = blockcache.Slot(n), o.Flags|isAttached
	v.Entry = h
}

// detach takes it away again.
func (s *Set) detach(o *original) *blockcache.Version {
	n := uint32(o.Slot)
	v := s.attached[n]
	s.attached[n] = nil
	s.detached = append(s.detached, n)
	o.Slot, o.Flags = 0, o.Flags&^isAttached
	v.Entry = 0
	if len(s.detached) == len(s.attached) { // smaller next time
		s.attached, s.detached = s.attached[:0], s.detached[:0]
		if cap(s.attached) > 1<<10 {
			s.attached, s.detached = nil, nil
		}
	}
	return v
}

// version is the Version of an original: made anew if it was frozen, for as long
// as the latch is held. Under the latch.
func (s *Set) version(h blockcache.Handle) *blockcache.Version {
	o := s.at(h)
	if o.Flags&isAttached != 0 {
		return s.attached[o.Slot]
	}
	v := s.cache.Likeness(h, blockcache.RoleOriginal)
	s.attach(h, v)
	s.cache.Settle(v)
	return v
}

// Freeze is for an original that has no frame: from now on its entry says where
// it is. Under the latch.
func (s *Set) Freeze(v *blockcache.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.at(v.Entry)
	s.detach(o)
	o.Describe(v)
}

// isInPlace tells whether the data file holds the original. Under the latch.
func (s *Set) isInPlace(o *original) bool {
	if o.Flags&isAttached != 0 {
		return s.attached[o.Slot].InPlace
	}
	return o.Flags&blockcache.EntryInPlace != 0
}

// sublist holds the originals that one point was the newest to want when they
// were replaced, and that were born in one interval between two points. This is
// the deadlist of ZFS: ending a point frees whole sublists, or passes them on,
// without looking at what is in them. Which sublist an original is in follows
// from its LSNs and the points that there are.
type sublist struct {
	born        *interval
	first, last blockcache.Handle
	held        int64 // bytes of its originals that no backup wants
}

// sublistBytes is what a sublist takes on the Go heap, with its place in the
// point's list, twice.
const sublistBytes = 2 * (32 + 16)

func (s *Set) addTo(l *sublist, h blockcache.Handle) {
	if l.last == 0 {
		l.first = h
	} else {
		s.at(l.last).Next = h
	}
	l.last = h
}

// merge appends all of m.
func (s *Set) merge(l, m *sublist) {
	if m.first != 0 {
		if l.last == 0 {
			l.first = m.first
		} else {
			s.at(l.last).Next = m.first
		}
		l.last = m.last
	}
	l.held += m.held
}

// interval stands for the births in (point before, point]. When a point ends
// its interval becomes part of the next point's.
type interval struct {
	point *point // owner, while it is a root
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
