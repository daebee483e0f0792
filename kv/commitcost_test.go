package kv_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// BenchmarkCommitCost is a commit of one record of many, without a backup and beside
// one that lasts. The directory bench/limits runs it in this tree and in an older one:
// so this file needs nothing of the other files here.
func BenchmarkCommitCost(b *testing.B) {
	for _, c := range []struct {
		name   string
		backup bool
	}{{"idle", false}, {"backup", true}} {
		b.Run(c.name, func(b *testing.B) { commitCost(b, c.backup) })
	}
}

const commitCostRecords = 500_000

func commitCost(b *testing.B, backup bool) {
	commit, end := commitCostDB(b, backup)
	b.ReportAllocs()
	cpu := cpuTime()
	for b.Loop() {
		commit()
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	end()
}

// commitCostDB makes a database, and begins a backup of it that lasts if one is wanted. commit
// changes one record, end proves that the backup lasted and closes all.
func commitCostDB(t testing.TB, backup bool) (commit, end func()) {
	fail := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	db, err := kv.Open(t.TempDir(), kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever, MaxRAM: 1 << 30, LogBytesMax: 1 << 30}})
	fail(err)
	value, name := make([]byte, 100), []byte("records")
	put := func(tx *kv.Tx, i uint64) error {
		bk, err := tx.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(value, i)
		return bk.Put(binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15), value)
	}
	for i := uint64(0); i < commitCostRecords; {
		fail(db.Update(func(tx *kv.Tx) (err error) {
			for end := i + 1000; i < end && err == nil; i++ {
				err = put(tx, i)
			}
			return err
		}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if backup {
		repo, err := livebackup.OpenRepository(ctx, t.TempDir(), livebackup.RepositoryOptions{Create: true})
		fail(err)
		began := make(chan struct{}, 1)
		go func() {
			_, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, livebackup.BackupOptions{
				Type: livebackup.TypeFull, Compression: livebackup.CompressionNone, BytesPerSecond: 1 << 20,
				Progress: func(livebackup.Progress) {
					select {
					case began <- struct{}{}:
					default:
					}
				},
			})
			ended <- err
		}()
		<-began
	} else {
		ended <- nil
	}
	rng := rand.New(rand.NewPCG(1, 1))
	commit = func() {
		fail(db.Update(func(tx *kv.Tx) error { return put(tx, rng.Uint64N(commitCostRecords)) }))
	}
	return commit, func() {
		cancel()
		if err := <-ended; err == nil && backup {
			t.Fatal("the backup did not last")
		}
		fail(db.Close())
	}
}
