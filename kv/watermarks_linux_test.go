package kv_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// crossing is one event of a level, by how full it is or by how soon it will be.
type crossing struct {
	level  string
	byTime bool
}

// TestWatermarks_EachForReal has every level of a store on real files warn: RAM and the
// index by originals, temporary storage by a small file system, overflow behind that,
// the log by a follower that does not come, the archive by one that is gone, the age of
// a snapshot by waiting. (That of the host is met in a control group, see
// TestLadder_OverflowStopsAtTheGroupsReserve.) Each level's events join: what one was
// before is what the event before said; and the last one says what the level is.
func TestWatermarks_EachForReal(t *testing.T) {
	temp := smallFS(t, 12<<20)
	var heard heardEvents
	low := mvcc.Marks{Low: 0.05, High: 0.1, Critical: 0.9}
	db, err := kv.Open(filepath.Join(t.TempDir(), "db"), kv.Options{Store: mvcc.Options{
		MaxRAM: boundedRAM, OverflowMax: 64 << 20, Temp: []mvcc.TempDir{{Path: temp, BytesMax: 1 << 30}}, AllowMemoryTemp: true,
		LogHoldMax: 64 << 20, LogBytesMax: 16 << 20, OnEvent: heard.add,
		ArchiveLagWarn: 300 * time.Millisecond, SnapshotAgeWarn: 300 * time.Millisecond,
		Marks: map[string]mvcc.Marks{mvcc.LevelIndex: {Low: 0.001, High: 0.01, Critical: 0.9}, mvcc.LevelOverflow: low, mvcc.LevelRAM: low, mvcc.LevelHeldLog: low},
	}})
	must(t, err)
	defer db.Close()
	store := db.Store()
	const records = 48 << 20 / boundedRecord
	must(t, boundedPut(db, 0, records, "first"))
	slow, err := store.OpenLogTail("standby", store.Status().DurableLSN)
	must(t, err)
	archive, err := store.OpenLogTail("archive", store.Status().DurableLSN)
	must(t, err)
	snapshot, err := db.Begin(false)
	must(t, err)
	must(t, boundedPut(db, 0, records, "second"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // of the slowest disk
	defer cancel()
	must(t, boundedPut(db, records, 3*records/2, "log")) // the second took next to none
	awaitMarks(ctx, t, &heard, mvcc.LevelRAM, mvcc.LevelTemporary, mvcc.LevelOverflow, mvcc.LevelIndex, mvcc.LevelHeldLog, mvcc.LevelArchiveLag, mvcc.LevelSnapshotAge)
	must(t, boundedProve(snapshot, records, "first"))
	must(t, snapshot.Rollback())
	archive.Done(store.Status().DurableLSN)
	slow.Close()
	awaitNormal(ctx, t, store, mvcc.LevelTemporary, mvcc.LevelOverflow, mvcc.LevelHeldLog, mvcc.LevelArchiveLag, mvcc.LevelSnapshotAge)
	archive.Close()
	must(t, db.Close())
	joined(t, &heard)
}

// heardEvents are all events of a store: more than it keeps itself.
type heardEvents struct {
	mu   sync.Mutex
	list []mvcc.Event
}

func (h *heardEvents) add(ev mvcc.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, ev)
}

func (h *heardEvents) all() []mvcc.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}

// awaitMarks waits until an event told of each level that it is above normal.
func awaitMarks(ctx context.Context, t *testing.T, h *heardEvents, levels ...string) {
	t.Helper()
	await(ctx, t, func() (missing []string) {
		told := map[string]bool{}
		for _, ev := range h.all() {
			if ev.Kind == mvcc.EventWatermark && !ev.ByTime && ev.Level.State != "normal" {
				told[ev.Level.Name] = true
			}
		}
		for _, l := range levels {
			if !told[l] {
				missing = append(missing, l)
			}
		}
		return missing
	})
}

// awaitNormal waits until these levels are as at the start.
func awaitNormal(ctx context.Context, t *testing.T, s *mvcc.Store, levels ...string) {
	t.Helper()
	await(ctx, t, func() (missing []string) {
		is := map[string]string{}
		for _, l := range s.Status().Levels {
			is[l.Name] = l.State
		}
		for _, l := range levels {
			if is[l] != "normal" {
				missing = append(missing, l+" "+is[l])
			}
		}
		return missing
	})
}

func await(ctx context.Context, t *testing.T, missing func() []string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := missing()
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still waiting for %v", left)
		}
	}
}

// joined proves that no crossing is missing among the events, and none is made up.
func joined(t *testing.T, h *heardEvents) {
	t.Helper()
	last := map[crossing]string{}
	for _, ev := range h.all() {
		if ev.Kind != mvcc.EventWatermark {
			continue
		}
		c, state := crossing{ev.Level.Name, ev.ByTime}, ev.Level.State
		if ev.ByTime {
			state = ev.Level.TimeState
		}
		if was, known := last[c]; known && was != ev.Was || state == ev.Was {
			t.Errorf("%+v: from %s to %s, it was %s", c, ev.Was, state, was)
		}
		last[c] = state
	}
}
