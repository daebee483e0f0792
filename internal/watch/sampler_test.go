package watch

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// story is a database whose status a test tells, look by look.
type story struct {
	status   mvcc.Status
	err      error
	events   []mvcc.Event
	happened int // events of it, in all
}

func (s *story) Events(_ context.Context, after uint64) ([]mvcc.Event, error) {
	if after >= uint64(len(s.events)) {
		return nil, s.err
	}
	return s.events[after:min(after+3, uint64(len(s.events)))], s.err // few at a time
}

// happens adds an event.
func (s *story) happens(e mvcc.Event) {
	s.happened++
	e.Seq, e.Time = uint64(len(s.events))+1, time.Unix(1_600_000_000, 0).Add(time.Duration(s.happened))
	s.events = append(s.events, e)
}

func (s *story) Status(context.Context) (mvcc.Status, error) { return s.status, s.err }

// telling is a sampler of a story, with a clock.
func telling() (*story, *Sampler, func(d time.Duration) View) {
	src := &story{status: mvcc.Status{BlockSize: 4096, Levels: []mvcc.Level{{Name: "ram", Used: 1, Limit: 100, State: "normal"}}}}
	s := NewSampler(src, nil)
	at := time.Unix(1_700_000_000, 0)
	s.now = func() time.Time { return at }
	return src, s, func(d time.Duration) View {
		at = at.Add(d)
		return s.Sample(context.Background())
	}
}

// bucketOf is the bucket whose bound is d.
func bucketOf(t *testing.T, d time.Duration) int {
	for i := range 46 {
		if mvcc.LatencyBound(i) == d {
			return i
		}
	}
	t.Fatalf("no bucket ends at %v", d)
	return 0
}

func latencies(t *testing.T, counts map[time.Duration]uint64) mvcc.CommitLatency {
	c := mvcc.CommitLatency{Counts: make([]uint64, 46), Max: time.Minute}
	for d, n := range counts {
		c.Counts[bucketOf(t, d)] = n
	}
	return c
}

// Rates and latencies are of what came between looks.
func TestSampler_Rates(t *testing.T) {
	src, _, look := telling()
	src.status.NewestLSN, src.status.LogWaits = 1000, 50
	src.status.Commits = latencies(t, map[time.Duration]uint64{8192 * time.Microsecond: 500})
	if v := look(0); v.Writer != (Writer{}) {
		t.Fatalf("after the first look: %+v", v.Writer)
	}
	src.status.NewestLSN, src.status.LogWaits = 1500, 60
	src.status.Commits = latencies(t, map[time.Duration]uint64{8192 * time.Microsecond: 500, 512 * time.Microsecond: 90, 4096 * time.Microsecond: 10})
	v := look(2 * time.Second)
	want := Writer{Span: 2 * time.Second, CommitsPerSecond: 250, LatencyP50: 512 * time.Microsecond, LatencyP99: 4096 * time.Microsecond,
		LatencyMax: 4096 * time.Microsecond, LogWaits: 5}
	if v.Writer != want {
		t.Fatalf("%+v, want %+v", v.Writer, want)
	}
	for range 30 {
		v = look(time.Second)
	}
	if v.Writer.CommitsPerSecond != 0 || v.Writer.LatencyP99 != 0 || v.Writer.Span < span || v.Writer.Span > span+2*time.Second {
		t.Fatalf("of a database at rest: %+v", v.Writer)
	}
	src.status.NewestLSN = 3 // restored
	if v = look(time.Second); v.Writer != (Writer{}) {
		t.Fatalf("of another store: %+v", v.Writer)
	}
}

// A database that does not answer is shown as it was, with the reason, and again when
// it does.
func TestSampler_NotAnswering(t *testing.T) {
	src, _, look := telling()
	src.status.Dir = "/db"
	first := look(0)
	src.err = errors.New("gone")
	v := look(time.Second)
	if v.Error != "gone" || v.Dir != "/db" || !v.Since.Equal(first.Time) || v.Time.Equal(first.Time) {
		t.Fatalf("%+v", v)
	}
	src.err = nil
	if v = look(time.Second); v.Error != "" || len(v.Events) == 0 || !strings.Contains(v.Events[len(v.Events)-1].Text, "answers again") {
		t.Fatalf("%+v", v)
	}
}

// What is left of a backup is told from its rate, or, of an incremental, from its age.
func TestSampler_TimeLeft(t *testing.T) {
	src, s, look := telling()
	src.status.Backups = []mvcc.BackupStatus{
		{ID: 1, Opened: s.now(), Blocks: 25, Bytes: 25 * 4096, BlocksTotal: 100, Share: 0.25, BytesPerSecond: 5 * 4096},
		{ID: 2, Opened: s.now(), Base: block.LSN(7), Share: 0.25},
		{ID: 3, Opened: s.now(), BlocksTotal: 100},
		{ID: 4, Opened: s.now(), BlocksTotal: 100, Share: 1, BytesPerSecond: 9},
	}
	v := look(10 * time.Second)
	for i, want := range []time.Duration{15 * time.Second, 30 * time.Second, 0, 0} {
		if got := v.Backups[i].TimeLeft; got != want {
			t.Errorf("backup %d: %v left, want %v", i+1, got, want)
		}
	}
	if !v.Backups[1].Incremental || v.Backups[0].Incremental || v.Backups[0].TotalBytes != 100*4096 {
		t.Errorf("%+v", v.Backups)
	}
	src.status.Backups = src.status.Backups[1:]
	v = look(time.Second)
	if e := v.Events[len(v.Events)-1]; !strings.Contains(e.Text, "backup 1 let go") {
		t.Errorf("%+v", v.Events)
	}
}

// lookedAhead is a story that can be looked ahead for.
type lookedAhead struct {
	livebackup.Source
	*story
	asked int
}

func (s *lookedAhead) Status(ctx context.Context) (mvcc.Status, error) { return s.story.Status(ctx) }
func (s *lookedAhead) Events(ctx context.Context, after uint64) ([]mvcc.Event, error) {
	return s.story.Events(ctx, after)
}

func (s *lookedAhead) Changes(context.Context) (mvcc.Changes, error) {
	s.asked++
	return mvcc.Changes{At: time.Unix(1_700_000_000, 0)}, nil
}

// Each live backup has its forecast, which is not made anew at each look.
func TestSampler_Forecast(t *testing.T) {
	src, s, look := telling()
	full := &lookedAhead{story: src}
	s.src = full
	src.status.AllocatedBlocks = 100
	if look(0); full.asked != 0 {
		t.Fatal("looked ahead for no backup")
	}
	src.status.Backups = []mvcc.BackupStatus{{ID: 3, Opened: s.now(), Blocks: 25, Bytes: 25 * 4096, BlocksTotal: 100, Share: 0.25, BytesPerSecond: 5 * 4096}, {ID: 4, Opened: s.now()}}
	for range 4 {
		v := look(time.Second)
		if v.Backups[0].Forecast != "forecast: it fits" || v.Backups[1].Forecast != "" {
			t.Fatalf("%+v", v.Backups)
		}
	}
	if full.asked != 1 {
		t.Fatalf("asked %d times in 4 s", full.asked)
	}
}

// Every event of the store is seen once, also those of before the first look, and those
// of a store that was opened again.
func TestSampler_EventsOnce(t *testing.T) {
	src, _, look := telling()
	kinds := []mvcc.EventKind{mvcc.EventWatermark, mvcc.EventRung, mvcc.EventFellForward, mvcc.EventBroken, mvcc.EventGuard,
		mvcc.EventReleased, mvcc.EventClock, mvcc.EventFailed, mvcc.EventLogGone}
	for _, k := range kinds {
		src.happens(mvcc.Event{Kind: k, Why: string(k)})
	}
	look(0)
	v := look(time.Second)
	if lines := EventLines(&v); len(lines) != 0 {
		t.Fatalf("news of before the first look: %q", lines)
	}
	if len(v.Events) != len(kinds) {
		t.Fatalf("%d events, want %d: %+v", len(v.Events), len(kinds), v.Events)
	}
	for i, e := range v.Events {
		if e.Kind != string(kinds[i]) || !strings.Contains(e.Text, string(kinds[i])) || e.Text == e.Kind {
			t.Errorf("%+v", e)
		}
	}
	src.err = errors.New("slow")
	look(time.Second)
	src.err = nil
	if v = look(time.Second); len(v.Events) != len(kinds)+1 { // and that it answers again
		t.Fatalf("%+v", v.Events)
	}
	if lines := EventLines(&v); len(lines) != 1 || !strings.HasSuffix(lines[0], "event: the database answers again") {
		t.Fatalf("%q", lines)
	}
	src.err = errors.New("closed")
	look(time.Second)
	src.err, src.events = nil, nil
	src.happens(mvcc.Event{Kind: mvcc.EventBroken})
	if v = look(time.Second); len(v.Events) != len(kinds)+3 {
		t.Fatalf("%+v", v.Events)
	}
	if lines := EventLines(&v); len(lines) != 2 || !strings.Contains(lines[0], "  event CRITICAL: a snapshot was broken") {
		t.Fatalf("%q", lines)
	}
}

// What is remembered has an end.
func TestSampler_IsBounded(t *testing.T) {
	src, s, look := telling()
	states := []string{"normal", "low", "high"}
	for i := range 1000 {
		src.happens(mvcc.Event{Kind: mvcc.EventWatermark, Level: mvcc.Level{Name: "ram", State: states[i%3]}})
		src.status.NewestLSN++
		look(10 * time.Millisecond)
	}
	if len(s.known) != eventsMax || len(s.past) > momentsMax || len(s.rates) != recentMax {
		t.Fatalf("%d events, %d moments, %d rates", len(s.known), len(s.past), len(s.rates))
	}
}

// At risk is what was committed after the newest state in the repository.
func TestView_AtRisk(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	v := View{Time: at, LastCommit: at.Add(-time.Second)}
	if _, known := v.AtRisk(); known {
		t.Error("known without a repository")
	}
	for _, r := range []Repository{{Error: "gone"}, {}, {Backups: 3}, {Archived: true, Until: at}} {
		v.Repository = &r
		if age, known := v.AtRisk(); known {
			t.Errorf("%+v, of which nothing can be restored, has all but %v", r, age)
		}
	}
	newest := livebackup.BackupID{Sequence: 1, Random: 1}
	v.Repository = &Repository{Backups: 1, Newest: newest, Committed: at.Add(-time.Hour), Archived: true, Until: at.Add(-time.Minute)}
	if age, known := v.AtRisk(); !known || age != time.Minute {
		t.Errorf("%v, %v", age, known)
	}
	v.Repository.Until = v.LastCommit
	if age, known := v.AtRisk(); !known || age != 0 {
		t.Errorf("all is archived: %v, %v", age, known)
	}
	v.LastCommit, v.Time = at.Add(time.Minute), at.Add(-time.Hour) // the clock was set back
	v.Repository.Until = at
	if age, known := v.AtRisk(); !known || age != time.Minute {
		t.Errorf("the clock was set back: %v, %v", age, known)
	}
	if list := backups(&mvcc.Status{Backups: []mvcc.BackupStatus{{Opened: at}}}, v.Time); list[0].Age != 0 {
		t.Errorf("a backup has been running for %v", list[0].Age)
	}
}

// A level of which there should be room, and is none, is full; one that is off is empty.
func TestLevels_WithoutRoom(t *testing.T) {
	list := levels(&mvcc.Status{Levels: []mvcc.Level{
		{Name: "temporary", Unit: mvcc.UnitBytes, State: mvcc.StateCritical}, {Name: "overflow", Unit: mvcc.UnitBytes, State: mvcc.StateNormal},
	}})
	if list[0].Share != 1 || list[1].Share != 0 {
		t.Errorf("%+v", list)
	}
}
