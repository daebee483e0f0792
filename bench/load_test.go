package bench

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowDB is a DB whose commits take a known time, one after the other.
type slowDB struct {
	DB
	takes time.Duration
	fails error
	one   chan struct{} // a mutex would not let the bubble's clock go on

	mu   sync.Mutex
	puts int
}

func newSlowDB(takes time.Duration) *slowDB {
	return &slowDB{takes: takes, one: make(chan struct{}, 1)}
}

func (d *slowDB) Update(fn func(Writer) error) error {
	if d.fails != nil {
		return d.fails
	}
	d.one <- struct{}{}
	defer func() { <-d.one }()
	time.Sleep(d.takes)
	return fn(d)
}

func (d *slowDB) Put(key, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.puts++
	return nil
}

func runFor(t *testing.T, l Load, db DB, d time.Duration) *Trace {
	t.Helper()
	r, err := l.Start(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	trace, err := r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func TestLoadAtFullSpeedCountsEveryCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newSlowDB(time.Millisecond)
		trace := runFor(t, Load{Records: 100, Writers: 4, UpdatesPerTx: 3, ValueBytes: 10}, db, time.Second+time.Millisecond/2)
		if got := trace.PerSecond(Span{0, time.Second}); got < 999 || got > 1000 {
			t.Errorf("%v commits per second, want 1000", got)
		}
		if got, want := db.puts, 3*len(trace.Commits); got != want {
			t.Errorf("%d puts, want %d", got, want)
		}
		if got := trace.Latencies(Span{100 * time.Millisecond, time.Second}).Max(); got != 4*time.Millisecond {
			t.Errorf("longest commit took %v, want 4ms: four writers share one database", got)
		}
	})
}

func TestLoadKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newSlowDB(time.Millisecond)
		load := Load{Records: 100, Writers: 2, UpdatesPerTx: 10, UpdatesPerSecond: 2000}
		trace := runFor(t, load, db, 10*time.Second)
		if got := trace.PerSecond(Span{0, 10 * time.Second}); got < 199 || got > 201 {
			t.Errorf("%v transactions per second, want 200", got)
		}
	})
}

func TestLoadTellsWhatFailed(t *testing.T) {
	cause := errors.New("no")
	r, err := Load{Records: 1}.Start(t.Context(), &slowDB{fails: cause})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stop(); err != nil && !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func TestLoadRefusesTheImpossible(t *testing.T) {
	for _, l := range []Load{{}, {Records: 1, HotRecords: 2}, {Records: 1, Keys: "odd"}, {Records: 1, UpdatesPerSecond: -1}} {
		if _, err := l.Start(context.Background(), &slowDB{}); err == nil {
			t.Errorf("%+v was started", l)
		}
	}
}

func TestKeysAreDifferentAndInTheOrderSaid(t *testing.T) {
	const n = 5000
	var last []byte
	for _, i := range recordsInKeyOrder(n) {
		key := AppendKey(nil, uint64(i))
		if len(key) != KeyBytes || slices.Compare(last, key) >= 0 {
			t.Fatalf("key %x of record %d is not behind %x", key, i, last)
		}
		last = key
	}
}

func TestSpansOfLatencies(t *testing.T) {
	trace := &Trace{Commits: []Commit{{0, 10}, {5, 25}, {20, 30}, {40, 100}}}
	for _, c := range []struct {
		spans []Span
		want  Latencies
	}{
		{[]Span{{0, 10}}, Latencies{10, 20}},
		{[]Span{{12, 18}}, Latencies{20}},
		{[]Span{{0, 1}, {50, 60}}, Latencies{10, 60}},
		{nil, nil},
	} {
		if got := trace.Latencies(c.spans...); !slices.Equal(got, c.want) {
			t.Errorf("within %v: %v, want %v", c.spans, got, c.want)
		}
	}
	l := Latencies{1, 2, 3, 4}
	if l.Quantile(0.5) != 3 || l.Max() != 4 || Latencies(nil).Max() != 0 {
		t.Errorf("quantiles of %v: %v, %v", l, l.Quantile(0.5), l.Max())
	}
}

func TestPhasesSeeTheLogComeAndGo(t *testing.T) {
	at := func(ms time.Duration, live, data int64) gaugesAt {
		return gaugesAt{ms * time.Millisecond, Gauges{LogLiveBytes: live, DataBytes: data}}
	}
	p := phases{
		before: Span{0, time.Second}, backup: Span{time.Second, 2 * time.Second}, after: Span{3 * time.Second, 4 * time.Second},
		gauges: []gaugesAt{at(100, 16, 7), at(120, 32, 7), at(1500, 48, 7), at(1520, 16, 9), at(3500, 16, 8)},
	}
	switches, releases := p.logEvents()
	if len(switches) != 2 || len(releases) != 1 {
		t.Errorf("%d switches and %d releases, want 2 and 1", len(switches), len(releases))
	}
	if got := len(within(switches, p.quiet()...)); got != 1 {
		t.Errorf("%d switches in the quiet time, want 1", got)
	}
	m := Metrics{}
	p.growth(m)
	if m["data_growth_bytes"] != 2 {
		t.Errorf("data file grew by %v, want 2", m["data_growth_bytes"])
	}
}

var _ io.Closer = closerFunc(nil)
