package mvcc

import (
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/wal"
)

// Level is one of the levels that can run full.
type Level struct {
	Name        string // LevelRAM and so on
	Unit        string // UnitBytes, or UnitAge
	Used, Limit int64
	Peak        int64  // since the store was opened
	State       string // StateNormal and so on: by how full it is
	TimeState   string // the same, by how soon it will be full

	RateBytesPerSecond int64         // at which it fills; 0: it does not
	TimeToFull         time.Duration // at that rate; 0: never
	Marks              [3]float64    // shares of the limit at which it is low, high, critical; 0: it warns nobody
}

// The units of levels.
const (
	UnitBytes = "bytes"
	UnitAge   = "ns" // of a level that is an age
)

// The states of a level, from good to bad.
const (
	StateNormal   = "normal"
	StateLow      = "low"      // worth knowing
	StateHigh     = "high"     // someone should look
	StateCritical = "critical" // the next rung of the ladder is near
)

// StateRank is the place of a level's state among the states: 0 is normal; -1: it is
// none.
func StateRank(state string) int {
	return slices.Index([]string{StateNormal, StateLow, StateHigh, StateCritical}, state)
}

// WorstState is that of a level's two states which deserves more attention, and whether
// it is the one by how soon the level will be full.
func WorstState(state, timeState string) (worst string, byTime bool) {
	if StateRank(timeState) > StateRank(state) {
		return timeState, true
	}
	return state, false
}

// SnapshotStatus is one live snapshot.
type SnapshotStatus = snapshot.Status

// Status is the store as operators see it.
type Status struct {
	Dir             string
	Database        string
	Timeline        string
	BlockSize       int
	Mode            string // "read-write", "read-only", "standby"
	Quiet           bool   // at rest: writers wait
	HighWater       block.ID
	AllocatedBlocks uint64
	FileBytes       int64 // of the data file
	NewestLSN       block.LSN
	DurableLSN      block.LSN
	RedoLSN         block.LSN // where recovery would begin
	LastCommit      time.Time
	Levels          []Level
	Snapshots       []SnapshotStatus
	Backups         []BackupStatus // how far the live backups are
	Commits         CommitLatency  // how long commits took
	Readers         int
	Originals       snapshot.Counters
	Cache           blockcache.Stats
	Log             wal.Stats
	Holders         []wal.HolderStatus // who keeps log, the oldest first
	LogWaits        int64              // commits that waited for log space
	DirtyWaits      int64              // commits that waited for the dirty limit
	PacedWaits      int64              // commits that were held up because of Options.WriterDelayMax
	PacedTime       time.Duration      // for how long in all
	IndexWaits      int64              // times that a large transaction waited for room that its predecessors had in memory or temporary storage
	Failed          string             // why the store is poisoned, or ""
}

// NewestCommit is the newest commit and its time: what Status tells of it, at no cost.
func (s *Store) NewestCommit() (block.LSN, time.Time) { return s.newestLSN(), s.lastCommitTime() }

// readersListed is how many readers Status lists; all are counted.
const readersListed = 1000

func (s *Store) mode() string {
	switch {
	case s.opts.ReadOnly:
		return "read-only"
	case s.standby:
		return "standby"
	}
	return "read-write"
}

// Status looks at everything without stopping anyone.
func (s *Store) Status() Status {
	st := Status{
		Dir: s.dir, Database: s.database.String(), Timeline: s.timeline.String(), BlockSize: s.geo.size,
		Mode: s.mode(), Quiet: s.quiet.Load() != nil,
		FileBytes: s.data.length(), NewestLSN: s.newestLSN(), DurableLSN: s.log.Durable(), RedoLSN: s.redoStart(),
		LastCommit: s.lastCommitTime(), Levels: s.levels(),
		Backups: s.backupStatus(), Commits: s.latency.read(),
		Snapshots: s.snapshots.List(readersListed), Readers: s.snapshots.Readers(), Originals: s.snapshots.Counters(),
		Cache: s.cache.Stats(), Log: s.log.Stats(), Holders: s.log.Holders(),
		LogWaits: s.waits.logSpace.Load(), DirtyWaits: s.waits.dirtyLimit.Load(),
		IndexWaits: s.waits.room.Load(), PacedWaits: s.waits.paced.Load(), PacedTime: time.Duration(s.waits.pacedFor.Load()),
	}
	for i := range st.Snapshots {
		if p := &st.Snapshots[i]; p.Kind == "reader" && p.Lease == 0 {
			p.Lease = s.opts.ReadAgeMax
		}
	}
	if err := s.state.failure(); err != nil {
		st.Failed = err.Error()
	}
	if t, err := s.BeginRead(); err == nil {
		st.HighWater, st.AllocatedBlocks = t.meta.highWater, t.meta.inUse
		t.Close()
	}
	return st
}
