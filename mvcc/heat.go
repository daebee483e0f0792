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
// At first all are counted. When a round of the table is full (below), one of 8 on average
// is, and counts for 8: which one is next is drawn each time, 1 to 15 changes ahead. A commit
// that has none pays a comparison. If it were every eighth, and each commit changed four
// blocks, it would always be the same ones: the root, say, and never a leaf. If it were all
// blocks of some commits, a load that comes in few large commits would hardly be met.
//
// The table has sets of 8 entries, a line of the processor's cache each; a block's
// number says which set. A block that has an entry counts in it. One that has none
// takes as much off the least entry of its set, or takes its place when that has less:
// so what changes once does not push out what changes often. Every so many
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
// A comparison in a commit of which no block is counted. Counting takes the lock once for
// each batch of marks, and some ns for each block, no allocation. A commit of one record
// changes about four blocks: so one of two has a block that counts, and on average about 50
// of its 17,000 instructions are for that; while all are counted it is 200 (go run
// ./bench/limits -functions 30 cost).
const (
	heatWays    = 8
	heatSets    = 1 << heatSetBits
	heatSetBits = 10
	heatCount   = 1<<16 - 1 // an entry's count; above it stands the block
	heatIDShift = 16
	heatWeight  = 8 // of a change that counts, when not all do

	// heatAgeEvery is after how many changes the next set is aged: 16 times the
	// entries of the table make a round.
	heatAgeEvery = 16 * heatWays
)

// heat is the table. Safe for concurrent use, but for changed; the lock is held for short.
type heat struct {
	skip int    // changes that are passed by before the next one that counts
	draw uint64 // random; this and skip are those of who calls changed

	mu      sync.Mutex
	entries [heatSets][heatWays]uint64
	changes uint64 // all of them, as far as those that count tell
	aged    uint64 // sets aged
}

// changed is told of changes of blocks and counts some. One goroutine at a time calls it:
// the writer, or recovery.
func (t *heat) changed(ids []block.ID) {
	if len(ids) <= t.skip {
		t.skip -= len(ids)
		return
	}
	t.sample(ids)
}

// sample counts changes, and draws how many are passed by after each.
func (t *heat) sample(ids []block.ID) {
	t.mu.Lock()
	at := t.skip
	for at < len(ids) {
		weight := t.weight()
		t.touch(ids[at], weight)
		t.draw = t.draw*6364136223846793005 + 1442695040888963407
		at += 1 + int(t.draw>>32*(2*weight-1)>>32)
	}
	t.mu.Unlock()
	t.skip = at - len(ids)
}

// weight is for how many changes one counts. mu is held.
func (t *heat) weight() uint64 {
	if t.aged < heatSets {
		return 1
	}
	return heatWeight
}

// touch counts changes of a block. mu is held.
func (t *heat) touch(id block.ID, changes uint64) {
	set := &t.entries[uint64(id)*0x9e3779b97f4a7c15>>(64-heatSetBits)]
	touchSet(set, uint64(id)<<heatIDShift, changes)
	for t.changes += changes; t.changes/heatAgeEvery > t.aged; t.aged++ {
		set := &t.entries[t.aged%heatSets]
		for i, e := range set {
			set[i] = e&^heatCount | e&heatCount/2
		}
	}
}

// touchSet counts changes of the block that key stands for.
func touchSet(set *[heatWays]uint64, key, changes uint64) {
	least := 0
	for i, e := range set {
		if (e^key)>>heatIDShift == 0 {
			set[i] = key | min(e&heatCount+changes, heatCount)
			return
		}
		if e&heatCount < set[least]&heatCount {
			least = i
		}
	}
	if n := set[least] & heatCount; n < changes {
		set[least] = key | (changes - n)
	} else {
		set[least] -= changes
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
	mean, weight := t.mean(n)
	least = mean/4 + 2*weight
	var all, clearly uint64
	t.each(func(e uint64) {
		c := e & heatCount
		if all += c; c >= 2*mean+5*weight { // 5 more, because small counts are chance
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
// often; weight is what one change counts now.
func (t *heat) mean(n uint64) (mean, weight uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const remembered = 2 * heatAgeEvery * heatSets // of a steady load, by the halving
	return min(t.changes, remembered) / max(n, 1), t.weight()
}
