package snapshot

import (
	"slices"
	"time"
)

// Leases and releases: snapshots that end before their owners end them.
//
// A reader with a name is broken alone: it leaves its point, which goes on for the
// others. Readers without a name are only counted; they are broken with their point,
// and so with everyone who reads there.

// Release ends the snapshot with this number, and reports whether there is one. What only
// that wanted is gone when it returns. The caller holds no latch.
func (s *Set) Release(id uint64, why Reason) bool {
	x := breaking{set: s}
	s.mu.Lock()
	found := x.numbered(id, why)
	s.mu.Unlock()
	x.finish()
	return found
}

// numbered breaks the snapshot with this number, and reports whether there is one. mu is
// held.
func (x *breaking) numbered(id uint64, why Reason) bool {
	s := x.set
	for _, b := range s.backups {
		if b != nil && b.id == id && !b.ended() {
			x.backup(b, why, nil)
			return true
		}
	}
	for _, p := range s.points {
		if p.id == id && p.unnamed.Load() > 0 && !p.horizon {
			x.point(p, why, nil)
			return true
		}
		for r := p.readers.first; r != nil; r = r.next {
			if r.id == id {
				x.reader(r, why)
				return true
			}
		}
	}
	return false
}

// Expire breaks readers that have been open for longer than their lease, or, if they
// have none of their own, than most; 0 is no limit. Those without a name count from
// when the first commit was made that they do not see. Readers with a name and a
// longer lease let those without one at the same commit go on, too: what these read is
// kept anyway.
func (s *Set) Expire(now time.Time, most time.Duration) {
	if most == 0 && s.leases.Load() == 0 {
		return
	}
	x := breaking{set: s}
	s.mu.Lock()
	over := func(opened int64, lease time.Duration) bool {
		return lease > 0 && time.Duration(now.UnixNano()-opened) > lease
	}
	for _, p := range slices.Clone(s.points) { // breaking takes points out
		for r := p.readers.first; r != nil; {
			next := r.next
			lease := r.lease
			if lease == 0 {
				lease = most
			}
			if over(r.opened, lease) {
				x.reader(r, ReasonExpired)
			}
			r = next
		}
		if !p.ended && !p.horizon && p.readers.n == 0 && p.unnamed.Load() > 0 && over(p.passed, most) {
			x.point(p, ReasonExpired, nil)
		}
	}
	s.mu.Unlock()
	x.finishBehind()
}
