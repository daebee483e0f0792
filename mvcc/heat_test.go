package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// wildHeat fills the table with anything: blocks in use, freed, never allocated,
// reserved and beyond the end. It is advice, so nothing may go wrong by it.
func wildHeat(s *Store, rng *rand.Rand) {
	s.heat.mu.Lock()
	defer s.heat.mu.Unlock()
	clear(s.heat.entries[:])
	top := [...]uint64{60, 700, s.geo.group, 4 * s.geo.group}[rng.IntN(4)]
	for range rng.IntN(600) {
		set := &s.heat.entries[rng.IntN(heatSets)]
		set[rng.IntN(heatWays)] = rng.Uint64N(top)<<heatIDShift | rng.Uint64N(heatCount+1)
	}
}

// makeHot counts changes of blocks as commits would.
func makeHot(s *Store, times int, ids ...block.ID) {
	s.heat.mu.Lock()
	defer s.heat.mu.Unlock()
	for range times {
		for _, id := range ids {
			s.heat.touch(id, 1)
		}
	}
}

// next takes up to n blocks and returns their numbers.
func next(t *testing.T, b *Backup, n int) []block.ID {
	t.Helper()
	buf, ids := make([]byte, n*b.info.BlockSize), make([]block.ID, n)
	got, err := b.Next(context.Background(), buf, ids)
	if !errors.Is(err, io.EOF) {
		ok(t, err)
	}
	return ids[:got]
}

// TestL3_HotBlocksComeFirst: originals in hand, then what changes often, then the
// rest; of an incremental only what it carries.
func TestL3_HotBlocksComeFirst(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 200)
	drop(t, s, ids[120])
	base := s.newestLSN()
	set(t, s, ids[150], 1)
	set(t, s, ids[70], 1)
	settle(t, s)
	makeHot(s, 100, ids[90], ids[150], ids[120])
	makeHot(s, 200, ids[70])
	b := openBackup(t, s).b
	inc := openIncremental(t, s, base, 0).b
	set(t, s, ids[199], 1)
	if got, want := next(t, b, 1), ids[199:]; !slices.Equal(got, want) {
		t.Fatalf("first comes %v, want the original %v", got, want)
	}
	if got, want := next(t, b, 3), []block.ID{ids[70], ids[90], ids[150]}; !slices.Equal(got, want) {
		t.Fatalf("then %v, want %v: hot, and in use", got, want)
	}
	set(t, s, ids[150], 2)
	set(t, s, ids[90], 2)
	if c := b.Cost(); c.BlocksHot != 3 || c.OriginalsMade != 1 || c.OriginalsPruned != 2 {
		t.Fatalf("%+v", c)
	}
	if got, want := next(t, b, 2), []block.ID{metaBlock, offsetBitmap}; !slices.Equal(got, want) {
		t.Fatalf("then %v, want the beginning of the file", got)
	}
	if got, want := next(t, inc, 2), []block.ID{ids[150], ids[70]}; !slices.Equal(got, want) {
		t.Fatalf("the incremental begins with %v, want %v", got, want)
	}
	ok(t, b.Close())
	ok(t, inc.Close())
	mustClose(t, s)
}

// TestL3_HeatIsLookedAtAgain: what got hot while the backup runs comes before its
// group.
func TestL3_HeatIsLookedAtAgain(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	someBlocks(t, s, 30)
	var far []block.ID
	for group := range uint64(2) {
		tx, err := s.BeginWrite()
		ok(t, err)
		s.firstGroup = group + 1
		for range 40 {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			far = append(far, b.ID())
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	b := openBackup(t, s).b
	next(t, b, 5)
	makeHot(s, 100, far[75], far[20])
	rest := append(next(t, b, 200), next(t, b, 200)...)
	at := func(id block.ID) int { return slices.Index(rest, id) }
	if second := at(s.geo.bitmapOf(1)); at(far[75]) > second || at(far[20]) > second || at(far[19]) < second {
		t.Fatalf("the second group begins at %d, hot blocks come at %d and %d", second, at(far[75]), at(far[20]))
	}
	ok(t, b.Close())
	mustClose(t, s)
}

// TestL9_HotOrderIsBounded: where the budget has no room for the list the order is
// that of the file, and a backup never hands out more hot blocks than its share of
// MaxRAM allows.
func TestL9_HotOrderIsBounded(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 400)
	settle(t, s)
	for i := range s.heat.entries { // the hottest are the last
		s.heat.entries[i] = [heatWays]uint64{}
	}
	for i, id := range ids {
		s.heat.entries[i][0] = uint64(id)<<heatIDShift | uint64(10_000+i)
	}
	grab := int64(0)
	for s.Charge(64) == nil {
		grab += 64
	}
	b := openBackup(t, s).b
	if got := next(t, b, 1); got[0] != metaBlock {
		t.Fatalf("without a budget %v comes first", got)
	}
	s.Uncharge(grab)
	ok(t, b.Close())

	p := openBackup(t, s)
	ok(t, p.rest(t))
	share := int(s.opts.MaxRAM / hotShare)
	if n := p.b.Cost().BlocksHot; n == 0 || int(n)*200 > share {
		t.Fatalf("%d hot blocks, for %d bytes", n, share)
	}
	if p.images[ids[0]] == nil || len(p.images) != 402 {
		t.Fatalf("%d blocks", len(p.images))
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestL3_ErrorsAmongHotBlocks: what could not be read comes when it can be.
func TestL3_ErrorsAmongHotBlocks(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	ids := someBlocks(t, s, 60)
	mustClose(t, s)
	s = mustOpen(t, o)
	makeHot(s, 100, ids[40:50]...)
	p := openBackup(t, s)
	at := s.geo.offset(ids[44])
	ok(t, fsys.FlipBits(fileData, at+9, 1))
	for range 3 {
		var damage *block.CorruptError
		if err := p.rest(t); !errors.As(err, &damage) || damage.Block != ids[44] {
			t.Fatal(err)
		}
	}
	if len(p.images) != 4 {
		t.Fatalf("%d blocks before the one that is damaged", len(p.images))
	}
	ok(t, fsys.FlipBits(fileData, at+9, 1))
	ok(t, p.rest(t))
	if n := p.b.Cost().BlocksHot; n != 10 || len(p.images) != 62 {
		t.Fatalf("%d hot blocks of %d", n, len(p.images))
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestHeat_FindsWhatIsHot among many more blocks than it has entries, and forgets
// what has rested.
func TestHeat_FindsWhatIsHot(t *testing.T) {
	const cold, hot = 1_000_000, 500
	var h heat
	rng := rand.New(rand.NewPCG(1, 1))
	change := func(from block.ID, n int) {
		for range n {
			id := block.ID(rng.IntN(cold))
			if rng.IntN(3) == 0 {
				id = from + block.ID(rng.IntN(hot))
			}
			h.changed([]block.ID{id})
		}
	}
	found := func(from block.ID) (n int) { // among as many of the hottest
		list := h.hotter(h.hot(cold))
		for _, id := range list[:min(len(list), hot)] {
			if id >= from && id < from+hot {
				n++
			}
		}
		return n
	}
	for _, from := range []block.ID{5000, 500_000} {
		change(from, 400_000)
		if n := found(from); n < hot*9/10 {
			t.Errorf("%d of %d hot blocks were found", n, hot)
		}
	}
	change(500_000, 800_000)
	least, n := h.hot(cold)
	for _, id := range h.hotter(least, n) {
		if id >= 5000 && id < 5000+hot {
			n--
		}
	}
	if _, all := h.hot(cold); all-n > hot/10 {
		t.Errorf("%d of %d blocks count as hot and have rested", all-n, hot)
	}
}

// TestHeat_MeetsAllBlocksOfACommit alike, however many each commit changes, although not all
// changes are counted.
func TestHeat_MeetsAllBlocksOfACommit(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 8, 9, 16, 17} {
		var h heat
		ids, met := make([]block.ID, n), make([]uint64, n)
		for i := range ids {
			ids[i] = block.ID(i)
		}
		for h.aged < heatSets { // from here on not all are counted
			h.touch(1<<40, heatAgeEvery)
		}
		for commits := 0; commits*n < 60_000; commits++ {
			h.changes = h.aged * heatAgeEvery // so that nothing is aged
			h.changed(ids)
			if h.skip < 0 || h.skip >= 2*heatWeight {
				t.Fatalf("the next change that counts is %d ahead", h.skip)
			}
		}
		all := uint64(0)
		h.each(func(e uint64) {
			if id := e >> heatIDShift; e != 0 && id < uint64(n) {
				met[id] += e & heatCount
				all += e & heatCount
			}
		})
		if all < 57_000 || all > 63_000 {
			t.Errorf("60,000 changes count as %d", all)
		}
		mean := all / uint64(n)
		if least, most := slices.Min(met), slices.Max(met); least < mean*8/10 || most > mean*12/10 {
			t.Errorf("of commits of %d blocks each is counted %d to %d times, on average %d", n, least, most, mean)
		}
	}
}

// TestHeat_FlatLoadHasNoHotBlocks: a backup of a database whose blocks change
// equally often keeps to the order of the file.
func TestHeat_FlatLoadHasNoHotBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, blocks := range []int{100, 1000, 8000, 100_000} {
		var h heat
		for n := range 400_000 {
			h.changed([]block.ID{block.ID(rng.IntN(blocks))})
			if n%50_000 == 1000 {
				if _, hot := h.hot(uint64(blocks)); hot > 0 {
					t.Errorf("%d of %d blocks count as hot after %d changes", hot, blocks, n)
				}
			}
		}
	}
}

// BenchmarkHeat is what counting adds to a commit of four blocks, and such a commit,
// without a sync, for comparison.
func BenchmarkHeat(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, blocks := range []int{1000, 100_000_000} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			var h heat
			ids := make([]block.ID, 1<<16)
			for i := range ids {
				ids[i] = block.ID(rng.IntN(blocks))
			}
			b.ReportAllocs()
			for i := range b.N {
				at := 4 * i % len(ids)
				h.changed(ids[at : at+4])
			}
		})
	}
	b.Run("commit", func(b *testing.B) {
		o := smallOptions(simfs.New())
		o.Durability, o.MaxRAM, o.LogBytesMax = DurableNever, 64<<20, 0
		s := mustOpen(b, o)
		ids := someBlocks(b, s, 1000)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			tx, err := s.BeginWrite()
			ok(b, err)
			for range 4 {
				e, err := tx.Edit(ids[rng.IntN(len(ids))])
				ok(b, err)
				e.Payload()[9]++
				e.Release()
			}
			_, err = tx.Commit()
			ok(b, err)
		}
		b.StopTimer()
		ok(b, s.Close())
	})
}
