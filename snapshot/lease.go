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

// breakReader ends one reader that has a name. mu is held; what is returned is the
// point's, to be released without it.
func (s *Set) breakReader(r *Reader, why Reason) (*BrokenError, []*sublist) {
	p := r.point
	e := &BrokenError{ID: r.id, Kind: "reader", Owner: r.Owner, Label: r.Label, LSN: p.lsn, Reason: why}
	if p.readerCount() == 1 {
		e.HeldBytes = p.exclusive()
	}
	r.broken.Store(e)
	s.broken++
	p.readers.remove(r)
	if p.horizon || p.ended || !p.seal() {
		return e, nil
	}
	return e, s.endPoint(p)
}

// Release ends the snapshot with this number, and reports whether there is one. The
// caller holds no latch.
func (s *Set) Release(id uint64, why Reason) bool {
	s.mu.Lock()
	for _, b := range s.backups {
		if b != nil && b.id == id && !b.closed && b.broken.Load() == nil {
			s.mu.Unlock()
			b.Break(why, nil)
			return true
		}
	}
	for _, p := range s.points {
		if p.id == id && p.unnamed.Load() > 0 && !p.horizon {
			e, free := s.breakPoint(p, why, nil)
			s.mu.Unlock()
			s.finishBreak(nil, free, []*BrokenError{e})
			return true
		}
		for r := p.readers.first; r != nil; r = r.next {
			if r.id == id {
				e, free := s.breakReader(r, why)
				s.mu.Unlock()
				s.finishBreak(nil, free, []*BrokenError{e})
				return true
			}
		}
	}
	s.mu.Unlock()
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
	var errs []*BrokenError
	var free []*sublist
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
				e, f := s.breakReader(r, ReasonExpired)
				errs, free = append(errs, e), append(free, f...)
			}
			r = next
		}
		if !p.ended && !p.horizon && p.readers.n == 0 && p.unnamed.Load() > 0 && over(p.passed, most) {
			e, f := s.breakPoint(p, ReasonExpired, nil)
			errs, free = append(errs, e), append(free, f...)
		}
	}
	s.mu.Unlock()
	s.finishBreak(nil, free, errs)
}
