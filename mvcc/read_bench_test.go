package mvcc

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// BenchmarkReadFromDisk is a read of a block that no frame has, of real files that the
// system has in memory: beside nobody, and beside snapshots that hold 100,000 originals
// among them, which is what each such read is asked about.
func BenchmarkReadFromDisk(b *testing.B) {
	const originals = 100_000
	for _, snapshots := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("snapshots=%d", snapshots), func(b *testing.B) {
			dir := b.TempDir()
			temp := filepath.Join(dir, "temp")
			ok(b, os.Mkdir(temp, 0o700))
			s, err := Open(filepath.Join(dir, "db"), Options{
				FS: vfs.OS, MaxRAM: 16 << 20, Durability: DurableNever, Temp: []TempDir{{Path: temp, BytesMax: 2 << 30}}, CloseWait: -1,
			})
			ok(b, err)
			ids := manyOnDisk(b, s, originals)
			var readers []*ReadTx
			for i := range snapshots {
				readers = append(readers, beginRead(b, s))
				each := originals / snapshots
				changeAll(b, s, ids[i*each:(i+1)*each])
			}
			settle(b, s)
			rng, r := rand.New(rand.NewPCG(1, 1)), beginRead(b, s)
			b.ResetTimer()
			for range b.N {
				v, err := r.Block(ids[rng.IntN(len(ids))])
				ok(b, err)
				v.Release()
			}
			b.StopTimer()
			r.Close()
			for i, r := range readers {
				v, err := r.Block(ids[i]) // it still has what it held
				ok(b, err)
				v.Release()
				r.Close()
			}
			ok(b, s.Close())
		})
	}
}

// manyOnDisk allocates n blocks, a thousand in a commit.
func manyOnDisk(b *testing.B, s *Store, n int) (ids []block.ID) {
	b.Helper()
	for len(ids) < n {
		tx, err := s.BeginWrite()
		ok(b, err)
		for range 1000 {
			v, err := tx.Alloc(block.TypeLeaf)
			ok(b, err)
			ids = append(ids, v.ID())
			v.Release()
		}
		_, err = tx.Commit()
		ok(b, err)
	}
	return ids
}

// changeAll changes blocks, a hundred in a commit.
func changeAll(b *testing.B, s *Store, ids []block.ID) {
	b.Helper()
	for at := 0; at < len(ids); at += 100 {
		tx, err := s.BeginWrite()
		ok(b, err)
		for _, id := range ids[at : at+100] {
			v, err := tx.Edit(id)
			ok(b, err)
			v.Payload()[9]++
			v.Release()
		}
		_, err = tx.Commit()
		ok(b, err)
	}
}
