package metrics

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/mvcc"
)

// The two that are not made from a table.
const (
	upName      = "spillway_up"
	upHelp      = "1 if the database answered, 0 if it did not: then there is nothing else."
	latencyName = "spillway_commit_duration_seconds"
	latencyHelp = "How long commits took, from the call until they were acknowledged. One commit in 13 is counted."
)

// reading is what one scrape found.
type reading struct {
	mvcc.Status
	now  time.Time
	repo *watch.Repository // nil: there is none, or it was not read yet
}

// family is one metric with all its labels.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	collect    func(r *reading, out func(value float64, labels ...string))
}

// gauge is a family without labels.
func gauge(name, help string, value func(r *reading) float64) family {
	return family{name, help, prometheus.GaugeValue, nil, func(r *reading, out func(float64, ...string)) { out(value(r)) }}
}

// counter is a family without labels that only grows, until the database is opened again.
func counter(name, help string, value func(r *reading) float64) family {
	f := gauge(name, help, value)
	f.kind = prometheus.CounterValue
	return f
}

// perLevel is a family with a value for each level of bytes: ages have families of their
// own.
func perLevel(name, help string, value func(r *reading, l mvcc.Level) float64) family {
	return family{name, help, prometheus.GaugeValue, []string{"level"}, func(r *reading, out func(float64, ...string)) {
		for _, l := range r.Levels {
			if l.Unit != mvcc.UnitAge {
				out(value(r, l), l.Name)
			}
		}
	}}
}

// ofLevels is a family with a value for each level that has one, whatever its unit.
func ofLevels(name, help string, value func(l mvcc.Level) (float64, bool)) family {
	return family{name, help, prometheus.GaugeValue, []string{"level"}, func(r *reading, out func(float64, ...string)) {
		for _, l := range r.Levels {
			if v, known := value(l); known {
				out(v, l.Name)
			}
		}
	}}
}

// perBackup is a family with a value for each live backup.
func perBackup(name, help string, value func(r *reading, b mvcc.BackupStatus) float64) family {
	return family{name, help, prometheus.GaugeValue, []string{"backup", "label"}, func(r *reading, out func(float64, ...string)) {
		for _, b := range r.Backups {
			out(value(r, b), strconv.FormatUint(b.ID, 10), b.Label)
		}
	}}
}

// ofRepository is a gauge that there is only with a repository that could be read.
func ofRepository(name, help string, value func(r *reading) (float64, bool)) family {
	return family{name, help, prometheus.GaugeValue, nil, func(r *reading, out func(float64, ...string)) {
		if r.repo == nil || r.repo.Error != "" {
			return
		}
		if v, known := value(r); known {
			out(v)
		}
	}}
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// stateNumber is a level's state as a number that grows with the trouble.
func stateNumber(state string) float64 {
	if rank := mvcc.StateRank(state); rank >= 0 {
		return float64(rank)
	}
	return math.NaN()
}

var families = []family{
	gauge("spillway_failed", "1 if the store has failed and takes no commits until it is opened again.", func(r *reading) float64 { return yes(r.Failed != "") }),
	gauge("spillway_quiet", "1 while the database is at rest and writers wait.", func(r *reading) float64 { return yes(r.Quiet) }),
	gauge("spillway_file_bytes", "Size of the data file.", func(r *reading) float64 { return float64(r.FileBytes) }),
	gauge("spillway_allocated_bytes", "Blocks in use, in bytes.", func(r *reading) float64 { return float64(r.AllocatedBlocks) * float64(r.BlockSize) }),
	gauge("spillway_newest_lsn", "Number of the newest commit.", func(r *reading) float64 { return float64(r.NewestLSN) }),
	gauge("spillway_durable_lsn", "Number of the newest commit that is durable.", func(r *reading) float64 { return float64(r.DurableLSN) }),
	gauge("spillway_redo_lsn", "Number of the commit from which recovery would begin.", func(r *reading) float64 { return float64(r.RedoLSN) }),
	gauge("spillway_last_commit_timestamp_seconds", "Time of the newest commit, Unix time.", func(r *reading) float64 { return unix(r.LastCommit) }),

	perLevel("spillway_level_used_bytes", "How much of a level is used.", func(_ *reading, l mvcc.Level) float64 { return float64(l.Used) }),
	perLevel("spillway_level_limit_bytes", "Limit of a level; 0: none.", func(_ *reading, l mvcc.Level) float64 { return float64(l.Limit) }),
	perLevel("spillway_level_peak_bytes", "Most that a level held since the database was opened.", func(_ *reading, l mvcc.Level) float64 { return float64(max(l.Peak, l.Used)) }),
	ofLevels("spillway_level_age_seconds", "Of a level that is an age: how old.", func(l mvcc.Level) (float64, bool) { return time.Duration(l.Used).Seconds(), l.Unit == mvcc.UnitAge }),
	ofLevels("spillway_level_age_limit_seconds", "Of a level that is an age: its limit; 0: none.", func(l mvcc.Level) (float64, bool) { return time.Duration(l.Limit).Seconds(), l.Unit == mvcc.UnitAge }),
	ofLevels("spillway_level_state", "State of a level by how full it is: 0 normal, 1 low, 2 high, 3 critical.", func(l mvcc.Level) (float64, bool) { return stateNumber(l.State), true }),
	ofLevels("spillway_level_time_state", "State of a level by how soon it will be full at the present rate: 0 normal, 1 low, 2 high, 3 critical.", func(l mvcc.Level) (float64, bool) {
		return stateNumber(l.TimeState), l.TimeState != ""
	}),
	ofLevels("spillway_level_time_to_full_seconds", "When a level is full at the present rate; missing while it does not fill.", func(l mvcc.Level) (float64, bool) {
		return l.TimeToFull.Seconds(), l.TimeToFull > 0
	}),

	{"spillway_commit_waits_total", "Times that commits waited, by what for.", prometheus.CounterValue, []string{"for"}, func(r *reading, out func(float64, ...string)) {
		out(float64(r.LogWaits), "log_space")
		out(float64(r.DirtyWaits), "dirty_limit")
		out(float64(r.IndexWaits), "index")
		out(float64(r.PacedWaits), "pacing")
	}},
	counter("spillway_log_commits_total", "Commits made durable.", func(r *reading) float64 { return float64(r.Log.Commits) }),
	counter("spillway_log_syncs_total", "Syncs of the log.", func(r *reading) float64 { return float64(r.Log.Syncs) }),
	counter("spillway_log_written_bytes_total", "Bytes written to the log.", func(r *reading) float64 { return float64(r.Log.WrittenBytes) }),
	gauge("spillway_log_sync_max_seconds", "Longest sync of the log since the database was opened.", func(r *reading) float64 { return r.Log.SyncMax.Seconds() }),
	{"spillway_log_held_bytes", "Log that is kept only for a holder, by holder.", prometheus.GaugeValue, []string{"holder"}, func(r *reading, out func(float64, ...string)) {
		sum := map[string]int64{} // names may come twice
		for _, h := range r.Holders {
			sum[h.Name] += h.Bytes
		}
		for name, n := range sum {
			out(float64(n), name)
		}
	}},

	gauge("spillway_originals", "Originals kept for snapshots now.", func(r *reading) float64 { return float64(r.Originals.Originals) }),
	counter("spillway_originals_made_total", "Originals kept for snapshots.", func(r *reading) float64 { return float64(r.Originals.OriginalsMade) }),
	counter("spillway_originals_shared_total", "Originals that several wanted from the start.", func(r *reading) float64 { return float64(r.Originals.OriginalsShared) }),
	counter("spillway_spilled_blocks_total", "Blocks written to temporary storage.", func(r *reading) float64 { return float64(r.Cache.Spilled) }),
	counter("spillway_snapshots_broken_total", "Snapshots and backups that were broken.", func(r *reading) float64 { return float64(r.Originals.SnapshotsBroken) }),
	gauge("spillway_readers", "Open reader snapshots.", func(r *reading) float64 { return float64(r.Readers) }),
	gauge("spillway_oldest_snapshot_age_seconds", "Age of the oldest open snapshot, backups included.", func(r *reading) float64 {
		oldest := time.Duration(0)
		for _, s := range r.Snapshots {
			oldest = max(oldest, r.now.Sub(s.Opened))
		}
		return oldest.Seconds()
	}),
	{"spillway_frames", "Blocks in memory, by what they are.", prometheus.GaugeValue, []string{"class"}, func(r *reading, out func(float64, ...string)) {
		out(float64(r.Cache.Clean), "clean")
		out(float64(r.Cache.Dirty), "dirty")
		out(float64(r.Cache.Originals), "original")
		out(float64(r.Cache.Private), "private")
	}},
	counter("spillway_evicted_blocks_total", "Blocks that left memory.", func(r *reading) float64 { return float64(r.Cache.Evicted) }),

	gauge("spillway_backups_live", "Backups that run.", func(r *reading) float64 { return float64(len(r.Backups)) }),
	perBackup("spillway_backup_progress_ratio", "How far a live backup is, 0 to 1.", func(_ *reading, b mvcc.BackupStatus) float64 { return b.Share }),
	perBackup("spillway_backup_read_bytes", "What a live backup has read.", func(_ *reading, b mvcc.BackupStatus) float64 { return float64(b.Bytes) }),
	perBackup("spillway_backup_bytes_per_second", "How fast a live backup read over the last ten seconds.", func(_ *reading, b mvcc.BackupStatus) float64 { return float64(b.BytesPerSecond) }),
	perBackup("spillway_backup_held_bytes", "Originals that a live backup still wants.", func(_ *reading, b mvcc.BackupStatus) float64 { return float64(b.HeldBytes) }),
	perBackup("spillway_backup_age_seconds", "How long a live backup has been running.", func(r *reading, b mvcc.BackupStatus) float64 { return r.now.Sub(b.Opened).Seconds() }),

	{"spillway_repository_up", "1 if the repository could be read, 0 if it could not.", prometheus.GaugeValue, nil, func(r *reading, out func(float64, ...string)) {
		if r.repo != nil {
			out(yes(r.repo.Error == ""))
		}
	}},
	ofRepository("spillway_repository_backups", "Backups in the repository.", func(r *reading) (float64, bool) { return float64(r.repo.Backups), true }),
	ofRepository("spillway_repository_newest_backup_timestamp_seconds", "Commit time that the newest sound backup is exact at, Unix time; missing if there is none.", func(r *reading) (float64, bool) {
		return unix(r.repo.Committed), !r.repo.Committed.IsZero()
	}),
	ofRepository("spillway_repository_archived_lsn", "Commit that the archived log reaches to; missing without an archive.", func(r *reading) (float64, bool) {
		return float64(r.repo.ArchivedTo), r.repo.Archived
	}),
	ofRepository("spillway_unprotected_seconds", "Age of the oldest commit that would be lost with the database's disk; missing without a sound backup.", func(r *reading) (float64, bool) {
		v := watch.View{Time: r.now, LastCommit: r.LastCommit, Repository: r.repo}
		age, known := v.AtRisk()
		return age.Seconds(), known
	}),
}
