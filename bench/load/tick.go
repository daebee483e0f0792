package load

import (
	"time"

	"github.com/spillwaydb/spillway/internal/latency"
	"github.com/spillwaydb/spillway/mvcc"
)

// Tick is how the last second was.
type Tick struct {
	Filling bool          // the database is being filled: Records counts
	At      time.Duration // since filling, or writing, began
	Took    time.Duration // what Latency is of: about a second
	Records int           // filled so far
	Latency latency.Summary
	Status  mvcc.Status
}

// Summary is how it was from begin to end.
type Summary struct {
	Records  int           `json:"records"`
	Filled   int           `json:"filled"` // of these, by this run
	FillTook time.Duration `json:"fill_took_ns"`
	Took     time.Duration `json:"took_ns"` // writing
	Commits  uint64        `json:"commits"`
	Bytes    int64         `json:"bytes"` // of values
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	Max      time.Duration `json:"max_ns"`
	Peaks    []Peak        `json:"peaks"`
	Made     uint64        `json:"originals_made"`
	Shared   uint64        `json:"originals_shared"`
	Spilled  int64         `json:"originals_spilled"`
	LogWaits int64         `json:"log_waits"` // commits that waited for log space
	Dirty    int64         `json:"dirty_waits"`
}

// Peak is how full a level was at most.
type Peak struct {
	Level string `json:"level"`
	Bytes int64  `json:"bytes"`
	Limit int64  `json:"limit_bytes"`
}

// PerSecond is commits per second.
func (s *Summary) PerSecond() float64 {
	if s.Took <= 0 {
		return 0
	}
	return float64(s.Commits) / s.Took.Seconds()
}

func (s *Summary) take(c *latency.Counts, st mvcc.Status) {
	l := c.Summary()
	s.Commits, s.P50, s.P99, s.Max = l.Count, l.P50, l.P99, l.Max
	s.Made, s.Shared, s.Spilled = st.Originals.OriginalsMade, st.Originals.OriginalsShared, st.Cache.Spilled
	s.LogWaits, s.Dirty = st.LogWaits, st.DirtyWaits
	for _, level := range st.Levels {
		s.Peaks = append(s.Peaks, Peak{level.Name, max(level.Peak, level.Used), level.Limit})
	}
}
