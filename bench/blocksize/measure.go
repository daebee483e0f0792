package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

const keyBytes = bench.KeyBytes

var bucketName = []byte("records")

// plan is how much of what is measured.
type plan struct {
	records, valueBytes, recordsPerTx int
	updates, reads                    int
	ramBytesMax, logBytesMax          int64
	dir                               string
}

// result of one run.
type result struct {
	loadPerSecond, loadWritten, updatePerSecond, updateWritten float64
	readPerSecond, scanPerSecond, backupBytesPerSecond         float64
	fileBytes                                                  float64
}

func mean(results []result) (m result) {
	n := float64(len(results))
	for _, r := range results {
		m.loadPerSecond += r.loadPerSecond / n
		m.loadWritten += r.loadWritten / n
		m.updatePerSecond += r.updatePerSecond / n
		m.updateWritten += r.updateWritten / n
		m.readPerSecond += r.readPerSecond / n
		m.scanPerSecond += r.scanPerSecond / n
		m.backupBytesPerSecond += r.backupBytesPerSecond / n
		m.fileBytes += r.fileBytes / n
	}
	return m
}

// measure makes a database with blocks of that size, and measures everything.
func (p plan) measure(ctx context.Context, blockSize int) (r result, err error) {
	dir, err := os.MkdirTemp(p.dir, "blocksize")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	disk := &countingFS{FS: vfs.OS}
	options := kv.Options{Store: mvcc.Options{FS: disk, BlockSize: blockSize, MaxRAM: p.ramBytesMax, LogBytesMax: p.logBytesMax}}
	inPhase := func(do func(*kv.DB) error) (written int64, err error) {
		before := disk.written.Load()
		db, err := kv.Open(filepath.Join(dir, "db"), options)
		if err != nil {
			return 0, err
		}
		err = errors.Join(do(db), db.Close())
		return disk.written.Load() - before, err
	}
	written, err := inPhase(func(db *kv.DB) error { return p.load(db, &r) })
	if err != nil {
		return r, err
	}
	r.loadWritten = p.perUserByte(written, p.records)
	if written, err = inPhase(func(db *kv.DB) error { return p.update(db, &r) }); err != nil {
		return r, err
	}
	r.updateWritten = p.perUserByte(written, p.updates)
	_, err = inPhase(func(db *kv.DB) error { return p.read(ctx, db, &r) })
	return r, err
}

func (p plan) load(db *kv.DB, r *result) error {
	order := rand.New(rand.NewPCG(1, 1)).Perm(p.records)
	value := values(p.valueBytes, 1)
	start := time.Now()
	for at := 0; at < len(order); at += p.recordsPerTx {
		some := order[at:min(at+p.recordsPerTx, len(order))]
		if err := db.Update(func(tx *kv.Tx) error { return putAll(tx, some, value) }); err != nil {
			return err
		}
	}
	r.loadPerSecond = perSecond(p.records, start)
	return nil
}

func putAll(tx *kv.Tx, records []int, value func() []byte) error {
	b, err := tx.CreateBucketIfNotExists(bucketName)
	if err != nil {
		return err
	}
	for _, i := range records {
		if err := b.Put(bench.AppendKey(nil, uint64(i)), value()); err != nil {
			return err
		}
	}
	return nil
}

// update has several writers, which share syncs as they can.
func (p plan) update(db *kv.DB, r *result) error {
	const writers = 4
	start := time.Now()
	var all sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		all.Go(func() { errs[w] = p.updateSome(db, uint64(w), p.updates/writers) })
	}
	all.Wait()
	r.updatePerSecond = perSecond(p.updates, start)
	return errors.Join(errs...)
}

func (p plan) updateSome(db *kv.DB, stream uint64, n int) error {
	rnd, value := rand.New(rand.NewPCG(2, stream)), values(p.valueBytes, 3+stream)
	for range n {
		one := []int{rnd.IntN(p.records)}
		if err := db.Update(func(tx *kv.Tx) error { return putAll(tx, one, value) }); err != nil {
			return err
		}
	}
	return nil
}

// read reads at random, in order, and as a backup does.
func (p plan) read(ctx context.Context, db *kv.DB, r *result) error {
	rnd := rand.New(rand.NewPCG(4, 4))
	start := time.Now()
	for range p.reads {
		if err := get(db, uint64(rnd.IntN(p.records))); err != nil {
			return err
		}
	}
	r.readPerSecond = perSecond(p.reads, start)
	start = time.Now()
	n, err := scan(db)
	if err != nil {
		return err
	}
	r.scanPerSecond = perSecond(n, start)
	if err := p.backup(ctx, db, r); err != nil {
		return err
	}
	r.fileBytes = float64(db.Store().Status().FileBytes)
	return nil
}

func get(db *kv.DB, i uint64) error {
	return db.View(func(tx *kv.Tx) error {
		b, err := tx.Bucket(bucketName)
		if err != nil {
			return err
		}
		value, err := b.Get(bench.AppendKey(nil, i))
		if err == nil && value == nil {
			err = fmt.Errorf("record %d is missing", i)
		}
		return err
	})
}

func scan(db *kv.DB) (n int, err error) {
	err = db.View(func(tx *kv.Tx) error {
		b, err := tx.Bucket(bucketName)
		if err != nil {
			return err
		}
		return b.Scan(nil, nil, func(_, _ []byte) error { n++; return nil })
	})
	return n, err
}

func (p plan) backup(ctx context.Context, db *kv.DB, r *result) error {
	dir, err := os.MkdirTemp(p.dir, "blocksize-repository")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	repo, err := livebackup.OpenRepository(ctx, filepath.Join(dir, "r"), livebackup.RepositoryOptions{Create: true})
	if err != nil {
		return err
	}
	start := time.Now()
	done, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo,
		livebackup.BackupOptions{Compression: livebackup.CompressionNone})
	if err != nil {
		return err
	}
	r.backupBytesPerSecond = perSecond(int(done.Manifest.StoredBytes), start)
	return nil
}

func perSecond(n int, since time.Time) float64 { return float64(n) / time.Since(since).Seconds() }

func (p plan) perUserByte(written int64, records int) float64 {
	return float64(written) / float64(records*(keyBytes+p.valueBytes))
}

// values returns a source of values, all different, which live until the next.
func values(n int, seed uint64) func() []byte {
	src := rand.NewChaCha8([32]byte{byte(seed)})
	value := make([]byte, n)
	return func() []byte {
		src.Read(value) // never fails
		return value
	}
}
