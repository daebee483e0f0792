package livebackup

import (
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/mvcc"
)

// TestServedEvents: a client gets all events through the socket, however many; it asks
// again for what did not fit.
func TestServedEvents(t *testing.T) {
	fake := newFake(1, 5, 4<<10)
	const n = 256
	for i := range n {
		fake.events = append(fake.events, mvcc.Event{
			Seq: uint64(i + 1), Kind: mvcc.EventRung, Rung: mvcc.RungOverflow, Why: strings.Repeat("<>", 200), Bytes: int64(i),
		})
	}
	client := served(t, fake, ServeOptions{})
	var got []mvcc.Event
	asked := 0
	for {
		list, err := client.Events(t.Context(), uint64(len(got)))
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		got = append(got, list...)
		asked++
	}
	if len(got) != n || asked < 2 {
		t.Fatalf("%d events in %d replies", len(got), asked)
	}
	for i, ev := range got {
		if ev.Seq != uint64(i+1) || ev.Bytes != int64(i) || ev.Why != fake.events[i].Why {
			t.Fatalf("event %d is %+v", i, ev)
		}
	}
}
