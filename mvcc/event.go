package mvcc

import (
	"log/slog"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/wal"
)

// EventKind says what an event tells of.
type EventKind string

// The kinds of events.
const (
	EventWatermark EventKind = "watermark" // a level was crossed, up or down
	EventBroken    EventKind = "broken"    // a snapshot was broken
	EventFailed    EventKind = "failed"    // the store is poisoned
	EventLogGone   EventKind = "log-gone"  // a LogTail was broken: its log took more than LogHoldMax
)

// Event is something that an operator should know. It is also logged.
type Event struct {
	Kind     EventKind
	Level    Level                 // of a watermark: as it is now
	Was      string                // of a watermark: the state before
	Snapshot *snapshot.BrokenError // of a broken snapshot
	Holder   wal.HolderStatus      // of a LogTail that was broken
	LSN      block.LSN             // newest commit when it happened
	Err      error                 // of a failure
}

// events delivers events in order, on one goroutine of its own, so that nobody
// who raises one waits for who listens.
type events struct {
	listen func(Event)
	log    *slog.Logger

	mu     sync.Mutex
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

func (e *events) send(ev Event) {
	if e.listen == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = append(e.queue, ev)
	e.moved.Signal()
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
