package livebackup

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var benchBlocks = flag.Int("benchblocks", 16_000, "blocks of the database in benchmarks; 150000 for a figure")

// BenchmarkRestoreChain restores a full backup with ten incrementals of 1 % each, and a
// full backup of the same state, in turns.
func BenchmarkRestoreChain(b *testing.B) {
	dir := b.TempDir()
	store, err := mvcc.Open(filepath.Join(dir, "db"), mvcc.Options{Durability: mvcc.DurableNever})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	repo, err := OpenRepository(b.Context(), filepath.Join(dir, "repo"), RepositoryOptions{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	ids := fillStore(b, store, rng, *benchBlocks)
	take := func(o BackupOptions) Manifest {
		res, err := Backup(b.Context(), NewSource(store), repo, o)
		if err != nil {
			b.Fatal(err)
		}
		return res.Manifest
	}
	take(BackupOptions{Type: TypeFull})
	var chain Manifest
	for range 10 {
		changeStore(b, store, rng, ids, len(ids)/100)
		chain = take(BackupOptions{Type: TypeIncremental})
	}
	full := take(BackupOptions{Type: TypeFull})
	b.SetBytes(full.RawBytes)
	var took [2]time.Duration
	for n := 0; b.Loop(); n++ {
		for k := range 2 {
			i := (n + k) % 2
			target := filepath.Join(dir, fmt.Sprint("new", n, i))
			began := time.Now()
			if _, err := Restore(b.Context(), repo, RestoreTarget{Backup: []BackupID{full.ID, chain.ID}[i]}, target, RestoreOptions{}); err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(began)
			if err := removeTree(vfs.OS, target); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "chain/full")
	b.ReportMetric(float64(b.N)*float64(full.RawBytes)/took[0].Seconds()/1e6, "fullMB/s")
}

// BenchmarkIncremental takes incrementals of a database of which 0.1 % of the blocks
// changed, and full backups, in turns.
func BenchmarkIncremental(b *testing.B) {
	dir := b.TempDir()
	store, err := mvcc.Open(filepath.Join(dir, "db"), mvcc.Options{Durability: mvcc.DurableNever})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	repo, err := OpenRepository(b.Context(), filepath.Join(dir, "repo"), RepositoryOptions{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	ids := fillStore(b, store, rng, *benchBlocks)
	var took [2]time.Duration
	for n := 0; b.Loop(); n++ {
		for i, kind := range []BackupType{TypeFull, TypeIncremental} {
			changeStore(b, store, rng, ids, len(ids)/1000)
			began := time.Now()
			if _, err := Backup(b.Context(), NewSource(store), repo, BackupOptions{Type: kind, FullSpeed: true}); err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(began)
		}
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "incremental/full")
}

func fillStore(b *testing.B, store *mvcc.Store, rng *rand.Rand, n int) (ids []block.ID) {
	for len(ids) < n {
		tx, err := store.BeginWrite()
		if err != nil {
			b.Fatal(err)
		}
		for range min(1000, n-len(ids)) {
			blk, err := tx.Alloc(block.TypeUser)
			if err != nil {
				b.Fatal(err)
			}
			scribble(rng, blk.Payload())
			ids = append(ids, blk.ID())
			blk.Release()
		}
		if _, err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}

func changeStore(b *testing.B, store *mvcc.Store, rng *rand.Rand, ids []block.ID, n int) {
	for n > 0 {
		tx, err := store.BeginWrite()
		if err != nil {
			b.Fatal(err)
		}
		for range min(1000, n) {
			blk, err := tx.Edit(ids[rng.IntN(len(ids))])
			if err != nil {
				b.Fatal(err)
			}
			scribble(rng, blk.Payload())
			blk.Release()
		}
		n -= min(1000, n)
		if _, err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// scribble fills half of p with what does not compress.
func scribble(rng *rand.Rand, p []byte) {
	for at := 0; at+8 <= len(p)/2; at += 8 {
		le.PutUint64(p[at:], rng.Uint64())
	}
}
