package bench

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// Spillway is this engine.
type Spillway struct{}

// Name is "spillway".
func (Spillway) Name() string { return "spillway" }

var bucketName = []byte("bench")

// Open opens a database with one bucket.
func (Spillway) Open(dir string, c Config) (DB, error) {
	o := kv.Options{Store: mvcc.Options{MaxRAM: c.RAMBytesMax, LogBytesMax: c.LogBytesMax}}
	if c.NeverSync {
		o.Store.Durability = mvcc.DurableNever
	}
	if c.TempBytesMax > 0 {
		o.Store.Temp = []mvcc.TempDir{{Path: dir, BytesMax: c.TempBytesMax}}
	}
	db, err := kv.Open(dir, o)
	if err != nil {
		return nil, err
	}
	d := &spillwayDB{db}
	if err := d.makeBucket(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

type spillwayDB struct{ db *kv.DB }

func (d *spillwayDB) makeBucket() error {
	err := d.db.View(func(tx *kv.Tx) error {
		_, err := tx.Bucket(bucketName)
		return err
	})
	if !errors.Is(err, kv.ErrBucketNotFound) {
		return err
	}
	return d.db.Update(func(tx *kv.Tx) error {
		_, err := tx.CreateBucket(bucketName)
		return err
	})
}

func (d *spillwayDB) view(fn func(*kv.Bucket) error) error {
	return d.db.View(func(tx *kv.Tx) error {
		b, err := tx.Bucket(bucketName)
		if err != nil {
			return err
		}
		return fn(b)
	})
}

func (d *spillwayDB) Get(key []byte, use func(value []byte)) error {
	return d.view(func(b *kv.Bucket) error {
		value, err := b.Get(key)
		switch {
		case err != nil:
			return err
		case value == nil:
			return fmt.Errorf("key %x is missing", key)
		}
		use(value)
		return nil
	})
}

func inBucket(fn func(Writer) error) func(*kv.Tx) error {
	return func(tx *kv.Tx) error {
		b, err := tx.Bucket(bucketName)
		if err != nil {
			return err
		}
		return fn(b)
	}
}

func (d *spillwayDB) Update(fn func(Writer) error) error { return d.db.Update(inBucket(fn)) }
func (d *spillwayDB) Batch(fn func(Writer) error) error  { return d.db.Batch(inBucket(fn)) }

func (d *spillwayDB) Scan(use func(key, value []byte)) error {
	return d.view(func(b *kv.Bucket) error {
		return b.Scan(nil, nil, func(key, value []byte) error {
			use(key, value)
			return nil
		})
	})
}

func (d *spillwayDB) Walk(use func(key, value []byte)) error {
	return d.view(func(b *kv.Bucket) error {
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			use(k, v)
		}
		return c.Err()
	})
}

func (d *spillwayDB) BeginRead() (io.Closer, error) {
	tx, err := d.db.Begin(false)
	if err != nil {
		return nil, err
	}
	return closerFunc(tx.Rollback), nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// Backup makes a repository in o.Dir and a full backup in it.
func (d *spillwayDB) Backup(ctx context.Context, o BackupOptions) (BackupResult, error) {
	repo, err := livebackup.OpenRepository(ctx, o.Dir, livebackup.RepositoryOptions{Create: true})
	if err != nil {
		return BackupResult{}, err
	}
	options := livebackup.BackupOptions{Type: livebackup.TypeFull, Owner: "bench", BytesPerSecond: o.BytesPerSecond}
	if o.Compression != "" {
		options.Compression = livebackup.Compression(o.Compression)
	} else if !o.Compress {
		options.Compression = livebackup.CompressionNone
	}
	before := d.snapshotsBroken()
	res, err := livebackup.Backup(ctx, livebackup.NewSource(d.db.Store()), repo, options)
	if err != nil && ctx.Err() == nil && d.snapshotsBroken() > before {
		return BackupResult{Broken: err.Error()}, nil
	}
	return BackupResult{StoredBytes: res.Manifest.StoredBytes}, err
}

func (d *spillwayDB) snapshotsBroken() uint64 {
	return d.db.Store().Status().Originals.SnapshotsBroken
}

func (d *spillwayDB) Gauges() Gauges {
	s := d.db.Store().Status()
	g := Gauges{
		DataBytes:         s.FileBytes,
		LogLiveBytes:      s.Log.LiveBytes,
		LogBytes:          s.Log.LiveBytes + s.Log.HeldBytes + s.Log.SpareBytes,
		LogPrewritten:     s.Log.PrewrittenBytes,
		LogWaits:          s.LogWaits,
		DirtyWaits:        s.DirtyWaits,
		OriginalsMade:     int64(s.Originals.OriginalsMade),
		SnapshotsBroken:   int64(s.Originals.SnapshotsBroken),
		SyncNanosecondMax: s.Log.SyncMax.Nanoseconds(),
	}
	for _, l := range s.Levels {
		switch l.Name {
		case mvcc.LevelRAM:
			g.RAMPeak = l.Peak
		case mvcc.LevelTemporary:
			g.TempUsed, g.TempPeak = l.Used, l.Peak
		case mvcc.LevelOverflow:
			g.OverflowUsed, g.OverflowPeak = l.Used, l.Peak
		}
	}
	return g
}

func (d *spillwayDB) Close() error { return d.db.Close() }
