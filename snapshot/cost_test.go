package snapshot

import (
	"slices"
	"testing"

	"github.com/google/btree"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// What something costs is counted here, not timed: whoever looks at what was
// made nil meanwhile panics.

// looksAt reports whether f panics. It lets go of the lock that f then holds.
func (n *naive) looksAt(f func()) (panicked bool) {
	defer func() {
		panicked = recover() != nil
		n.set.mu.TryLock()
		n.set.mu.Unlock()
	}()
	f()
	return false
}

// pointsSeen counts the points that f, which can be repeated, looks at.
func (n *naive) pointsSeen(f func()) (seen int) {
	for i, p := range n.set.points {
		n.set.points[i] = nil
		if n.looksAt(f) {
			seen++
		}
		n.set.points[i] = p
	}
	return seen
}

// inPlace asks about a version that costs no frame.
func (n *naive) inPlace(id block.ID, from, until block.LSN) bool {
	l := n.cache.Latch(id)
	defer l.Unlock()
	return n.set.Replaced(&blockcache.Version{ID: id, LSN: from, Until: until, InPlace: true, Role: blockcache.RolePending})
}

// TestL2_R11_CommitLooksAtFewPoints: of a thousand readers at as many LSNs, who
// wants a version is found by looking at two times eleven.
func TestL2_R11_CommitLooksAtFewPoints(t *testing.T) {
	const readers, most = 1000, 2 * 11
	n := newNaive(t, 1)
	for i := range block.LSN(readers) {
		n.reader(10 * (i + 1))
	}
	n.set.Advance(20_000)
	id := block.ID(0)
	for _, v := range []struct {
		from, until block.LSN
		wanted      bool
	}{{1, 20_000, true}, {1, 15, true}, {10_000, 20_000, true}, {5001, 5015, true}, {11_000, 12_000, false}, {5001, 5009, false}, {10_001, 20_000, false}} {
		seen := n.pointsSeen(func() {
			id++
			if got := n.inPlace(id, v.from, v.until); got != v.wanted {
				t.Errorf("version of [%v, %v): wanted %v", v.from, v.until, got)
			}
		})
		if seen > most {
			t.Errorf("version of [%v, %v): %d points were looked at, of %d", v.from, v.until, seen, readers)
		}
	}
	if seen := n.pointsSeenByAdvance(20_001); seen > most {
		t.Errorf("moving the horizon looks at %d points of %d", seen, readers)
	}
	n.end()
}

// pointsSeenByAdvance counts the points that moving the horizon on looks at,
// one at a time and each time anew. Where it panicked, its work is finished.
func (n *naive) pointsSeenByAdvance(lsn block.LSN) (seen int) {
	for i := range n.readers {
		old, p := n.set.horizon, n.set.points[i]
		n.set.points[i] = nil
		looked := n.looksAt(func() { n.set.Advance(lsn + block.LSN(i)) })
		n.set.points[i] = p
		if looked {
			seen++
			n.set.endPoint(old)
		}
	}
	return seen
}

// holders are three readers: middle alone wants own originals, others are wanted
// by first and middle, or by last.
type holders struct {
	*naive
	middle *Reader
	others []blockcache.Handle
}

func newHolders(t *testing.T, own, others int) *holders {
	h := &holders{naive: newNaive(t, 1)}
	h.reader(10)
	h.middle = h.reader(20)
	h.reader(30)
	h.set.Advance(99)
	for i := range block.ID(own + others) {
		from, until := block.LSN(15), block.LSN(25) // middle's own
		switch {
		case i >= block.ID(own) && i%2 == 0:
			from = 5
		case i >= block.ID(own):
			from, until = 25, 99
		}
		if !h.inPlace(i, from, until) {
			t.Fatalf("version of [%v, %v) is not kept", from, until)
		}
		if o, _ := h.set.index.Get(h.set.probe(i, from)); i >= block.ID(own) {
			h.others = append(h.others, o)
		}
	}
	return h
}

// TestR11_ClosingLooksAtWhatItFrees: the originals that others hold, some of
// which change hands, are not looked at.
func TestR11_ClosingLooksAtWhatItFrees(t *testing.T) {
	h := newHolders(t, 7, 5000)
	for _, o := range h.others {
		h.set.at(o).Wants = 1 << 7 // there is no such backup
	}
	if h.looksAt(func() { h.set.CloseReader(h.middle) }) {
		t.Error("an original that others want was looked at")
	}
	for _, o := range h.others {
		h.set.at(o).Wants = 0
	}
	if n := h.set.Len(); n != len(h.others) {
		t.Errorf("%d originals are kept, want %d", n, len(h.others))
	}
	h.readers = slices.DeleteFunc(h.readers, func(r *Reader) bool { return r == h.middle })
	h.end()
}

// TestR11_ClosingCostsWhatItFrees: the work in the index is that for what is
// freed, whatever is in there besides.
func TestR11_ClosingCostsWhatItFrees(t *testing.T) {
	const freeOne = 4 * 20 // comparisons, of at most 2^20 originals
	for _, own := range []int{0, 1, 100, 1000} {
		for _, others := range []int{0, 10, 10_000} {
			h := newHolders(t, own, others)
			compared := 0
			index := btree.NewG(32, func(a, b blockcache.Handle) bool {
				compared++
				return h.set.less(a, b)
			})
			h.set.index.Ascend(func(o blockcache.Handle) bool {
				index.ReplaceOrInsert(o)
				return true
			})
			h.set.index, compared = index, 0
			h.set.CloseReader(h.middle)
			if compared > own*freeOne {
				t.Errorf("freeing %d of %d originals takes %d comparisons", own, own+others, compared)
			}
			if n := index.Len(); n != others {
				t.Errorf("%d originals are kept, want %d", n, others)
			}
			h.readers = slices.DeleteFunc(h.readers, func(r *Reader) bool { return r == h.middle })
			h.end()
		}
	}
}
