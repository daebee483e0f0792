package livebackup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// Recover says how far a restore rolls forward behind the backup that it starts
// from, by the archived log.
type Recover string

// How far to roll forward.
const (
	// RecoverDefault is RecoverUntil where a moment is named, RecoverNone where only
	// a backup is, RecoverAll where nothing is.
	RecoverDefault Recover = ""
	RecoverAll     Recover = "all"   // as far as the archive reaches without a hole
	RecoverNone    Recover = "none"  // exactly the backup
	RecoverUntil   Recover = "until" // to the moment named
)

// RestoreTarget says which state of a database is wanted. The zero value is the
// newest that can be reached.
type RestoreTarget struct {
	Backup  BackupID // start from this one; zero: what the router finds cheapest
	Recover Recover

	// At most one of these names the moment of RecoverUntil.
	At   time.Time // the last commit at or before it, in commit order (R19)
	LSN  block.LSN
	Mark string // a name that was given to a commit

	Exclusive bool // the commit before the moment, not the moment's own
}

// moments counts how the target's moment is named.
func (t RestoreTarget) moments() (n int) {
	for _, named := range []bool{!t.At.IsZero(), t.LSN != 0, t.Mark != ""} {
		if named {
			n++
		}
	}
	return n
}

// resolve fills in Recover and refuses what contradicts itself.
func (t RestoreTarget) resolve() (RestoreTarget, error) {
	n := t.moments()
	if t.Recover == RecoverDefault {
		switch {
		case n > 0:
			t.Recover = RecoverUntil
		case !t.Backup.IsZero():
			t.Recover = RecoverNone
		default:
			t.Recover = RecoverAll
		}
	}
	switch {
	case t.Recover != RecoverAll && t.Recover != RecoverNone && t.Recover != RecoverUntil:
		return t, optionError("recover %q is none of all, none, until", t.Recover)
	case n > 1:
		return t, optionError("a time, an LSN and a mark exclude each other")
	case n == 1 && t.Recover != RecoverUntil:
		return t, optionError("recover %s goes to no named moment", t.Recover)
	case n == 0 && t.Recover == RecoverUntil:
		return t, optionError("recover until: until when? Name a time, an LSN or a mark")
	case t.Exclusive && n == 0:
		return t, optionError("exclusive of what? Name a time, an LSN or a mark")
	}
	return t, nil
}

// StateRange is the states of a database as of each commit from From to To, both
// included. What leads from one state to another is a [LogRange].
type StateRange struct {
	From block.LSN `json:"from"`
	To   block.LSN `json:"to"`
}

func (r StateRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return fmt.Sprintf("%v to %v", r.From, r.To)
}

// ErrUnreachable matches every [UnreachableError].
var ErrUnreachable = errors.New("the state that was asked for cannot be reached")

// UnreachableError refuses a restore to a state that no sound backup with the
// archived log behind it leads to, and says which states can be reached.
type UnreachableError struct {
	Asked  string           // in words
	Window []ReachableRange // what can be reached
}

func (e *UnreachableError) Error() string {
	s := fmt.Sprintf("%v: %s", ErrUnreachable, e.Asked)
	if len(e.Window) == 0 {
		return s + "; nothing can: there is no sound backup"
	}
	s += "; what can be reached are LSN "
	for i, w := range e.Window {
		if i > 0 {
			s += "; "
		}
		s += w.String()
		if !w.FromTime.IsZero() && !w.ToTime.IsZero() {
			s += fmt.Sprintf(", of %s to %s", w.FromTime.UTC().Format(time.RFC3339), w.ToTime.UTC().Format(time.RFC3339))
		}
	}
	return s
}

// Is matches ErrUnreachable.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// start is a backup that a restore can start from.
type start struct {
	id    BackupID
	lsn   block.LSN
	bytes int64 // stored, of the backup and those that it needs
}

// logRun is an archived stretch of the log: the commits (from, to].
type logRun struct {
	from, to block.LSN
	bytes    int64
}

// router finds the cheapest way to a state. It sees one history only: what it is
// given lies on the path of one timeline, each LSN once.
type router struct {
	starts []start
	logs   []logRun  // by from, then to
	newest block.LSN // of all that is known to have been committed
}

func newRouter(starts []start, logs []logRun, newest block.LSN) *router {
	p := &router{slices.Clone(starts), slices.Clone(logs), newest}
	slices.SortFunc(p.starts, func(a, b start) int {
		return cmp.Or(cmp.Compare(a.lsn, b.lsn), cmp.Compare(a.id.Sequence, b.id.Sequence))
	})
	slices.SortFunc(p.logs, func(a, b logRun) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	for _, s := range p.starts {
		p.newest = max(p.newest, s.lsn)
	}
	for _, l := range p.logs {
		p.newest = max(p.newest, l.to)
	}
	return p
}

// reach is the last commit that the log leads to from lsn without a hole.
func (p *router) reach(lsn block.LSN) block.LSN {
	for _, l := range p.logs {
		if l.from > lsn {
			break
		}
		lsn = max(lsn, l.to)
	}
	return lsn
}

// window is the states that can be reached, as ranges that do not touch.
func (p *router) window() (list []StateRange) {
	for _, s := range p.starts {
		to := p.reach(s.lsn)
		if n := len(list); n > 0 && s.lsn <= list[n-1].To+1 {
			list[n-1].To = max(list[n-1].To, to)
			continue
		}
		list = append(list, StateRange{s.lsn, to})
	}
	return list
}

// way is a start and what is rolled forward behind it.
type way struct {
	start start
	to    block.LSN
	logs  []logRun // in order; the first may begin below, the last end above
	cost  time.Duration
}

// Rough speeds, for the choice between ways and for the estimate that people see:
// of reading, decoding and writing blocks, and of rolling forward.
const (
	dataBytesPerSecond = 100 << 20 // stored bytes of a backup
	logBytesPerSecond  = 20 << 20  // stored bytes of archived log
)

// way from s to lsn; ok is false if the log does not lead there.
func (p *router) way(s start, lsn block.LSN) (w way, ok bool) {
	w = way{start: s, to: lsn}
	at, bytes := s.lsn, int64(0)
	for _, l := range p.logs {
		if at >= lsn || l.from > at {
			break
		}
		if l.to > at {
			w.logs = append(w.logs, l)
			at, bytes = l.to, bytes+l.bytes
		}
	}
	w.cost = seconds(s.bytes, dataBytesPerSecond) + seconds(bytes, logBytesPerSecond)
	return w, s.lsn <= lsn && at >= lsn
}

func seconds(bytes, perSecond int64) time.Duration {
	return time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second))
}

// cheapest is the cheapest way to lsn.
func (p *router) cheapest(lsn block.LSN) (best way, ok bool) {
	for _, s := range slices.Backward(p.starts) { // of equal cost the newest: least is read from logs
		if w, leads := p.way(s, lsn); leads && (!ok || w.cost < best.cost) {
			best, ok = w, true
		}
	}
	return best, ok
}

// furthest is the cheapest way to the newest state that can be reached.
func (p *router) furthest() (way, bool) {
	to := block.LSN(0)
	for _, s := range p.starts {
		to = max(to, p.reach(s.lsn))
	}
	return p.cheapest(to)
}

// lost is what is known to have been committed behind lsn.
func (p *router) lost(lsn block.LSN) *LogRange {
	if lsn >= p.newest {
		return nil
	}
	return &LogRange{lsn, p.newest}
}
