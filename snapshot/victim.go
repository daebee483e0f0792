package snapshot

import (
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// youngAge is the age below which a snapshot is the last to be broken (R13).
const youngAge = time.Second

// victim is what breaking would end: one backup, or a run of points.
type victim struct {
	backup *Backup
	points []*point
	frees  int64
	young  bool
	opened int64

	forward bool // the backup would not be broken: it falls forward
}

// better reports whether breaking v is preferred to breaking w: those that only
// fall forward first, then those that are not young, then by bytes freed per
// snapshot ended, then the oldest.
func (v victim) better(w victim) bool {
	if v.forward != w.forward {
		return v.forward
	}
	if v.young != w.young {
		return !v.young
	}
	a, b := v.frees*int64(max(1, len(w.points))), w.frees*int64(max(1, len(v.points)))
	if a != b {
		return a > b
	}
	return v.opened < w.opened
}

// BreakVictim has a backup fall forward, if one can and that frees anything. Else it
// breaks the snapshot whose end frees most (R13), or, if no snapshot alone frees
// anything, the run of neighbours that does. While the originals of one that ended are
// on their way out it ends nobody, but lets some of them go, or waits until some are gone:
// a slice in any case, so that who needs room goes on soon, and asks again if that was not
// enough. It reports whether anything was freed. The caller holds no latch.
func (s *Set) BreakVictim() bool {
	s.mu.Lock()
	if len(s.leaving.list) > 0 {
		s.makeRoom()
		s.mu.Unlock()
		return true
	}
	v, ok := s.chooseVictim()
	if !ok {
		s.mu.Unlock()
		return false
	}
	x := breaking{set: s}
	switch {
	case v.forward:
		x.fallForward(v.backup, ReasonExhausted, nil)
	case v.backup != nil:
		x.backup(v.backup, ReasonExhausted, nil)
	}
	for _, p := range slices.Clone(v.points) { // breaking moves what is behind in s.points
		x.point(p, ReasonExhausted, nil)
	}
	s.mu.Unlock()
	x.finishBehind()
	return true
}

func (s *Set) chooseVictim() (best victim, ok bool) {
	consider := func(v victim) {
		if v.frees > 0 && (!ok || v.better(best)) {
			best, ok = v, true
		}
	}
	for _, b := range s.backups {
		if b != nil && !b.ended() {
			consider(victim{backup: b, frees: b.exclusive, young: s.age(b.opened) < youngAge, opened: b.opened, forward: b.canForward()})
		}
	}
	for _, p := range s.points {
		if !p.horizon {
			consider(s.run([]*point{p}, p.exclusive()))
		}
	}
	if !ok {
		s.eachRun(func(run []*point, frees int64) { consider(s.run(run, frees)) })
	}
	if !ok {
		return s.everyHolder()
	}
	return best, ok
}

func (s *Set) run(points []*point, frees int64) victim {
	v := victim{points: points, frees: frees, opened: s.clock.Load()}
	for _, p := range points {
		if p.unnamed.Load() > 0 {
			v.young = v.young || s.age(p.opened) < youngAge
			v.opened = min(v.opened, p.opened)
		}
		if r := p.readers.last; r != nil && s.age(r.opened) < youngAge {
			v.young = true
		}
		if r := p.readers.first; r != nil {
			v.opened = min(v.opened, r.opened)
		}
	}
	return v
}

// runsMax bounds the search for a run of points.
const runsMax = 1 << 10

// eachRun calls f for the runs of points that begin where some sublist's
// births end and stop at the point that holds it, with what ending them frees.
func (s *Set) eachRun(f func([]*point, int64)) {
	type span struct {
		from, to int
		held     int64
	}
	var spans []span
	for to, p := range s.points {
		for _, sub := range p.dead {
			if sub.held > 0 && len(spans) < runsMax {
				spans = append(spans, span{s.search(sub.born.find().point.lsn), to, sub.held})
			}
		}
	}
	for _, outer := range spans {
		frees := int64(0)
		for _, in := range spans {
			if in.from >= outer.from && in.to <= outer.to {
				frees += in.held
			}
		}
		f(s.points[outer.from:outer.to+1:outer.to+1], frees)
	}
}

// everyHolder is the last resort when every original is shared by readers and
// backups: the backup that holds most, whose end makes the rest exclusive.
func (s *Set) everyHolder() (best victim, ok bool) {
	for _, b := range s.backups {
		if b == nil || b.ended() || b.held == 0 {
			continue
		}
		if v := (victim{backup: b, frees: b.held, forward: b.canForward()}); !ok || v.better(best) {
			best, ok = v, true
		}
	}
	return best, ok
}

// BreakWanting breaks every snapshot that wants v, an original that cannot be
// read (R4: that is no failure of the store). A backup that can falls forward
// instead. The caller holds no latch.
func (s *Set) BreakWanting(v *blockcache.Version, until block.LSN, cause error) {
	x := breaking{set: s}
	s.mu.Lock()
	for _, b := range s.backups {
		switch {
		case b == nil || !b.sees(v) || !b.wants(v):
		case b.canForward():
			x.fallForward(b, ReasonUnreadable, cause)
		default:
			x.backup(b, ReasonUnreadable, cause)
		}
	}
	for at := s.search(v.LSN); s.points[at].lsn < until && !s.points[at].horizon; {
		x.point(s.points[at], ReasonUnreadable, cause)
	}
	s.mu.Unlock()
	x.finishBehind()
}

// BreakAll breaks every snapshot (R21), and returns when no original is left, nor on its
// way out.
func (s *Set) BreakAll(why Reason) {
	x := breaking{set: s}
	s.mu.Lock()
	for _, b := range s.backups {
		if b != nil {
			x.backup(b, why, nil)
		}
	}
	for !s.points[0].horizon {
		x.point(s.points[0], why, nil)
	}
	if p := s.horizon; p.readerCount() > 0 {
		p.broken.Store(&BrokenError{Kind: "reader", LSN: p.lsn, Reason: why})
	}
	s.mu.Unlock()
	x.finish()
	s.settle()
}
