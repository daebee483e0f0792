package kv_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

const (
	benchRecords   = 1_000_000
	benchKeyBytes  = 16
	benchValueSize = 100
	benchBatch     = 1000
)

// benchKey is the i-th of a set of random keys of 16 bytes.
func benchKey(dst []byte, i uint64) []byte {
	x := i * 0x9e3779b97f4a7c15
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 32
	dst = binary.BigEndian.AppendUint64(dst, x)
	return binary.BigEndian.AppendUint64(dst, i)
}

// benchOptions leave the disk out: what is measured is this package on a warm store.
var benchOptions = kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever, MaxRAM: 2 << 30}}

var benchName = []byte("bench")

// load puts records [from, to) in transactions of benchBatch.
func load(b testing.TB, db *kv.DB, from, to int, key func(dst []byte, i uint64) []byte) {
	value := make([]byte, benchValueSize)
	for from < to {
		must(b, db.Update(func(tx *kv.Tx) error {
			bk, err := tx.CreateBucketIfNotExists(benchName)
			if err != nil {
				return err
			}
			buf := make([]byte, 0, benchKeyBytes)
			for range min(benchBatch, to-from) {
				binary.LittleEndian.PutUint64(value, uint64(from))
				if err := bk.Put(key(buf, uint64(from)), value); err != nil {
					return err
				}
				from++
			}
			return nil
		}))
	}
}

var (
	benchOnce sync.Once
	benchDB   *kv.DB // outlives the benchmark that made it
	benchDir  string // set by TestMain
)

func TestMain(m *testing.M) {
	var err error
	if benchDir, err = os.MkdirTemp("", "kv-bench"); err != nil {
		panic(err)
	}
	code := m.Run()
	if benchDB != nil {
		_ = benchDB.Close()
	}
	_ = os.RemoveAll(benchDir)
	os.Exit(code)
}

// warmDB is a database of benchRecords, made once.
func warmDB(b *testing.B) *kv.DB {
	benchOnce.Do(func() {
		var err error
		benchDB, err = kv.Open(benchDir, benchOptions)
		must(b, err)
		load(b, benchDB, 0, benchRecords, benchKey)
	})
	b.ResetTimer()
	b.ReportAllocs()
	return benchDB
}

// getInView reads a random record in a transaction of its own.
func getInView(b *testing.B, db *kv.DB, rnd *rand.Rand, buf *[benchKeyBytes]byte) {
	key := benchKey(buf[:0], rnd.Uint64N(benchRecords))
	must(b, db.View(func(tx *kv.Tx) error {
		bk, err := tx.Bucket(benchName)
		if err != nil {
			return err
		}
		v, err := bk.Get(key)
		if v == nil {
			b.Error("not found")
		}
		return err
	}))
}

func BenchmarkGetInView(b *testing.B) {
	db := warmDB(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	var buf [benchKeyBytes]byte
	for b.Loop() {
		getInView(b, db, rnd, &buf)
	}
}

// BenchmarkGetInViewParallel is the same on every processor at once.
func BenchmarkGetInViewParallel(b *testing.B) {
	db := warmDB(b)
	var readers atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		rnd := rand.New(rand.NewPCG(1, readers.Add(1)))
		var buf [benchKeyBytes]byte
		for pb.Next() {
			getInView(b, db, rnd, &buf)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	db := warmDB(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	var buf [benchKeyBytes]byte
	must(b, db.View(func(tx *kv.Tx) error {
		bk := bucket(b, tx, string(benchName))
		for b.Loop() {
			if v, err := bk.Get(benchKey(buf[:0], rnd.Uint64N(benchRecords))); v == nil {
				b.Fatal(err)
			}
		}
		return nil
	}))
}

func BenchmarkScan(b *testing.B) {
	db := warmDB(b)
	must(b, db.View(func(tx *kv.Tx) error {
		bk := bucket(b, tx, string(benchName))
		sum, n := 0, 0
		for n < b.N {
			must(b, bk.Scan(nil, nil, func(k, v []byte) error {
				sum += len(k) + len(v)
				if n++; n == b.N {
					return kv.ErrStop
				}
				return nil
			}))
		}
		return nil
	}))
}

func BenchmarkAll(b *testing.B) {
	db := warmDB(b)
	must(b, db.View(func(tx *kv.Tx) error {
		bk := bucket(b, tx, string(benchName))
		for n := 0; n < b.N; {
			for _, err := range bk.All() {
				if err != nil { // must would cost as much as the entry
					b.Fatal(err)
				}
				if n++; n == b.N {
					break
				}
			}
		}
		return nil
	}))
}

func BenchmarkCursor(b *testing.B) {
	db := warmDB(b)
	must(b, db.View(func(tx *kv.Tx) error {
		c := bucket(b, tx, string(benchName)).Cursor()
		for n := 0; n < b.N; {
			for k, _ := c.First(); k != nil && n < b.N; k, _ = c.Next() {
				n++
			}
		}
		return nil
	}))
}

func BenchmarkSeek(b *testing.B) {
	db := warmDB(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	var buf [benchKeyBytes]byte
	must(b, db.View(func(tx *kv.Tx) error {
		c := bucket(b, tx, string(benchName)).Cursor()
		for b.Loop() {
			c.Seek(benchKey(buf[:0], rnd.Uint64N(benchRecords)))
		}
		return nil
	}))
}

// BenchmarkPut is one big transaction: what a put costs above the store.
func BenchmarkPut(b *testing.B) {
	for name, key := range map[string]func([]byte, uint64) []byte{
		"random":     benchKey,
		"sequential": func(dst []byte, i uint64) []byte { return binary.BigEndian.AppendUint64(append(dst, "sequence"...), i) },
	} {
		b.Run(name, func(b *testing.B) {
			db, err := kv.Open(b.TempDir(), benchOptions)
			must(b, err)
			defer db.Close()
			b.ReportAllocs()
			value := make([]byte, benchValueSize)
			var buf [benchKeyBytes]byte
			must(b, db.Update(func(tx *kv.Tx) error {
				bk := bucket(b, tx, string(benchName))
				for i := range b.N {
					must(b, bk.Put(key(buf[:0], uint64(i)), value))
				}
				return nil
			}))
			must(b, db.View(func(tx *kv.Tx) error {
				s, err := bucket(b, tx, string(benchName)).Stats()
				b.ReportMetric(float64(s.LeafBytes)/float64(s.Leaves)/float64(s.LeafPayload), "fill")
				b.ReportMetric(float64(s.TreeHeight), "height")
				return err
			}))
		})
	}
}

// BenchmarkLoad puts records in random order, benchBatch in a transaction, into a
// database that grows to b.N records.
func BenchmarkLoad(b *testing.B) {
	db, err := kv.Open(b.TempDir(), benchOptions)
	must(b, err)
	defer db.Close()
	b.ReportAllocs()
	load(b, db, 0, b.N, benchKey)
	b.ReportMetric(float64(db.Store().Status().Log.WrittenBytes)/float64(b.N), "log-B/op")
}

func BenchmarkUpdateOne(b *testing.B) {
	db, err := kv.Open(b.TempDir(), benchOptions)
	must(b, err)
	defer db.Close()
	load(b, db, 0, 200, benchKey)
	b.ReportAllocs()
	value := make([]byte, benchValueSize)
	var buf [benchKeyBytes]byte
	i := uint64(0)
	for b.Loop() {
		key := benchKey(buf[:0], i%200)
		i++
		must(b, db.Update(func(tx *kv.Tx) error {
			bk, err := tx.Bucket(benchName)
			if err != nil {
				return err
			}
			return bk.Put(key, value)
		}))
	}
}

func BenchmarkDelete(b *testing.B) {
	db, err := kv.Open(b.TempDir(), benchOptions)
	must(b, err)
	defer db.Close()
	load(b, db, 0, b.N, benchKey)
	b.ReportAllocs()
	var buf [benchKeyBytes]byte
	b.ResetTimer()
	must(b, db.Update(func(tx *kv.Tx) error {
		bk := bucket(b, tx, string(benchName))
		for i := range b.N {
			must(b, bk.Delete(benchKey(buf[:0], uint64(i))))
		}
		return nil
	}))
}

func BenchmarkDeleteBucket(b *testing.B) {
	db := warmDB(b)
	for b.Loop() {
		wantErr(b, db.Update(func(tx *kv.Tx) error {
			must(b, tx.DeleteBucket(benchName))
			return errRollback
		}), errRollback)
	}
}
