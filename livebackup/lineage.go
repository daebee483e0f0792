package livebackup

import (
	"fmt"
	"math"

	"github.com/spillwaydb/spillway/block"
)

// lineage is the path that led to a timeline: itself with all its commits, then
// the one that it forked from, up to the fork, and so on. A commit is of this
// history if its timeline is on the path and it lies at or below every fork
// between there and here (R18).
type lineage []block.Fork

// lineageOf is the lineage of timeline t with the forks that led to it, newest first.
func lineageOf(t block.TimelineID, history []block.Fork) lineage {
	return append(lineage{{Timeline: t, LSN: math.MaxUint64}}, history...)
}

// reach is the last commit of timeline t that is of this history; ok is false if
// none is.
func (l lineage) reach(t block.TimelineID) (lsn block.LSN, ok bool) {
	lsn = math.MaxUint64
	for _, f := range l {
		lsn = min(lsn, f.LSN) // also where a fork is said to be above an older one
		if f.Timeline == t {
			return lsn, true
		}
	}
	return 0, false
}

// holds reports whether commit lsn of timeline t is of this history: whether a
// backup at it can be a base, and log up to it rolled forward.
func (l lineage) holds(t block.TimelineID, lsn block.LSN) bool {
	reach, ok := l.reach(t)
	return ok && lsn <= reach
}

// usable reports whether m may be the base of an incremental of this history,
// as far as timelines say.
func (l lineage) usable(m *Manifest) bool { return l.holds(m.Timeline, m.EndLSN) }

// disabled says why a backup is none of this history, or "". It is not asked of a
// backup whose manifest could not be read.
func (l lineage) disabled(m *Manifest) string {
	reach, ok := l.reach(m.Timeline)
	switch {
	case !ok:
		return fmt.Sprintf("timeline %v did not lead to the present one", m.Timeline)
	case m.EndLSN > reach:
		return fmt.Sprintf("timeline %v was left at LSN %v", m.Timeline, reach)
	}
	return ""
}
