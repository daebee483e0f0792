package watch

import (
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// View is a database at one moment, with what changed since some moments before.
// Lengths of time are in nanoseconds in JSON.
type View struct {
	Time time.Time `json:"time"`
	// Error says why the database could not be asked, or is "". Then the rest is as of
	// Since, when it last could.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"`

	Dir        string    `json:"dir"`
	Database   string    `json:"database"`
	Mode       string    `json:"mode"`
	Quiet      bool      `json:"quiet,omitempty"`
	Failed     string    `json:"failed,omitempty"` // why it takes no commits any more
	FileBytes  int64     `json:"file_bytes"`
	NewestLSN  block.LSN `json:"newest_lsn"`
	DurableLSN block.LSN `json:"durable_lsn"`
	LastCommit time.Time `json:"last_commit"`

	Writer     Writer      `json:"writer"`
	Levels     []Level     `json:"levels"`
	Backups    []Backup    `json:"backups"`
	Snapshots  Snapshots   `json:"snapshots"`
	Holders    []Holder    `json:"holders"`
	Repository *Repository `json:"repository,omitempty"`
	Events     []Event     `json:"events"` // the newest last

	recent []float64 // commits per second, the newest last
	fresh  int       // of Events: since the look before
}

// Writer is how writers fare. Rates and latencies are over Span: zero after the first
// look, when nothing is known of them.
type Writer struct {
	Span             time.Duration `json:"span_ns"`
	CommitsPerSecond float64       `json:"commits_per_second"`
	LatencyP50       time.Duration `json:"latency_p50_ns"`
	LatencyP99       time.Duration `json:"latency_p99_ns"`
	LatencyMax       time.Duration `json:"latency_max_ns"`
	LogWaits         float64       `json:"log_waits_per_second"`   // commits that waited for log space
	DirtyWaits       float64       `json:"dirty_waits_per_second"` // commits that waited for the cleaner
}

// Level is one of the levels that can run full.
type Level struct {
	Name       string        `json:"name"`
	Unit       string        `json:"unit"` // mvcc.UnitBytes or mvcc.UnitAge
	Used       int64         `json:"used"` // in that unit, as the next two
	Limit      int64         `json:"limit"`
	Peak       int64         `json:"peak"`
	Share      float64       `json:"share"`                     // of the limit that is used, 0 to 1 or more
	State      string        `json:"state"`                     // by how full it is
	TimeState  string        `json:"time_state"`                // by how soon it will be full
	TimeToFull time.Duration `json:"time_to_full_ns,omitempty"` // at the present rate; 0: never
	Marks      [3]float64    `json:"marks"`                     // shares at which it is low, high, critical; 0: it warns nobody
}

// amount is n in the level's unit, for people.
func (l *Level) amount(n int64) string {
	if l.Unit == mvcc.UnitAge {
		return whole(time.Duration(n))
	}
	return human.Bytes(n)
}

// worst is the state that deserves more attention, and in words.
func (l *Level) worst() (state, words string) {
	state, byTime := mvcc.WorstState(l.State, l.TimeState)
	if byTime {
		return state, state + " soon"
	}
	return state, state
}

// Backup is a live backup.
type Backup struct {
	ID               uint64        `json:"id"`
	Owner            string        `json:"owner"`
	Label            string        `json:"label"`
	Incremental      bool          `json:"incremental"`
	LSN              block.LSN     `json:"lsn"`
	Age              time.Duration `json:"age_ns"`
	Bytes            int64         `json:"bytes"`       // handed out
	TotalBytes       int64         `json:"total_bytes"` // 0: not known
	Share            float64       `json:"share"`       // of its way, 0 to 1
	BytesPerSecond   int64         `json:"bytes_per_second"`
	TimeLeft         time.Duration `json:"time_left_ns,omitempty"` // 0: not known yet
	HeldBytes        int64         `json:"held_bytes"`
	Rung             string        `json:"rung"`
	LimitBytesPerSec int64         `json:"rate_limit_bytes_per_second,omitempty"` // asked for with "pace"
	Forecast         string        `json:"forecast,omitempty"`
}

// Snapshots sums up the readers.
type Snapshots struct {
	Readers   int           `json:"readers"`
	OldestAge time.Duration `json:"oldest_age_ns"` // of all snapshots
	HeldBytes int64         `json:"held_bytes"`    // of originals, by all together
}

// Holder is one who keeps log.
type Holder struct {
	Name      string `json:"name"`
	HeldBytes int64  `json:"held_bytes"`
	Commits   uint64 `json:"commits_behind"`
}

// Repository is how the backups of the database are.
type Repository struct {
	Error      string              `json:"error,omitempty"`
	Backups    int                 `json:"backups"`
	Newest     livebackup.BackupID `json:"newest,omitzero"`
	Kind       string              `json:"kind,omitempty"`
	State      livebackup.State    `json:"state,omitempty"`
	Committed  time.Time           `json:"committed"` // what the newest sound one is exact at
	Archived   bool                `json:"archived"`  // there is archived log
	ArchivedTo block.LSN           `json:"archived_to_lsn"`
	Until      time.Time           `json:"archived_until"` // commit time of ArchivedTo

	database string // whose it is; "" if that is not known
}

// Event is something that happened.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"`
	Severity string    `json:"severity"` // as a level's state: mvcc.StateNormal and so on
	Text     string    `json:"text"`
}

// AtRisk is how old the oldest commit is that would be lost with the database's disk
// now, and whether there is a repository that could tell.
func (v *View) AtRisk() (time.Duration, bool) {
	r := v.Repository
	if r == nil || r.Error != "" || r.Newest.IsZero() { // archived log alone leads nowhere
		return 0, false
	}
	safe := r.Committed
	if r.Until.After(safe) {
		safe = r.Until
	}
	if !v.LastCommit.After(safe) {
		return 0, true
	}
	return max(v.Time.Sub(safe), v.LastCommit.Sub(safe)), true // commits do not go back with a clock
}
