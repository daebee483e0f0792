package kv_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// The directory bench/limits has these files in this tree and in an older one, to compare
// what a commit costs: so they need nothing of the other files here.

const (
	commitCostRecords = 500_000
	commitCostFill    = 5000 // records of a transaction that fills

	// commitCostRate is how many bytes per second the sink of the backup takes: so few that it
	// lasts, and that it has hardly anything in hand however long the commits take.
	commitCostRate = 64 << 10
)

// BenchmarkCommitCost is a commit of one record of many, without a backup and beside
// one that lasts.
func BenchmarkCommitCost(b *testing.B) {
	for _, c := range []struct {
		name   string
		backup bool
	}{{"idle", false}, {"backup", true}} {
		b.Run(c.name, func(b *testing.B) {
			d := openCostDB(b)
			if c.backup {
				d.backup()
			}
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				d.commit()
			}
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
			d.close()
		})
	}
}

// TestCommitCost_Counted does what another process says that counts, bench/limits, a line
// each, and answers each with a line:
//
//	commits N   commits so often, between two marks of the thread: see markThread
//	totals      says what all commits and all else have taken by now: allocations, their
//	            bytes, ns of processor time
//	backup      begins a backup that lasts
//	end         proves that the backup lasted, and closes all
//
// The first line names the thread that commits.
func TestCommitCost_Counted(t *testing.T) {
	if os.Getenv("SPILLWAY_COST") == "" {
		t.Skip("nobody counts: go run ./bench/limits cost")
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	d := openCostDB(t)
	fmt.Printf("thread %d\n", threadID())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var n int
		switch line := lines.Text(); line {
		case "backup":
			d.backup()
			fmt.Println("begun")
		case "totals":
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Println("totals", m.Mallocs, m.TotalAlloc, int64(cpuTime()))
		case "end":
			d.close()
			return
		default:
			if _, err := fmt.Sscanf(line, "commits %d", &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			d.commits(n)
			fmt.Println("done")
		}
	}
}

// costDB is a database whose commits are counted.
type costDB struct {
	t      testing.TB
	db     *kv.DB
	value  []byte
	rng    *rand.Rand
	cancel context.CancelFunc
	ended  chan error // by the backup; nil: there is none
}

func (d *costDB) ok(err error) {
	if err != nil {
		d.t.Helper()
		d.t.Fatal(err)
	}
}

// openCostDB makes a database.
func openCostDB(t testing.TB) *costDB {
	d := &costDB{t: t, value: make([]byte, 100), rng: rand.New(rand.NewPCG(1, 1))}
	var err error
	d.db, err = kv.Open(t.TempDir(), kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever, MaxRAM: 1 << 30, LogBytesMax: 1 << 30}})
	d.ok(err)
	for i := uint64(0); i < commitCostRecords; {
		d.ok(d.db.Update(func(tx *kv.Tx) (err error) {
			for end := i + commitCostFill; i < end && err == nil; i++ {
				err = d.put(tx, i)
			}
			return err
		}))
	}
	return d
}

func (d *costDB) put(tx *kv.Tx, i uint64) error {
	bk, err := tx.CreateBucketIfNotExists([]byte("records"))
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(d.value, i)
	return bk.Put(binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15), d.value)
}

// commit changes one record.
func (d *costDB) commit() {
	d.ok(d.db.Update(func(tx *kv.Tx) error { return d.put(tx, d.rng.Uint64N(commitCostRecords)) }))
}

// commits does so n times, between two marks.
func (d *costDB) commits(n int) {
	d.ok(markThread())
	for range n {
		d.commit()
	}
	d.ok(markThread())
}

// backup begins one.
func (d *costDB) backup() {
	ctx, cancel := context.WithCancel(context.Background())
	repo, err := livebackup.OpenRepository(ctx, d.t.TempDir(), livebackup.RepositoryOptions{Create: true})
	d.ok(err)
	d.cancel, d.ended = cancel, make(chan error, 1)
	began := make(chan struct{}, 1)
	go func() {
		_, err := livebackup.Backup(ctx, livebackup.NewSource(d.db.Store()), repo, livebackup.BackupOptions{
			Type: livebackup.TypeFull, Compression: livebackup.CompressionNone, BytesPerSecond: commitCostRate,
			Progress: func(livebackup.Progress) {
				select {
				case began <- struct{}{}:
				default:
				}
			},
		})
		d.ended <- err
	}()
	<-began
}

// close proves that the backup lasted, and closes all.
func (d *costDB) close() {
	if d.ended != nil {
		d.cancel()
		if <-d.ended == nil {
			d.t.Error("the backup did not last")
		}
	}
	d.ok(d.db.Close())
}
