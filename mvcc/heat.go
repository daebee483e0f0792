package mvcc

import (
	"cmp"
	"slices"
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// # Which blocks change most
//
// A backup hands out early what changes often: what it has in hand makes no original
// (L3). So the store counts changes by block, at all times, in a table of a fixed
// 64 KiB, where the marks of the changed-block map are raised.
//
// The table has sets of 8 entries, a line of the processor's cache each; a block's
// number says which set. A block that has an entry counts in it. One that has none
// takes a count off the least entry of its set, or takes its place when that has none
// left: so what changes once does not push out what changes often. Every so many
// changes the counts of one set, in turn, are halved: a block that has rested for a
// few rounds of the table is forgotten, and an entry that stays has twice what its
// block did in one round.
//
// It is advice: an entry may be missing, late or too low, and nothing but the order
// of a backup goes by it. It counts changes, not time; in an idle database it stays
// as it is. Recovery counts what it redoes, so that after a crash it is warm.
//
// # Why by block, and not by extent
//
// Measured by handing out the blocks of a simulated database (65,536 blocks, changes
// Zipf 1.0 over blocks that are scattered at random, a changes per block while the
// backup runs, originals in hand first), in originals made, as a share of all blocks:
//
//	                   file order   hot extents of 8   hot blocks
//	a = 1/2               9.1 %           7.4 %           4.3 %
//	a = 1                15.9 %          14.1 %           9.0 %
//	a = 5                54.6 %          54.2 %          50.6 %
//	a = 5, in bursts     47.7 %          46.2 %          35.6 %   (peak 13.8, 12.6, 9.1 %)
//
// Where the blocks of an extent are hot together their entries say so, and they are
// read at once (order.go). What an extent as a whole would add is reach: a table of
// as many entries knows 8 times as many blocks. But a hot block in a cold extent, the
// rule with hashed keys, is then taken with seven that are not.
//
// # What it costs
//
// One lock for each batch of marks, and some ns for each block, no allocation: of a
// commit of four blocks without a sync, 22.5 µs of processor time, it takes 19 ns where
// the blocks have entries and 67 ns where none has, so at most 0.3 % (BenchmarkHeat, an
// AMD EPYC, the least of five runs).
const (
	heatWays    = 8
	heatSets    = 1 << heatSetBits
	heatSetBits = 10
	heatCount   = 1<<16 - 1 // an entry's count; above it stands the block
	heatIDShift = 16

	// heatAgeEvery is after how many changes the next set is aged: 16 times the
	// entries of the table make a round.
	heatAgeEvery = 16 * heatWays
)

// heat is the table. Safe for concurrent use; the lock is held for short.
type heat struct {
	mu      sync.Mutex
	entries [heatSets][heatWays]uint64
	changes uint64 // all that were counted
	aged    uint64 // sets aged
}

// touch counts a change of each block.
func (t *heat) touch(ids []block.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		set := &t.entries[uint64(id)*0x9e3779b97f4a7c15>>(64-heatSetBits)]
		touchSet(set, uint64(id)<<heatIDShift)
	}
	t.changes += uint64(len(ids))
	for ; t.changes/heatAgeEvery > t.aged; t.aged++ {
		set := &t.entries[t.aged%heatSets]
		for i, e := range set {
			set[i] = e&^heatCount | e&heatCount/2
		}
	}
}

// touchSet counts a change of the block that key stands for.
func touchSet(set *[heatWays]uint64, key uint64) {
	least := 0
	for i, e := range set {
		if (e^key)>>heatIDShift == 0 {
			if e&heatCount < heatCount {
				set[i]++
			}
			return
		}
		if e&heatCount < set[least]&heatCount {
			least = i
		}
	}
	if set[least]&heatCount == 0 {
		set[least] = key | 1
	} else {
		set[least]--
	}
}

// heatSlice is how many sets are copied under one hold of the lock, so that no commit
// waits for who asks: 4 KiB.
const heatSlice = 64

// flatShare: the load counts as flat unless the blocks that change at least twice as
// often as the mean have this part of all changes.
const flatShare = 8

// hot is the count from which on a block of n is worth coming early, and how many
// those are; none if all blocks change about equally often: then their order is chance,
// and that of the file is better. Otherwise what comes early may well be below the
// mean, as long as it is hotter than most.
func (t *heat) hot(n uint64) (least uint64, blocks int) {
	mean := t.mean(n)
	least = mean/4 + 2
	var all, clearly uint64
	t.each(func(e uint64) {
		c := e & heatCount
		if all += c; c >= 2*mean+5 { // 5 more, because small counts are chance
			clearly += c
		}
		if c >= least {
			blocks++
		}
	})
	if clearly*flatShare < all || clearly == 0 {
		return least, 0
	}
	return least, blocks
}

// hotter returns up to most blocks with a count of at least least, the hottest first.
func (t *heat) hotter(least uint64, most int) []block.ID {
	list := make([]uint64, 0, most)
	t.each(func(e uint64) {
		if e&heatCount >= least && len(list) < most {
			list = append(list, e)
		}
	})
	slices.SortFunc(list, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(b&heatCount, a&heatCount), cmp.Compare(a, b))
	})
	ids := make([]block.ID, len(list))
	for i, e := range list {
		ids[i] = block.ID(e >> heatIDShift)
	}
	return ids
}

// each calls f, without the lock, for all entries, as they are when it comes to them.
func (t *heat) each(f func(entry uint64)) {
	for from := 0; from < heatSets; from += heatSlice {
		t.mu.Lock()
		part := [heatSlice][heatWays]uint64(t.entries[from : from+heatSlice])
		t.mu.Unlock()
		for i := range part {
			for _, e := range part[i] {
				f(e)
			}
		}
	}
}

// mean is what the entry of a block would show if all of n blocks changed equally
// often.
func (t *heat) mean(n uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	const remembered = 2 * heatAgeEvery * heatSets // of a steady load, by the halving
	return min(t.changes, remembered) / max(n, 1)
}
