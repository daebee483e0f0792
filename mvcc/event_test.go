package mvcc

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// eventsOf are the kept events of one kind: of watermarks, the host may cross one at
// any time.
func eventsOf(s *Store, kind EventKind) (list []Event) {
	for _, ev := range s.Events(0) {
		if ev.Kind == kind {
			list = append(list, ev)
		}
	}
	return list
}

// TestEvents_KeptNumberedAndLogged: who comes late finds the last ones, and sees by
// their numbers that others are gone; each is logged, with its number.
func TestEvents_KeptNumberedAndLogged(t *testing.T) {
	var text bytes.Buffer
	var heard []Event
	e := newEvents(func(ev Event) { heard = append(heard, ev) }, slog.New(slog.NewTextHandler(&text, nil)))
	const n = eventsKept + 44
	for i := range n {
		e.send(Event{Kind: EventRung, Rung: RungSpill, Next: RungBreak, Bytes: int64(i)})
	}
	all := e.since(0)
	if len(all) != eventsKept || all[0].Seq != n-eventsKept+1 || all[len(all)-1].Seq != n {
		t.Fatalf("%d events from %d to %d", len(all), all[0].Seq, all[len(all)-1].Seq)
	}
	for i, ev := range all {
		if ev.Seq != all[0].Seq+uint64(i) || ev.Bytes != int64(ev.Seq-1) {
			t.Fatalf("event %d: %+v", i, ev)
		}
	}
	if some := e.since(n - 3); len(some) != 3 || some[0].Seq != n-2 {
		t.Fatalf("the last three: %+v", some)
	}
	if none := e.since(n); len(none) != 0 || len(e.since(n+7)) != 0 {
		t.Fatalf("after the last: %+v", none)
	}
	e.close()
	if len(heard) != n || heard[n-1].Seq != n {
		t.Fatalf("heard %d events", len(heard))
	}
	if lines := strings.Count(text.String(), "rung of the ladder reached"); lines != n {
		t.Fatalf("%d lines of log", lines)
	}
	if !strings.Contains(text.String(), "seq=7 kind=rung lsn=0 rung=spill next=break bytes=6") {
		t.Fatalf("fields are missing in %.300s", text.String())
	}
}

// TestEvents_SurviveTheWire: an event is JSON and comes back.
func TestEvents_SurviveTheWire(t *testing.T) {
	cause := errors.New("out of it")
	s := mustOpen(t, smallOptions(simfs.New()))
	s.onBroken(&snapshot.BrokenError{ID: 3, Kind: "backup", Owner: "o", Reason: snapshot.ReasonUnreadable, Cause: cause})
	s.onBroken(&snapshot.BrokenError{ID: 4, Kind: "backup", Reason: snapshot.ReasonGuard, Cause: &GuardError{GuardHeld, 10, 20}})
	s.onBroken(&snapshot.BrokenError{ID: 5, Kind: "reader", Reason: snapshot.ReasonReleased})
	s.emit(Event{Kind: EventFailed, Err: cause})
	for _, kind := range []EventKind{EventBroken, EventGuard, EventReleased, EventFailed} {
		list := eventsOf(s, kind)
		if len(list) != 1 {
			t.Fatalf("%d events of kind %s", len(list), kind)
		}
		ev := list[0]
		data, err := json.Marshal(ev)
		ok(t, err)
		var back Event
		ok(t, json.Unmarshal(data, &back))
		if back.Seq != ev.Seq || back.Of != ev.Of || back.String() != ev.String() {
			t.Fatalf("sent %+v, got %+v", ev, back)
		}
		if back.Kind == EventGuard && *back.Guard != *ev.Guard || back.Kind == EventFailed && back.ErrText != "out of it" {
			t.Fatalf("sent %+v, got %+v", ev, back)
		}
	}
	mustClose(t, s)
}

// TestR19_ClockThatIsPutBackIsAnEvent: once when it is, once when it has caught up;
// the time of commits stands still meanwhile.
func TestR19_ClockThatIsPutBackIsAnEvent(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	clock := time.Now()
	s.now = func() time.Time { return clock }
	commit := func(step time.Duration) time.Time {
		clock = clock.Add(step)
		set(t, s, id, 1)
		return s.lastCommitTime()
	}
	commit(time.Second)
	for _, small := range []time.Duration{time.Second, -900 * time.Millisecond, time.Second, time.Hour} {
		commit(small)
	}
	if list := eventsOf(s, EventClock); len(list) != 0 {
		t.Fatalf("a step of no more than a second is an event: %+v", list)
	}
	before := commit(0)
	for range 3 {
		if at := commit(-time.Minute); !at.After(before) || at.Sub(before) > time.Millisecond {
			t.Fatalf("commit at %v after one at %v", at, before)
		}
	}
	list := eventsOf(s, EventClock)
	if len(list) != 1 || list[0].Gap < 59*time.Second || list[0].Gap > 61*time.Second {
		t.Fatalf("%+v", list)
	}
	commit(time.Minute)
	commit(2*time.Minute + time.Second)
	commit(time.Second)
	if list = eventsOf(s, EventClock); len(list) != 2 || list[1].Gap != 0 {
		t.Fatalf("%+v", list)
	}
	mustClose(t, s)
}
