package bench

import (
	"context"
	"io"
)

// Engine opens databases of one kind.
type Engine interface {
	Name() string
	// Open opens the database in directory dir, and makes it if there is none.
	Open(dir string, c Config) (DB, error)
}

// Config is what a database is opened with. An engine that has no such thing
// ignores it.
type Config struct {
	NeverSync    bool  `json:",omitempty"` // commits do not wait for the disk
	RAMBytesMax  int64 `json:",omitempty"` // 0: the engine's default
	LogBytesMax  int64 `json:",omitempty"` // 0: the engine's default
	TempBytesMax int64 `json:",omitempty"` // temporary storage for snapshots; 0: the engine's default
}

// DB is an open database with one ordered set of keys. Safe for concurrent use,
// Close excepted.
type DB interface {
	// Get calls use with the value of key, in a read transaction of its own. The
	// value is good until use returns. A key that is missing is an error.
	Get(key []byte, use func(value []byte)) error
	// Update runs fn in a write transaction of its own and commits it.
	Update(fn func(Writer) error) error
	// Batch is Update, but the transaction may be shared with other callers.
	Batch(fn func(Writer) error) error
	// Scan calls use with every entry in order. It lends: key and value are good
	// until use returns.
	Scan(use func(key, value []byte)) error
	// Walk is Scan for entries that stay valid, if the engine has such a form.
	Walk(use func(key, value []byte)) error
	// BeginRead opens a read transaction, a snapshot, that lives until Close.
	BeginRead() (io.Closer, error)
	// Backup copies the database as of now while it is used. If the engine breaks
	// it off in the way that it declares for this, the error is nil and the result
	// says so.
	Backup(ctx context.Context, o BackupOptions) (BackupResult, error)
	// Gauges are the levels as they are now. Cheap: it is called many times a second.
	Gauges() Gauges
	Close() error
}

// Writer is a write transaction.
type Writer interface {
	// Put sets the value of key. Both must stay as they are until the
	// transaction ends: an engine need not copy them.
	Put(key, value []byte) error
}

// BackupOptions say how a backup is made.
type BackupOptions struct {
	Dir            string // exists and is empty
	Compress       bool   // as the engine does by default; it may know none
	Compression    string `json:",omitempty"` // one of the engine's ways by name, in the place of Compress
	BytesPerSecond int64  // what the sink takes; 0: what it can
}

// BackupResult says how a backup ended.
type BackupResult struct {
	Broken      string // why it was broken off; "": it is whole
	StoredBytes int64
}

// Gauges are levels of a database, in bytes. What an engine does not have is 0.
type Gauges struct {
	DataBytes         int64 // files, without the log
	LogLiveBytes      int64 // log that recovery needs
	LogBytes          int64 // log files
	LogPrewritten     int64 // log written ahead, since it was opened
	TempUsed          int64
	TempPeak          int64
	OverflowUsed      int64
	OverflowPeak      int64
	RAMPeak           int64
	LogWaits          int64 // commits that waited for log space
	DirtyWaits        int64 // commits that waited for dirty blocks to be written
	OriginalsMade     int64
	SnapshotsBroken   int64
	SyncNanosecondMax int64
}

// metrics are the gauges that help to understand an outcome.
func (g Gauges) metrics(m Metrics) {
	m["data_bytes"] = float64(g.DataBytes)
	m["log_bytes"] = float64(g.LogBytes)
	m["log_prewritten_bytes"] = float64(g.LogPrewritten)
	m["temp_peak_bytes"] = float64(g.TempPeak)
	m["overflow_peak_bytes"] = float64(g.OverflowPeak)
	m["ram_peak_bytes"] = float64(g.RAMPeak)
	m["log_waits"] = float64(g.LogWaits)
	m["dirty_waits"] = float64(g.DirtyWaits)
	m["originals_made"] = float64(g.OriginalsMade)
	m["snapshots_broken"] = float64(g.SnapshotsBroken)
	m["sync_max_ms"] = float64(g.SyncNanosecondMax) / 1e6
}
