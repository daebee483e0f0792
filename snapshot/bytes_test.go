package snapshot

import (
	"runtime"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// TestL9_BytesOfAnOriginal: what an original without a frame takes is small, and the
// budget was asked for twice what of it is on the Go heap, in whatever order they
// came, however many share them, and while they go.
func TestL9_BytesOfAnOriginal(t *testing.T) {
	if slower > 1 {
		t.Skip("the race detector has its own bytes")
	}
	const originals = 200_000
	for _, run := range []struct {
		backups int
		step    int // from one block to the next; prime to the number of originals
	}{{0, 1}, {1, 77_777}, {2, 1}} {
		n := newNaive(t, 1)
		n.reader(10)
		for range run.backups {
			n.openBackup()
		}
		n.set.Advance(99)
		before := heapBytes()
		for i := range originals {
			n.inPlace(block.ID(i*run.step%originals), 5, 20)
		}
		n.compareBytes(before, originals)
		for _, b := range n.backups { // each is done with nine in ten, at random
			for id := range block.ID(originals) {
				if n.rng.IntN(10) > 0 {
					l := n.cache.Latch(id)
					b.Done(id)
					l.Unlock()
				}
			}
			n.compareBytes(before, originals)
		}
		n.end()
		if st := n.cache.Stats(); st.Index != 0 || st.LentBytes != 0 {
			t.Fatalf("left: %+v", st)
		}
	}
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (n *naive) compareBytes(before int64, originals int) {
	n.t.Helper()
	heap := heapBytes() - before
	st := n.cache.Stats()
	per := func(bytes int64) float64 { return float64(bytes) / float64(originals) }
	pages := st.Index * 4096
	n.t.Logf("%d backups: %.1f bytes in pages, %.1f on the heap, %.1f asked for", len(n.backups), per(pages), per(heap), per(st.LentBytes))
	if most := float64(blockcache.EntryBytes) + 1; per(pages) > most {
		n.t.Errorf("%.1f bytes in pages for each original, at most %.1f", per(pages), most)
	}
	if most := float64(12 * (1 + len(n.backups))); per(heap) > most {
		n.t.Errorf("%.1f bytes on the heap for each original, at most %.1f", per(heap), most)
	}
	if 2*heap > st.LentBytes+1<<20 {
		n.t.Errorf("%d bytes on the heap, and %d were asked for", heap, st.LentBytes)
	}
}
