package livebackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// BackupOptions of Backup. The zero value is good.
type BackupOptions struct {
	// Owner and Label name the backup in the database's status and in the
	// manifest; at most 256 bytes each.
	Owner, Label string
	Compression  Compression // "": CompressionFastest
	Workers      int         // goroutines that compress; 0: two, or one on up to three CPUs
	// FullSpeed says that the backup does not rest while others write to the
	// database. It ends sooner then, and takes some of their speed.
	FullSpeed bool
	// BytesPerSecond limits what is written to the repository; 0: no limit.
	BytesPerSecond int64
	// ObjectBytes is the size at which an object is finished; 0: 64 MiB.
	ObjectBytes int64
	// GroupBytes is how much is compressed together; 0: 1 MiB. Larger is
	// smaller in the repository, and slower to read a single block from.
	GroupBytes int
	// Progress is called after each group, by one goroutine. It must be quick.
	Progress func(Progress)
}

// Progress of a backup, a verify or a restore.
type Progress struct {
	Blocks, BlocksTotal   uint64
	RawBytes, StoredBytes int64
	Elapsed               time.Duration
	Cost                  Cost // of a backup, so far
}

// Result is what Backup did.
type Result struct {
	Manifest    Manifest // as published
	BufferBytes int64    // what the backup's own buffers took in memory, at most
	Swept       int      // objects of dead runs that were removed first
}

func (o BackupOptions) withDefaults() (BackupOptions, error) {
	if o.Compression == "" {
		o.Compression = CompressionFastest
	}
	if o.Workers == 0 {
		o.Workers = min(2, (runtime.GOMAXPROCS(0)+1)/2) // the others are the writers
	}
	if o.ObjectBytes == 0 {
		o.ObjectBytes = 64 << 20
	}
	if o.GroupBytes == 0 {
		o.GroupBytes = 1 << 20
	}
	switch {
	case !o.Compression.valid():
		return o, optionError("compression %q is unknown", o.Compression)
	case o.Workers < 1 || o.Workers > 64:
		return o, optionError("workers must be 1 to 64")
	case o.BytesPerSecond < 0:
		return o, optionError("bytes per second must not be negative")
	case o.ObjectBytes < 1 || o.ObjectBytes > objectBytesMax-2*groupBytesMax:
		return o, optionError("object bytes must be 1 to about 1 GiB")
	case o.GroupBytes < 0 || o.GroupBytes > groupBytesMax:
		return o, optionError("group bytes must be at most 4 MiB")
	}
	if err := errors.Join(checkText("owner", o.Owner), checkText("label", o.Label)); err != nil {
		return o, optionError("%w", err)
	}
	return o, nil
}

// Validate returns ErrOptions, with the reason, for what Backup would refuse.
func (o BackupOptions) Validate() error {
	_, err := o.withDefaults()
	return err
}

func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOptions, fmt.Errorf(format, args...))
}

// Backup makes a full backup of src in repo. When it returns nil the backup is
// whole, durable and listed (L12). When it returns an error, or ctx ends, there
// is no such backup, and what was written is removed; a run that is killed
// leaves objects that nobody lists and the next run sweeps.
func Backup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (Result, error) {
	res, err := backup(ctx, src, repo, o)
	if err != nil {
		return res, fmt.Errorf("backup: %w", err)
	}
	return res, nil
}

func backup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (res Result, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return res, err
	}
	if res.Swept, err = Sweep(ctx, repo); err != nil {
		return res, err
	}
	heads, err := repo.heads(ctx) // before the snapshot is opened: see heads
	if err != nil {
		return res, err
	}
	started := time.Now()
	session, err := src.Open(ctx, SessionOptions{Owner: o.Owner, Label: o.Label, FullSpeed: o.FullSpeed})
	if err != nil {
		return res, fmt.Errorf("open snapshot: %w", err)
	}
	defer session.Close()
	info := session.Info()
	if err := checkInfo(info); err != nil {
		return res, err
	}
	if err := repo.bind(ctx, info.Database); err != nil {
		return res, err
	}
	if err := repo.enter(ctx, src, heads, info); err != nil {
		return res, err
	}
	r, err := repo.startRun(ctx, o, info, started)
	if err != nil {
		return res, err
	}
	r.src, r.heads = src, heads
	res.Manifest, err = r.make(ctx, session)
	res.BufferBytes = r.bufferBytes + r.setBytes + r.index.bytes()
	return res, err
}

// checkInfo refuses what a manifest could not hold.
func checkInfo(i mvcc.BackupInfo) error {
	m := manifestOf(i)
	m.Compression, m.Groups = CompressionNone, uint32(min(1, i.Blocks))
	if reason := m.invalid(); reason != "" {
		return fmt.Errorf("source says what cannot be: %s", reason)
	}
	return nil
}

func manifestOf(i mvcc.BackupInfo) Manifest {
	return Manifest{
		Kind: KindFull, Database: i.Database, Timeline: i.Timeline, History: i.History,
		LSN: i.LSN, EndLSN: i.LSN, Committed: i.Time.UTC(), RecordSum: i.RecordSum,
		BlockSize: i.BlockSize, HighWater: i.HighWater, Blocks: i.Blocks,
		RawBytes: int64(i.Blocks) * int64(i.BlockSize), StartStall: i.StartStall, Objects: []Object{},
	}
}

// startRun claims an id. From then on other runs leave its objects alone.
func (r *Repository) startRun(ctx context.Context, o BackupOptions, info mvcc.BackupInfo, started time.Time) (*run, error) {
	c, err := r.catalog(ctx)
	if err != nil {
		return nil, err
	}
	id := newBackupID(c.sequence + 1)
	host, _ := os.Hostname() // "" will do: the note is for people
	note := fmt.Sprintf("pid %d on %q since %s\n", os.Getpid(), host, started.UTC().Format(time.RFC3339))
	claim, err := r.objects.Claim(ctx, objectName(id, kindRun, 0), []byte(note))
	if err != nil {
		return nil, writeError("claim backup id", err)
	}
	run := &run{repo: r, o: o, info: info, id: id, claim: claim, started: started, seed: block.SeedOf(info.Database)}
	pace := &pacer{rate: o.BytesPerSecond}
	run.blocks = &objectSeries{objects: r.objects, pace: pace, magic: magicBlocks, kind: kindBlocks, db: info.Database, id: id, limit: o.ObjectBytes}
	run.index.out = &objectSeries{objects: r.objects, pace: pace, magic: magicIndex, kind: kindIndex, db: info.Database, id: id, limit: o.ObjectBytes}
	return run, nil
}
