package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/spillwaydb/spillway/bench"
)

// bolt is bbolt, with its default options but one.
type bolt struct{}

// mapBytes is how much address space is mapped from the start. Where the file
// outgrows its mapping bbolt waits for all readers: with readers that stay open,
// and a writer that waits for them, for ever.
const mapBytes = 64 << 30

func (bolt) Name() string { return "bbolt" }

func bucketName() []byte { return []byte("bench") }

func (bolt) Open(dir string, c bench.Config) (bench.DB, error) {
	o := *bbolt.DefaultOptions
	o.NoSync, o.NoGrowSync = c.NeverSync, c.NeverSync
	o.InitialMmapSize = mapBytes
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o600, &o)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName())
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltDB{db, c.NeverSync}, nil
}

type boltDB struct {
	db        *bbolt.DB
	neverSync bool
}

func (d *boltDB) Get(key []byte, use func(value []byte)) error {
	return d.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketName()).Get(key)
		if value == nil {
			return fmt.Errorf("key %x is missing", key)
		}
		use(value)
		return nil
	})
}

func inBucket(fn func(bench.Writer) error) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return fn(tx.Bucket(bucketName())) }
}

func (d *boltDB) Update(fn func(bench.Writer) error) error { return d.db.Update(inBucket(fn)) }
func (d *boltDB) Batch(fn func(bench.Writer) error) error  { return d.db.Batch(inBucket(fn)) }

// Scan is the cursor, which lends.
func (d *boltDB) Scan(use func(key, value []byte)) error {
	return d.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketName()).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			use(k, v)
		}
		return nil
	})
}

// Walk is Scan: bbolt has no form that copies.
func (d *boltDB) Walk(use func(key, value []byte)) error { return d.Scan(use) }

func (d *boltDB) BeginRead() (io.Closer, error) {
	tx, err := d.db.Begin(false)
	if err != nil {
		return nil, err
	}
	return readTx{tx}, nil
}

type readTx struct{ tx *bbolt.Tx }

func (r readTx) Close() error { return r.tx.Rollback() }

// Backup writes the whole file, from a read transaction.
func (d *boltDB) Backup(ctx context.Context, o bench.BackupOptions) (r bench.BackupResult, err error) {
	f, err := os.Create(filepath.Join(o.Dir, "bolt.db"))
	if err != nil {
		return r, err
	}
	defer f.Close()
	sink := bufio.NewWriterSize(&pacedWriter{ctx, f, o.BytesPerSecond, time.Now()}, 256<<10)
	err = d.db.View(func(tx *bbolt.Tx) error {
		r.StoredBytes, err = tx.WriteTo(sink)
		return err
	})
	return r, errors.Join(err, sink.Flush(), f.Sync())
}

// pacedWriter writes at a rate; 0 is no limit.
type pacedWriter struct {
	ctx  context.Context
	w    io.Writer
	rate int64
	due  time.Time
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	if p.rate > 0 {
		time.Sleep(time.Until(p.due))
		p.due = p.due.Add(time.Duration(float64(len(b)) / float64(p.rate) * float64(time.Second)))
	}
	return p.w.Write(b)
}

func (d *boltDB) Gauges() bench.Gauges {
	info, err := os.Stat(d.db.Path())
	if err != nil {
		return bench.Gauges{}
	}
	return bench.Gauges{DataBytes: info.Size()}
}

// Close makes the database durable first: what is measured until it is closed
// is the same for both engines.
func (d *boltDB) Close() error {
	var err error
	if d.neverSync {
		err = d.db.Sync()
	}
	return errors.Join(err, d.db.Close())
}
