package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/mvcc"
)

// statusReport is what the status command prints.
type statusReport struct {
	Dir             string           `json:"dir"`
	Live            bool             `json:"live"`
	Database        string           `json:"database"`
	Timeline        string           `json:"timeline"`
	BlockSize       int              `json:"block_size"`
	FileBytes       int64            `json:"file_bytes"`
	AllocatedBlocks uint64           `json:"allocated_blocks"`
	NewestLSN       block.LSN        `json:"newest_lsn"`
	DurableLSN      block.LSN        `json:"durable_lsn"`
	RedoLSN         block.LSN        `json:"redo_lsn"`
	LastCommit      time.Time        `json:"last_commit"`
	Failed          string           `json:"failed,omitempty"`
	Levels          []levelReport    `json:"levels"`
	Readers         int              `json:"readers"`
	Snapshots       []snapshotReport `json:"snapshots"`
	Backups         []progressReport `json:"backups"`
	Originals       originalsReport  `json:"originals"`
	Waits           waitsReport      `json:"waits"`
}

type levelReport struct {
	Name       string `json:"name"`
	Unit       string `json:"unit"`       // mvcc.UnitBytes or mvcc.UnitAge
	UsedBytes  int64  `json:"used_bytes"` // these three in that unit
	LimitBytes int64  `json:"limit_bytes"`
	PeakBytes  int64  `json:"peak_bytes"`
	State      string `json:"state"`      // by how full it is
	TimeState  string `json:"time_state"` // by how soon it will be full

	RateBytesPerSecond int64         `json:"rate_bytes_per_second"` // at which it fills
	TimeToFull         time.Duration `json:"time_to_full_ns"`       // 0: never, at that rate
}

// size is n in the unit of the level, for people.
func (l *levelReport) size(n int64) string {
	if l.Unit == mvcc.UnitAge {
		return human.Elapsed(time.Duration(n))
	}
	return human.Bytes(n)
}

// full is when the level will be full, for people.
func (l *levelReport) full() string {
	if l.TimeToFull == 0 || l.UsedBytes == 0 && l.worst() == "normal" { // of what is empty, only the limit moves
		return "-"
	}
	return human.Elapsed(l.TimeToFull)
}

// worst is the state that deserves the most attention.
func (l *levelReport) worst() string {
	state, byTime := mvcc.WorstState(l.State, l.TimeState)
	if byTime {
		return state + " (soon)"
	}
	return state
}

type snapshotReport struct {
	ID         uint64    `json:"id"`
	Kind       string    `json:"kind"`
	Owner      string    `json:"owner"`
	Label      string    `json:"label"`
	LSN        block.LSN `json:"lsn"`
	Opened     time.Time `json:"opened"`
	HoldsBytes int64     `json:"holds_bytes"`
	FreesBytes int64     `json:"frees_bytes"`

	SharedBytes int64         `json:"shared_bytes"` // that others keep as well
	Lease       time.Duration `json:"lease_ns"`     // for how long it may be open; 0: no limit
}

// progressReport is how far a live backup is.
type progressReport struct {
	ID             uint64    `json:"id"`
	Blocks         uint64    `json:"blocks"`       // handed out
	BlocksTotal    uint64    `json:"blocks_total"` // of an incremental as far as known; 0: not known yet
	Share          float64   `json:"share"`        // of its way, 0 to 1
	Bytes          int64     `json:"bytes"`
	BytesPerSecond int64     `json:"bytes_per_second"` // lately
	Opened         time.Time `json:"opened"`
	Rung           string    `json:"rung"`
	RateLimit      int64     `json:"rate_limit_bytes_per_second"` // asked for with "pace"; 0: none

	forecast.Outlook
}

type originalsReport struct {
	Kept    int    `json:"kept"`
	Made    uint64 `json:"made"`
	Shared  uint64 `json:"shared"`
	Spilled int64  `json:"spilled"`
	Broken  uint64 `json:"snapshots_broken"`
}

// waitsReport counts commits that waited, and for what: only ever the disk.
type waitsReport struct {
	LogSpace   int64 `json:"log_space"`
	DirtyLimit int64 `json:"dirty_limit"`
}

func newStatusReport(s *mvcc.Status, ahead []forecast.Outlook, live bool) statusReport {
	r := statusReport{
		Dir: s.Dir, Live: live, Database: s.Database, Timeline: s.Timeline, BlockSize: s.BlockSize, FileBytes: s.FileBytes,
		AllocatedBlocks: s.AllocatedBlocks, NewestLSN: s.NewestLSN, DurableLSN: s.DurableLSN, RedoLSN: s.RedoLSN,
		LastCommit: s.LastCommit, Failed: s.Failed, Readers: s.Readers,
		Levels: []levelReport{}, Snapshots: []snapshotReport{}, Backups: []progressReport{},
		Originals: originalsReport{s.Originals.Originals, s.Originals.OriginalsMade, s.Originals.OriginalsShared, s.Cache.Spilled, s.Originals.SnapshotsBroken},
		Waits:     waitsReport{s.LogWaits, s.DirtyWaits},
	}
	for _, l := range s.Levels {
		r.Levels = append(r.Levels, levelReport{l.Name, l.Unit, l.Used, l.Limit, l.Peak, l.State, l.TimeState, l.RateBytesPerSecond, l.TimeToFull})
	}
	for _, p := range s.Snapshots {
		r.Snapshots = append(r.Snapshots, snapshotReport{p.ID, p.Kind, p.Owner, p.Label, p.LSN, p.Opened, p.HeldBytes, p.FreesBytes, max(p.HeldBytes-p.FreesBytes, 0), p.Lease})
	}
	for i, b := range s.Backups {
		r.Backups = append(r.Backups, progressReport{b.ID, b.Blocks, b.BlocksTotal, b.Share, b.Bytes, b.BytesPerSecond, b.Opened, string(b.Rung), max(b.PaceBytesPerSecond, 0), ahead[i]})
	}
	return r
}

func (r statusReport) text(w io.Writer) {
	how := "not open in any process"
	if r.Live {
		how = "open in another process"
	}
	fmt.Fprintf(w, "%s (%s)\n", r.Dir, how)
	if r.Failed != "" {
		fmt.Fprintf(w, "FAILED     %s\n", r.Failed)
	}
	fmt.Fprintf(w, "database   %s\ntimeline   %s\n", r.Database, r.Timeline)
	fmt.Fprintf(w, "size       %s, %s of it in use, in blocks of %s\n", human.Bytes(r.FileBytes),
		human.Bytes(int64(r.AllocatedBlocks)*int64(r.BlockSize)), human.Bytes(int64(r.BlockSize)))
	fmt.Fprintf(w, "commits    LSN %v, at %s; durable to %v, recovery from %v\n", r.NewestLSN, when(r.LastCommit), r.DurableLSN, r.RedoLSN)
	fmt.Fprintf(w, "originals  %s kept now; %s made, %s shared, %s spilled since it was opened\n", human.Count(r.Originals.Kept),
		human.Count(r.Originals.Made), human.Count(r.Originals.Shared), human.Count(r.Originals.Spilled))
	fmt.Fprintf(w, "waits      %s for log space, %s for the cleaner\n\n", human.Count(r.Waits.LogSpace), human.Count(r.Waits.DirtyLimit))
	r.levelsText(w)
	fmt.Fprintln(w)
	r.snapshotsText(w)
	r.backupsText(w)
}

func (r statusReport) levelsText(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LEVEL\tUSED\tLIMIT\tFULL\t\tPEAK\tFULL IN\tSTATE")
	for _, l := range r.Levels {
		share := 0.0
		if l.LimitBytes > 0 {
			share = float64(l.UsedBytes) / float64(l.LimitBytes)
		} else if l.State == mvcc.StateCritical { // of the room that there should be none is left
			share = 1
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%3.0f%%\t%s\t%s\t%s\n", l.Name, l.size(l.UsedBytes), l.size(l.LimitBytes),
			gauge(share), 100*share, l.size(max(l.PeakBytes, l.UsedBytes)), l.full(), l.worst())
	}
	t.Flush()
}

// gauge draws how full something is.
func gauge(share float64) string { return watch.Gauge(share, 12, nil) }

// snapshotsShown is how many snapshots are printed as text.
const snapshotsShown = 20

func (r statusReport) snapshotsText(w io.Writer) {
	if len(r.Snapshots) == 0 {
		fmt.Fprintln(w, "no live snapshots")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SNAPSHOT\tLSN\tAGE\tLEASE\tHOLDS\tFREES\tOWNER\tLABEL")
	for _, s := range r.Snapshots[:min(len(r.Snapshots), snapshotsShown)] {
		fmt.Fprintf(t, "%s %d\t%v\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Kind, s.ID, s.LSN, human.Elapsed(time.Since(s.Opened)), lease(s.Lease),
			human.Bytes(s.HoldsBytes), human.Bytes(s.FreesBytes), printable(s.Owner), printable(s.Label))
	}
	t.Flush()
	if more := len(r.Snapshots) - snapshotsShown; more > 0 {
		fmt.Fprintf(w, "and %s more\n", human.Count(more))
	}
}

func (r statusReport) backupsText(w io.Writer) {
	if len(r.Backups) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKUP\tDONE\t\tREAD\tRATE\tRUNG\tLEFT\tVERDICT")
	for _, b := range r.Backups {
		left := "-" // not known yet
		if b.TimeLeft > 0 {
			left = human.Elapsed(b.TimeLeft.Round(time.Second))
		}
		fmt.Fprintf(t, "%d\t%s\t%3.0f%%\t%s\t%s/s\t%s\t%s\t%s\n", b.ID, gauge(b.Share), 100*b.Share, human.Bytes(b.Bytes), human.Bytes(b.BytesPerSecond), b.Rung,
			left, outlookWord(&b.Outlook))
	}
	t.Flush()
}

// lease is for how long a snapshot may be open, for people.
func lease(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return human.Elapsed(d)
}
