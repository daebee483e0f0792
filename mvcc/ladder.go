package mvcc

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/snapshot"
)

// # The ladder
//
// What happens, in order, when originals outgrow what was granted:
//
//	cache -> spill -> overflow -> fall forward (backups only) -> break
//
// Package blockcache spills and takes overflow, and counts both; package snapshot
// chooses who falls forward or is broken. Here each step becomes an event, once for
// each snapshot that it is for: for every backup that holds originals, and of the
// readers for the one that holds most. The ticker looks at the counts, and so does who
// is about to take a later step: so the events come in the order of the rungs, and none
// is missed that was over within a tick.
//
// Two rungs are beside the ladder, and off unless they are asked for. Both are set by
// the ticker, and cost a commit or a scan the reading of one number:
//
//	pace-scan     a backup whose originals pass a share of what was granted scans
//	              without resting, until they are half of that
//	pace-writers  commits are held up the longer the fuller temporary storage and
//	              overflow are, at most Options.WriterDelayMax each: after they are
//	              durable and all locks are let go, before Commit returns

// ladder is what the events of a store have told of it.
type ladder struct {
	mu                  sync.Mutex
	spilled, overflowed int64 // of the cache, when it was last looked at
	reached             map[SnapshotName]Rung
	pacing              bool // the delay of writers was told

	delay atomic.Int64 // ns that a commit is held up now
}

// rungRank orders the rungs that snapshots share.
func rungRank(r Rung) int { return slices.Index([]Rung{RungSpill, RungOverflow}, r) }

// noteRungs tells of rungs that were reached since the last time. The caller holds no
// latch.
func (s *Store) noteRungs() {
	l := &s.ladder
	l.mu.Lock()
	defer l.mu.Unlock()
	st := s.cache.Counts()
	spilled, overflowed := st.Spilled != l.spilled, st.Overflowed != l.overflowed
	l.spilled, l.overflowed = st.Spilled, st.Overflowed
	if !spilled && !overflowed {
		return
	}
	holders := s.holders()
	for name := range l.reached {
		if _, lives := holders[name]; !lives {
			delete(l.reached, name)
		}
	}
	if spilled {
		s.reach(RungSpill, holders)
	}
	if overflowed {
		s.reach(RungOverflow, holders)
	}
}

// holders are the snapshots that a rung is for, and what they hold.
func (s *Store) holders() map[SnapshotName]int64 {
	list := map[SnapshotName]int64{}
	var most *snapshot.Status
	snapshots := s.snapshots.List(readersListed)
	for i := range snapshots {
		h := &snapshots[i]
		switch {
		case h.HeldBytes == 0:
		case h.Kind == "backup":
			list[nameOf(h)] = h.HeldBytes
		case most == nil || h.HeldBytes > most.HeldBytes:
			most = h
		}
	}
	if most != nil {
		list[nameOf(most)] = most.HeldBytes
	}
	return list
}

func nameOf(h *snapshot.Status) SnapshotName {
	return SnapshotName{h.ID, h.Kind, h.Owner, h.Label, h.LSN}
}

// reach tells that a rung was reached, of those of whom that was not told.
func (s *Store) reach(r Rung, holders map[SnapshotName]int64) {
	l := &s.ladder
	for of, held := range holders {
		if was, told := l.reached[of]; told && rungRank(was) >= rungRank(r) {
			continue
		}
		if l.reached == nil {
			l.reached = map[SnapshotName]Rung{}
		}
		l.reached[of] = r
		why := "MaxRAM has no room for its originals: they go to temporary storage"
		if r == RungOverflow {
			why = "temporary storage takes no more: originals take memory beyond MaxRAM"
		}
		s.emit(Event{Kind: EventRung, Of: of, Why: why, Rung: r, Next: s.next(r, of), Bytes: held})
	}
}

// next is the rung behind one, for a snapshot.
func (s *Store) next(r Rung, of SnapshotName) Rung {
	switch {
	case r == RungSpill && s.opts.OverflowMax > 0:
		return RungOverflow
	case s.opts.OverflowMax == OverflowUnbounded:
		return ""
	case of.Kind != "backup":
		return RungBreak
	}
	for _, b := range s.live.backups() {
		if b.live.ID() == of.ID && b.canForward && !b.live.FellForward() {
			return RungFallForward
		}
	}
	return RungBreak
}

// exhausted takes the last steps of the ladder: nothing that was granted is left. It
// reports whether that made room. The caller holds no latch.
func (s *Store) exhausted() bool {
	s.noteRungs()
	return s.snapshots.BreakVictim()
}

// pace sets the rungs beside the ladder by how full what was granted is.
func (s *Store) pace() {
	used, granted := s.cache.Granted()
	if s.opts.WriterDelayMax > 0 {
		s.paceWriters(used, granted)
	}
	if !s.live.any.Load() {
		return
	}
	for _, b := range s.live.backups() {
		if b.hurryAt == 0 {
			continue
		}
		held, at := b.live.Stats().HeldBytes, b.hurryAt*float64(granted)
		switch was := b.hurry.Load(); {
		case !was && float64(held) > at:
			b.hurry.Store(true)
			s.emit(Event{Kind: EventRung, Of: b.name(), Why: "its originals pass the share at which its scan rests no more", Rung: RungPaceScan, Bytes: held})
		case was && float64(held) < at/2:
			b.hurry.Store(false)
		}
	}
}

// paceWriters sets how long commits are held up: from nothing at WriterDelayShare to
// WriterDelayMax when all is full.
func (s *Store) paceWriters(used, granted int64) {
	l := &s.ladder
	from, full := s.opts.WriterDelayShare, 0.0
	if granted > 0 {
		full = min(1, float64(used)/float64(granted))
	}
	delay := time.Duration(0)
	if full > from {
		delay = time.Duration(float64(s.opts.WriterDelayMax) * (full - from) / (1 - from))
	}
	l.delay.Store(int64(delay))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case delay > 0 && !l.pacing:
		l.pacing = true
		s.emit(Event{Kind: EventRung, Why: "temporary storage and overflow fill up: commits are held up", Rung: RungPaceWriters, Bytes: used})
	case delay == 0 && full < from/2:
		l.pacing = false // or it would be told at every breath
	}
}

// holdUp lets a writer wait as long as the ladder says, holding nothing.
func (s *Store) holdUp(d time.Duration) {
	s.waits.paced.Add(1)
	s.waits.pacedFor.Add(int64(d))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.quit:
	}
}
