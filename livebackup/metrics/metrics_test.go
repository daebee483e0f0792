package metrics

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/wal"
)

type source struct {
	status mvcc.Status
	err    error
}

func (s *source) Status(context.Context) (mvcc.Status, error) { return s.status, s.err }

// levels that a store has.
var levels = []string{"ram", "temporary", "overflow", "index", "host", "log", "held log"}

// full is a database that has something of everything.
func full() *source {
	s := &source{status: mvcc.Status{BlockSize: 4096, AllocatedBlocks: 3, LogWaits: 5, LastCommit: time.Unix(1_700_000_000, 0)}}
	for _, l := range levels {
		s.status.Levels = append(s.status.Levels, mvcc.Level{Name: l, Used: 7, Limit: 10, State: "low"})
	}
	s.status.Levels = append(s.status.Levels, mvcc.Level{Name: mvcc.LevelSnapshotAge, Unit: "ns", Used: 7, State: "low", TimeState: "high", TimeToFull: time.Hour})
	s.status.Backups = []mvcc.BackupStatus{{ID: 1, Label: "x"}, {ID: 2, Label: "x"}}
	s.status.Snapshots = []mvcc.SnapshotStatus{{Opened: time.Now().Add(-time.Hour)}}
	s.status.Holders = []wal.HolderStatus{{Name: "a", Bytes: 3}, {Name: "a", Bytes: 4}}
	s.status.Commits = mvcc.CommitLatency{Counts: make([]uint64, 46), Sum: time.Second}
	s.status.Commits.Counts[3], s.status.Commits.Counts[45] = 10, 1
	return s
}

// gather scrapes, with all the checks that Prometheus has.
func gather(t *testing.T, src *source) map[string][]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(New(src, Options{Labels: prometheus.Labels{"db": "test"}}))
	list, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]float64{}
	for _, f := range list {
		for _, m := range f.GetMetric() {
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			found[f.GetName()] = append(found[f.GetName()], v)
		}
		if f.GetHelp() == "" {
			t.Errorf("%s says nothing", f.GetName())
		}
	}
	return found
}

func TestMetrics_OfADatabase(t *testing.T) {
	got := gather(t, full())
	for name, want := range map[string][]float64{
		upName: {1}, latencyName: {11}, "spillway_allocated_bytes": {3 * 4096}, "spillway_log_held_bytes": {7},
		"spillway_level_state": {1, 1, 1, 1, 1, 1, 1, 1}, "spillway_level_time_state": {2}, "spillway_level_time_to_full_seconds": {3600}, "spillway_backups_live": {2}, "spillway_last_commit_timestamp_seconds": {1_700_000_000},
	} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
	if age := got["spillway_oldest_snapshot_age_seconds"]; len(age) != 1 || age[0] < 3600 || age[0] > 3700 {
		t.Errorf("age %v", age)
	}
	src := full()
	src.err = errors.New("gone")
	if got := gather(t, src); len(got) != 1 || got[upName][0] != 0 {
		t.Errorf("of one that does not answer: %v", got)
	}
}

// names are all there are.
func names() []string {
	list := []string{upName, latencyName}
	for _, f := range families {
		list = append(list, f.name)
	}
	slices.Sort(list)
	return list
}

var metricName = regexp.MustCompile(`\bspillway_[a-z0-9_]+\b`)

// Every metric is in docs/metrics.md, and no other; names say their units.
func TestMetrics_EveryNameIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `spillway_") {
			said = append(said, metricName.FindString(line))
		}
	}
	slices.Sort(said)
	if is := names(); !slices.Equal(said, is) {
		for _, n := range is {
			if !slices.Contains(said, n) {
				t.Errorf("%s is not documented", n)
			}
		}
		for _, n := range said {
			if !slices.Contains(is, n) {
				t.Errorf("%s is documented and not there", n)
			}
		}
	}
	for _, f := range families {
		if total := strings.HasSuffix(f.name, "_total"); total != (f.kind == prometheus.CounterValue) {
			t.Errorf("%s: a counter is named _total, and nothing else is", f.name)
		}
	}
}

// Every metric that an alert asks for exists, and every level has an alert.
func TestAlerts_AskForWhatExists(t *testing.T) {
	text, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	is := names()
	asked := 0
	for line := range strings.Lines(string(text)) {
		expr, found := strings.CutPrefix(strings.TrimSpace(line), "expr:")
		if !found {
			continue
		}
		list := metricName.FindAllString(expr, -1)
		if len(list) == 0 {
			t.Errorf("no metric in %q", expr)
		}
		for _, n := range list {
			asked++
			n = strings.TrimSuffix(n, "_bucket")
			if !slices.Contains(is, n) {
				t.Errorf("%s is asked for and not there", n)
			}
		}
	}
	if asked == 0 {
		t.Error("no alert asks for anything")
	}
	for _, l := range append(levels, mvcc.LevelSnapshotAge, mvcc.LevelArchiveLag) {
		if !strings.Contains(string(text), `level="`+l+`"`) {
			t.Errorf("no alert for level %q", l)
		}
	}
}
