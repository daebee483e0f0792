package livebackup

import (
	"errors"
	"math"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Record is the result record of one backup: what became of it, what it has and what
// it cost. That of a backup that was made is its manifest's, so it is stored with the
// backup; that of one that failed is only what [Backup] returns. docs/result.md has
// each field with its unit.
type Record struct {
	Outcome string       `json:"outcome"` // OutcomeDone or OutcomeFailed
	Error   *RecordError `json:"error,omitempty"`

	ID       BackupID `json:"id,omitzero"` // zero if it failed before it had one
	Kind     string   `json:"kind,omitempty"`
	Database string   `json:"database,omitempty"`
	Timeline string   `json:"timeline,omitempty"`
	Owner    string   `json:"owner"`
	Label    string   `json:"label"`
	Base     BackupID `json:"base,omitzero"`
	WhyFull  string   `json:"why_full,omitempty"`

	// Where it is exact: S, F if it had to fall forward, E. BaseLSN is what an
	// incremental adds to.
	LSN            block.LSN `json:"lsn"`
	FallForwardLSN block.LSN `json:"fall_forward_lsn,omitempty"`
	EndLSN         block.LSN `json:"end_lsn"`
	BaseLSN        block.LSN `json:"base_lsn,omitempty"`

	Started    time.Time     `json:"started"`
	Duration   time.Duration `json:"duration_ns"`
	StartStall time.Duration `json:"start_stall_ns"`

	Blocks               uint64 `json:"blocks"`
	BlocksInUse          uint64 `json:"blocks_in_use"`
	RawBytes             int64  `json:"raw_bytes"`
	StoredBytes          int64  `json:"stored_bytes"`
	RawBytesPerSecond    int64  `json:"raw_bytes_per_second"`
	StoredBytesPerSecond int64  `json:"stored_bytes_per_second"`

	Rung  mvcc.Rung `json:"rung,omitempty"`
	Cost  Cost      `json:"cost"`
	Audit Audit     `json:"audit,omitzero"`
	Run   Run       `json:"run"`
}

// The outcomes of a backup.
const (
	OutcomeDone   = "done"
	OutcomeFailed = "failed"
)

// RecordError is why a backup failed.
type RecordError struct {
	Kind    string `json:"kind,omitempty"` // as the command's exit codes have it; "" from Backup itself
	Message string `json:"message"`
}

// Run is what a manifest says of the run that made the backup, beside its cost.
type Run struct {
	WhyFull          string        `json:"why_full,omitempty"`                    // why it is a full one where none was asked for
	BytesPerSecond   int64         `json:"rate_limit_bytes_per_second,omitempty"` // the limit that was in force last; 0: none
	LimitChanges     int           `json:"rate_limit_changes,omitempty"`          // while it ran
	Sink             time.Duration `json:"sink_ns,omitempty"`                     // that was spent writing to the repository, the limit included
	BufferBytes      int64         `json:"buffer_bytes,omitempty"`                // the backup's own buffers, at most
	Levels           []LevelPeak   `json:"levels,omitempty"`
	Crossings        []Crossing    `json:"watermarks,omitempty"`
	CrossingsLeftOut int           `json:"watermarks_left_out,omitempty"`
	Margins          []Margin      `json:"guards,omitempty"` // how near each guard came to its limit
}

// LevelPeak is how full a level was at most while the backup ran.
type LevelPeak struct {
	Name       string `json:"name"`
	PeakBytes  int64  `json:"peak_bytes"`  // of an age, in ns
	LimitBytes int64  `json:"limit_bytes"` // then, in the same unit
}

// Crossing is a watermark that was crossed while the backup ran, up or down.
type Crossing struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Was        string    `json:"was"`
	State      string    `json:"state"`
	ByTime     bool      `json:"by_time,omitempty"` // how soon it will be full, not how full it is
	UsedBytes  int64     `json:"used_bytes"`        // of an age, in ns; as the next one
	LimitBytes int64     `json:"limit_bytes"`
}

// met takes over what the database says of the time while the backup ran.
func (r *Run) met(c *mvcc.Cost) {
	r.Levels, r.Crossings, r.CrossingsLeftOut, r.Margins = nil, nil, c.CrossingsLeftOut, nil
	for _, m := range c.Margins {
		if !math.IsNaN(m.Closest) && !math.IsInf(m.Closest, 0) { // JSON has no such number
			r.Margins = append(r.Margins, Margin{string(m.Guard), m.Limit, m.Closest})
		}
	}
	for _, l := range c.Levels {
		r.Levels = append(r.Levels, LevelPeak{l.Name, l.Used, l.Limit})
	}
	for _, m := range c.Crossings {
		r.Crossings = append(r.Crossings, Crossing{m.Time.UTC(), m.Level, m.Was, m.State, m.ByTime, m.Used, m.Limit})
	}
}

// Record is the result record of a backup that was made.
func (m *Manifest) Record() Record {
	r := Record{
		Outcome: OutcomeDone, ID: m.ID, Kind: m.Kind, Database: m.Database.String(), Timeline: m.Timeline.String(),
		Owner: m.Owner, Label: m.Label, Base: m.Base, WhyFull: m.Run.WhyFull,
		LSN: m.LSN, EndLSN: m.EndLSN, BaseLSN: m.BaseLSN,
		Started: m.Started, Duration: m.Duration, StartStall: m.StartStall,
		Blocks: m.Blocks, BlocksInUse: m.inUse(), RawBytes: m.RawBytes, StoredBytes: m.StoredBytes,
		Cost: m.Cost, Audit: m.Audit, Run: m.Run,
	}
	r.Run.WhyFull = ""
	r.Rung = m.Cost.rung()
	if f := m.FallForward; f != nil {
		r.FallForwardLSN, r.Rung = f.LSN, mvcc.RungFallForward
	}
	r.rates()
	return r
}

// rung is the highest rung that a cost tells of.
func (c *Cost) rung() mvcc.Rung {
	return (&mvcc.Cost{OriginalsSpilled: c.OriginalsSpilled, OverflowPeakBytes: c.OverflowPeakBytes}).Rung()
}

func (r *Record) rates() {
	if s := r.Duration.Seconds(); s > 0 {
		r.RawBytesPerSecond, r.StoredBytesPerSecond = int64(float64(r.RawBytes)/s), int64(float64(r.StoredBytes)/s)
	}
}

// attempted makes r the record of a backup that is being made, as far as it is known
// when its snapshot was opened.
func (r *Record) attempted(o BackupOptions, info mvcc.BackupInfo, base []Entry, started time.Time) {
	m := manifestOf(info, base)
	m.Owner, m.Label, m.Started = o.Owner, o.Label, started.UTC()
	*r = m.Record()
	r.Blocks, r.RawBytes = 0, 0
}

// got enters how far a run came that did not become a backup.
func (r *Record) got(run *run, cost mvcc.Cost) {
	r.ID = run.id
	r.Blocks, r.RawBytes = run.kept, int64(run.kept)*int64(run.info.BlockSize)
	r.StoredBytes = run.blocks.bytes + run.index.out.bytes
	r.Cost, r.Run = costOf(cost), run.record(cost)
	r.Rung = r.Cost.rung()
	if f := run.forward; f != nil {
		r.FallForwardLSN, r.Rung = f.at, mvcc.RungFallForward
		r.StoredBytes += f.log.bytes
	}
}

// ended enters how a backup ended.
func (r *Record) ended(o BackupOptions, began time.Time, err error) {
	if err == nil {
		return
	}
	r.Owner, r.Label = o.Owner, o.Label // also if it failed before there was a snapshot
	if r.Started.IsZero() {
		r.Started = began.UTC()
	}
	r.Outcome, r.Error = OutcomeFailed, &RecordError{Message: err.Error()}
	r.Duration = time.Since(began)
	if errors.Is(err, mvcc.ErrBroken) {
		r.Rung = mvcc.RungBreak
	}
	r.rates()
}
