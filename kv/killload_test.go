//go:build unix

package kv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

func init() {
	beChild("writers", func(dir string) error { return writersMain(dir, mvcc.DurableCommit) })
	beChild("writers that do not sync", func(dir string) error { return writersMain(dir, mvcc.DurableNever) })
}

// What the process that is killed works on, below one directory.
func killDB(dir string) string   { return filepath.Join(dir, "db") }
func killRepo(dir string) string { return filepath.Join(dir, "repository") }
func killTemp(dir string) string { return filepath.Join(dir, "temp") }

const (
	killWriters = 4
	killKeep    = 40 // keys that a writer keeps
)

// killOptions have every part of the store at work: little RAM, and a log that
// is recycled all the time.
func killOptions(dir string) kv.Options {
	return kv.Options{Store: mvcc.Options{
		MaxRAM: 2 << 20, LogBytesMax: mvcc.LogBytesMin,
		Temp: []mvcc.TempDir{{Path: killTemp(dir), BytesMax: 64 << 20}}, AllowMemoryTemp: true,
	}}
}

// writersMain writes, reads and backs up until it is killed. It says every
// commit and every backup that was acknowledged, in a line, after that.
func writersMain(dir string, durable mvcc.Durability) error {
	fmt.Println("opening")
	o := killOptions(dir)
	o.Store.Durability = durable
	db, err := kv.Open(killDB(dir), o)
	if err != nil {
		return err
	}
	fmt.Println("open")
	counts, err := countsOf(db)
	if err != nil {
		return err
	}
	failed := make(chan error)
	commits := newTicker()
	for w := range killWriters {
		go func() { failed <- writeAlways(db, w, counts[w], commits) }()
	}
	go func() { failed <- readAlways(db, commits) }()
	go func() { failed <- backUpAlways(db, dir) }()
	return <-failed
}

// ticker counts the commits of a process. A reader that waits for some of them costs
// the process nothing meanwhile.
type ticker struct {
	mu     sync.Mutex
	ticked sync.Cond
	ticks  int
}

func newTicker() *ticker {
	t := &ticker{}
	t.ticked.L = &t.mu
	return t
}

func (t *ticker) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ticks++
	t.ticked.Broadcast()
}

// await waits for so many ticks more.
func (t *ticker) await(ticks int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for due := t.ticks + ticks; t.ticks < due; {
		t.ticked.Wait()
	}
}

// writeAlways goes on behind commit n of writer w.
func writeAlways(db *kv.DB, w int, n uint64, commits *ticker) error {
	for n++; ; n++ {
		if err := db.Update(func(tx *kv.Tx) error { return killCommit(tx, w, n) }); err != nil {
			return err
		}
		fmt.Println("commit", w, n)
		commits.tick()
		if n%7 == 0 {
			if err := spoil(db, w); !errors.Is(err, errSpoilt) {
				return fmt.Errorf("a transaction that was rolled back returns %w", err)
			}
		}
	}
}

var errSpoilt = errors.New("spoilt")

// spoil does what must leave no trace.
func spoil(db *kv.DB, w int) error {
	return db.Update(func(tx *kv.Tx) error {
		if err := tx.DeleteBucket(killBucket(w)); err != nil {
			return err
		}
		b, err := tx.CreateBucket(killBucket(w))
		if err != nil {
			return err
		}
		return errors.Join(b.Put([]byte("spoilt"), make([]byte, 50_000)), errSpoilt)
	})
}

func killBucket(w int) []byte { return fmt.Appendf(nil, "writer %d", w) }

func killKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte("key"), n) }

// killValue is what commit n of a writer puts: from nothing to some blocks.
func killValue(w int, n uint64) []byte {
	size := []uint64{0, 30, 900, 5000, 30_000}[n%5] + n%11
	return bytes.Repeat(fmt.Appendf(nil, "%d/%d;", w, n), int(size/4+1))[:size]
}

var (
	killCount = []byte("count")
	killTotal = []byte("total")
)

// killCommit is commit n of a writer: it puts one key, deletes an old one, and
// counts itself, in its own bucket and over all.
func killCommit(tx *kv.Tx, w int, n uint64) error {
	b, err := tx.CreateBucketIfNotExists(killBucket(w))
	if err != nil {
		return err
	}
	if err := b.Put(killKey(n), killValue(w, n)); err != nil {
		return err
	}
	if n > killKeep {
		if err := b.Delete(killKey(n - killKeep)); err != nil {
			return err
		}
	}
	if err := b.Put(killCount, binary.BigEndian.AppendUint64(nil, n)); err != nil {
		return err
	}
	all, err := tx.CreateBucketIfNotExists(killTotal)
	if err != nil {
		return err
	}
	total, err := numberIn(all, killTotal)
	if err != nil {
		return err
	}
	return all.Put(killTotal, binary.BigEndian.AppendUint64(nil, total+1))
}

// numberIn is the number at a key, 0 if there is none.
func numberIn(b *kv.Bucket, key []byte) (uint64, error) {
	v, err := b.Get(key)
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s is %x", key, v)
	}
	return binary.BigEndian.Uint64(v), nil
}

// countsOf proves that what is there is exactly what some number of commits of
// each writer left, in the order in which they were made.
func countsOf(db *kv.DB) (counts [killWriters]uint64, err error) {
	err = db.View(func(tx *kv.Tx) error {
		counts, err = countsIn(tx)
		return err
	})
	return counts, err
}

func countsIn(tx *kv.Tx) (counts [killWriters]uint64, err error) {
	sum := uint64(0)
	for w := range counts {
		b, err := tx.Bucket(killBucket(w))
		if errors.Is(err, kv.ErrBucketNotFound) {
			continue
		}
		if err != nil {
			return counts, err
		}
		if counts[w], err = numberIn(b, killCount); err != nil {
			return counts, err
		}
		if err := proveWriter(b, w, counts[w]); err != nil {
			return counts, fmt.Errorf("writer %d after commit %d: %w", w, counts[w], err)
		}
		sum += counts[w]
	}
	if sum == 0 {
		return counts, nil
	}
	all, err := tx.Bucket(killTotal)
	if err != nil {
		return counts, err
	}
	if total, err := numberIn(all, killTotal); total != sum || err != nil {
		return counts, fmt.Errorf("%d commits in all, %v of the writers: %w", total, counts, err)
	}
	return counts, nil
}

// proveWriter proves that a writer's bucket is that of n commits.
func proveWriter(b *kv.Bucket, w int, n uint64) error {
	at := max(n, killKeep) - killKeep // the last one that was deleted
	for e, err := range b.All() {
		if err != nil {
			return err
		}
		if bytes.Equal(e.Key, killCount) {
			continue
		}
		at++
		if !bytes.Equal(e.Key, killKey(at)) || !bytes.Equal(e.Value, killValue(w, at)) {
			return fmt.Errorf("at %q, %d bytes, where commit %d is due", e.Key, len(e.Value), at)
		}
	}
	if at != n {
		return fmt.Errorf("commits behind %d are missing", at)
	}
	return nil
}

// readAlways keeps snapshots, each for some commits, so that there are originals.
func readAlways(db *kv.DB, commits *ticker) error {
	for {
		err := db.View(func(tx *kv.Tx) error {
			first, err := countsIn(tx)
			if err != nil {
				return err
			}
			commits.await(1 + rand.IntN(20))
			again, err := countsIn(tx)
			if err == nil && again != first {
				err = fmt.Errorf("a snapshot has changed: %v, then %v", first, again)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
}

// backUpAlways makes one backup after the other, slowly enough to be killed in
// the middle of most.
func backUpAlways(db *kv.DB, dir string) error {
	ctx := context.Background()
	repo, err := livebackup.OpenRepository(ctx, killRepo(dir), livebackup.RepositoryOptions{Create: true})
	if err != nil {
		return err
	}
	for {
		res, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, killBackup(4<<20))
		if err != nil {
			return err
		}
		fmt.Println("backup", res.Manifest.ID)
	}
}

// killBackup makes a backup of several objects.
func killBackup(bytesPerSecond int64) livebackup.BackupOptions {
	return livebackup.BackupOptions{
		Compression: livebackup.CompressionNone, BytesPerSecond: bytesPerSecond,
		ObjectBytes: 256 << 10, GroupBytes: 32 << 10,
	}
}
