package mvcc

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/wal"
)

// EventKind says what an event tells of.
type EventKind string

// The kinds of events.
const (
	EventWatermark   EventKind = "watermark"    // a level was crossed, up or down
	EventRung        EventKind = "rung"         // a rung of the ladder was reached
	EventFellForward EventKind = "fell-forward" // a backup fell forward (R12)
	EventBroken      EventKind = "broken"       // a snapshot was broken
	EventGuard       EventKind = "guard"        // a guard ended a backup
	EventReleased    EventKind = "released"     // an operator, or the end of its lease, ended a snapshot
	EventClock       EventKind = "clock"        // the clock was put back, or is itself again (R19)
	EventFailed      EventKind = "failed"       // the store is poisoned
	EventLogGone     EventKind = "log-gone"     // a LogTail was broken: its log took more than LogHoldMax
)

// Rung is a step of the ladder: what is done when originals outgrow what was
// granted.
type Rung string

// The rungs, in order; the last two are beside the ladder, and off unless asked for.
const (
	RungSpill       Rung = "spill"        // originals go to temporary storage
	RungOverflow    Rung = "overflow"     // originals take RAM beyond MaxRAM
	RungFallForward Rung = "fall-forward" // a backup gives up its LSN for a later one (R12)
	RungBreak       Rung = "break"        // a snapshot is ended
	RungPaceScan    Rung = "pace-scan"    // a backup's scan rests no more
	RungPaceWriters Rung = "pace-writers" // commits are held up, for a bounded time
)

// SnapshotName names a snapshot; the zero value names none.
type SnapshotName struct {
	ID           uint64 // 0: readers without a name
	Kind         string // "reader" or "backup"
	Owner, Label string
	LSN          block.LSN
}

// Event is something that an operator should know. It is also logged, and the
// last ones are kept: see [Store.Events]. Which fields are set depends on Kind.
type Event struct {
	Seq  uint64 // counts the events of this open store, from 1, without gaps
	Time time.Time
	Kind EventKind
	LSN  block.LSN    // newest commit when it happened
	Of   SnapshotName // whom it is about
	Why  string       // a few words

	Level    Level                 // of a watermark: as it is now
	ByTime   bool                  // of a watermark: it is Level.TimeState that was crossed, not Level.State
	Was      string                // of a watermark: that state before
	Rung     Rung                  // of a rung, and of a snapshot that fell forward or was broken because of one: which was reached
	Next     Rung                  // of a rung: what comes next; "": nothing
	Bytes    int64                 // of a rung: of originals held by whom it is about; of the end of a snapshot: what that freed
	Forward  block.LSN             // of a backup that fell forward: F
	Guard    *GuardError           // of a guard
	Gap      time.Duration         // of the clock: by how much the time of commits is ahead of it
	Snapshot *snapshot.BrokenError // of a snapshot that was broken, whatever for
	Holder   wal.HolderStatus      // of a LogTail that was broken
	Err      error                 `json:"-"` // of a failure
	ErrText  string                // what Err says, for who reads this from another process
}

// eventsKept is how many events a store keeps for those who ask later.
const eventsKept = 256

// events keeps the last events, and delivers all in order, on one goroutine of its
// own, so that nobody who raises one waits for who listens.
type events struct {
	listen func(Event)
	log    *slog.Logger

	mu     sync.Mutex
	seq    uint64
	last   []Event // by Seq modulo eventsKept
	queue  []Event
	moved  sync.Cond
	closed bool
	done   sync.WaitGroup
}

func newEvents(listen func(Event), log *slog.Logger) *events {
	e := &events{listen: listen, log: log}
	e.moved.L = &e.mu
	if listen != nil {
		e.done.Go(e.run)
	}
	return e
}

// emit numbers an event, keeps, logs and delivers it. It may be called with any
// lock held.
func (s *Store) emit(ev Event) {
	ev.LSN, ev.Time = s.newestLSN(), time.Now()
	if ev.Err != nil {
		ev.ErrText = ev.Err.Error()
	}
	s.events.send(ev)
	s.live.heard(ev)
}

func (e *events) send(ev Event) {
	e.mu.Lock()
	e.seq++
	ev.Seq = e.seq
	if at := int(ev.Seq-1) % eventsKept; at < len(e.last) {
		e.last[at] = ev
	} else {
		e.last = append(e.last, ev)
	}
	if e.listen != nil {
		e.queue = append(e.queue, ev)
		e.moved.Signal()
	}
	e.mu.Unlock()
	ev.logTo(e.log)
}

// since returns the kept events after seq, the oldest first.
func (e *events) since(seq uint64) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	oldest := e.seq - uint64(len(e.last))
	var out []Event
	for at := max(seq, oldest); at < e.seq; at++ {
		out = append(out, e.last[at%eventsKept])
	}
	return out
}

func (e *events) run() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for len(e.queue) == 0 {
			if e.closed {
				return
			}
			e.moved.Wait()
		}
		ev := e.queue[0]
		e.queue = e.queue[1:]
		e.mu.Unlock()
		e.listen(ev)
		e.mu.Lock()
	}
}

// close delivers what is queued and ends.
func (e *events) close() {
	e.mu.Lock()
	e.closed = true
	e.moved.Signal()
	e.mu.Unlock()
	e.done.Wait()
}

// Events returns the events after the one numbered seq, the oldest first, as far as
// they are kept: the last 256. Whoever follows them asks again with the number of
// the last one; a gap in the numbers says that some are gone. Safe for concurrent
// use, also after Close.
func (s *Store) Events(seq uint64) []Event { return s.events.since(seq) }

// sentences are what the kinds are called in a log.
var sentences = map[EventKind]string{
	EventWatermark:   "watermark crossed",
	EventRung:        "rung of the ladder reached",
	EventFellForward: "backup fell forward",
	EventBroken:      "snapshot broken",
	EventGuard:       "guard ended a backup",
	EventReleased:    "snapshot released",
	EventClock:       "clock and time of commits differ",
	EventFailed:      "store failed: no commit is taken until it is opened again",
	EventLogGone:     "log is no longer held",
}

// severity is how an event is logged: what ended well is for information.
func (ev *Event) severity() slog.Level {
	switch {
	case ev.Kind == EventFailed:
		return slog.LevelError
	case ev.Kind == EventReleased, ev.Kind == EventWatermark && StateRank(ev.state()) < StateRank(ev.Was), ev.Kind == EventClock && ev.Gap == 0:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// state is the one that a watermark's event is about.
func (ev *Event) state() string {
	if ev.ByTime {
		return ev.Level.TimeState
	}
	return ev.Level.State
}

// logTo logs the event with the fields that it has.
func (ev *Event) logTo(log *slog.Logger) {
	attrs := []any{"seq", ev.Seq, "kind", string(ev.Kind), "lsn", uint64(ev.LSN)}
	add := func(name string, value any, set bool) {
		if set {
			attrs = append(attrs, name, value)
		}
	}
	add("why", ev.Why, ev.Why != "")
	if of := ev.Of; of != (SnapshotName{}) {
		attrs = append(attrs, "snapshot", of.ID, "of", of.Kind, "owner", of.Owner, "label", of.Label, "at", uint64(of.LSN))
	}
	if ev.Kind == EventWatermark {
		l := &ev.Level
		attrs = append(attrs, "level", l.Name, "state", ev.state(), "was", ev.Was, "used", l.Used, "limit", l.Limit, "to_full", l.TimeToFull)
	}
	add("rung", string(ev.Rung), ev.Rung != "")
	add("next", string(ev.Next), ev.Next != "")
	add("bytes", ev.Bytes, ev.Bytes != 0)
	add("gap", ev.Gap, ev.Kind == EventClock)
	if g := ev.Guard; g != nil {
		attrs = append(attrs, "guard", string(g.Guard), "limit", g.Limit, "reading", g.Reading)
	}
	if h := ev.Holder; ev.Kind == EventLogGone {
		attrs = append(attrs, "holder", h.Name, "from", uint64(h.LSN), "held", h.Bytes)
	}
	add("cause", ev.ErrText, ev.ErrText != "")
	log.Log(context.Background(), ev.severity(), sentences[ev.Kind], attrs...)
}

// String is the event in one line, for people.
func (ev Event) String() string {
	s := string(ev.Kind)
	if ev.Rung != "" {
		s += " " + string(ev.Rung)
	}
	if ev.Kind == EventWatermark {
		s += fmt.Sprintf(" %s: %s, was %s", ev.Level.Name, ev.state(), ev.Was)
	}
	if of := ev.Of; of.Kind != "" {
		s += fmt.Sprintf(": %s %d of %q %q at LSN %v", of.Kind, of.ID, of.Owner, of.Label, of.LSN)
	}
	for _, more := range []string{ev.Why, ev.ErrText} {
		if more != "" {
			s += ": " + more
		}
	}
	return s
}
