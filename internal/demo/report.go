package demo

import (
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/livebackup"
)

// Report is what a run did and found. Sizes are in bytes, times in nanoseconds.
type Report struct {
	OK  bool   `json:"ok"`
	Dir string `json:"dir,omitempty"` // what was kept

	Tree      string `json:"tree"`
	Generated bool   `json:"generated"` // no tree was found
	Files     int    `json:"files"`
	FileBytes int64  `json:"file_bytes"`
	Counters  int    `json:"counters"`
	Blocks    uint64 `json:"blocks"`
	BlockSize int    `json:"block_size"`

	LoadTook    time.Duration `json:"load_took_ns"`
	SinkRate    int64         `json:"sink_bytes_per_second"`
	WritersHeld time.Duration `json:"writers_held_ns"`
	SinkWaited  time.Duration `json:"sink_waited_ns"` // for originals to overflow

	ReportLSN  block.LSN `json:"report_lsn"`
	AuditorLSN block.LSN `json:"auditor_lsn"`
	BackupLSN  block.LSN `json:"backup_lsn"`

	Before Throughput `json:"before"`
	During Throughput `json:"during"`
	After  Throughput `json:"after"`

	Backup        livebackup.Manifest `json:"backup"`
	Proof         livebackup.Proof    `json:"proof"`
	Restore       time.Duration       `json:"restore_took_ns"`
	CheckedBlocks uint64              `json:"checked_blocks"` // of the restored database

	OriginalsMade    uint64 `json:"originals_made"`
	OriginalsShared  uint64 `json:"originals_shared"`
	OriginalsSpilled int64  `json:"originals_spilled"`

	Levels     []LevelPeak `json:"levels"`
	Watermarks []Watermark `json:"watermarks"`

	Comparisons []Comparison  `json:"comparisons"`
	Samples     []Sample      `json:"samples"`
	Took        time.Duration `json:"took_ns"`
}

// Throughput is what writers did in one part of the run.
type Throughput struct {
	Took    time.Duration `json:"took_ns"`
	Commits uint64        `json:"commits"`
	Bytes   int64         `json:"bytes"` // of values written
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
}

// PerSecond is commits per second.
func (t Throughput) PerSecond() float64 {
	if t.Took <= 0 {
		return 0
	}
	return float64(t.Commits) / t.Took.Seconds()
}

// LevelPeak is how full a level was at most.
type LevelPeak struct {
	Name  string `json:"name"`
	Peak  int64  `json:"peak_bytes"`
	Limit int64  `json:"limit_bytes"`
}

// Watermark is a watermark that was crossed.
type Watermark struct {
	At    time.Duration `json:"at_ns"` // since writers began
	Level string        `json:"level"`
	Was   string        `json:"was"`
	State string        `json:"state"`
}

// Comparison is one thing that had to be equal to another.
type Comparison struct {
	What  string `json:"what"`
	Want  string `json:"want"`
	Got   string `json:"got"`
	Equal bool   `json:"equal"`
}

// Sample is how things were at one moment.
type Sample struct {
	At        time.Duration `json:"at_ns"` // since writers began
	Commits   uint64        `json:"commits"`
	RAM       int64         `json:"ram_bytes"`       // originals within MaxRAM
	Temporary int64         `json:"temporary_bytes"` // originals in temporary storage
	Overflow  int64         `json:"overflow_bytes"`  // originals beyond MaxRAM
}

// compare notes whether two things are equal.
func (r *Report) compare(what, want, got string) Comparison {
	c := Comparison{what, want, got, want == got}
	r.Comparisons = append(r.Comparisons, c)
	return c
}

// equal reports whether all comparisons were.
func (r *Report) equal() bool {
	for _, c := range r.Comparisons {
		if !c.Equal {
			return false
		}
	}
	return len(r.Comparisons) > 0
}
