package livebackup

import (
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
)

// family is a tree of timelines as they came to be; its commits have names that
// no lineage knows of.
type family struct {
	parent []int // of timeline i; -1 of the first
	fork   []block.LSN
}

func (f *family) id(i int) block.TimelineID { return block.TimelineID{7, byte(i)} }

// commit names the commit that timeline i has at lsn.
func (f *family) commit(i int, lsn block.LSN) (timeline int, at block.LSN) {
	for f.parent[i] >= 0 && lsn <= f.fork[i] {
		i = f.parent[i]
	}
	return i, lsn
}

func (f *family) history(i int) (forks []block.Fork) {
	for ; f.parent[i] >= 0; i = f.parent[i] {
		forks = append(forks, block.Fork{Timeline: f.id(f.parent[i]), LSN: f.fork[i]})
	}
	return forks
}

func randomFamily(rng *rand.Rand) *family {
	f := &family{parent: []int{-1}, fork: []block.LSN{0}}
	for i := 1; i < 12; i++ {
		f.parent = append(f.parent, rng.IntN(i))
		f.fork = append(f.fork, block.LSN(rng.IntN(30)+1))
	}
	return f
}

// A state is held to be of a history if and only if it is: timelines and forks say
// what the commits themselves would (L14, R18).
func TestL14_R18_LineageIsTheTree(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		f := randomFamily(rng)
		for i := range f.parent {
			l := lineageOf(f.id(i), f.history(i))
			for j := range f.parent {
				for lsn := block.LSN(1); lsn <= 35; lsn++ {
					a, _ := f.commit(i, lsn)
					b, _ := f.commit(j, lsn)
					m := Manifest{Timeline: f.id(j), EndLSN: lsn}
					got, why := l.usable(&m), l.disabled(&m)
					if got != (why == "") {
						t.Fatalf("usable: %v, disabled: %q", got, why)
					}
					// A timeline's own backup at or below its fork says no more than
					// that it is on that timeline: it may be taken for another's.
					if want := a == b; got && !want || !got && want && b == j {
						t.Fatalf("LSN %v of timeline %d in the history of %d, which is %v: %v", lsn, j, i, l, got)
					}
				}
			}
		}
	}
}

// A fork that is said to be above an older one does not lift it.
func TestR18_ForksAboveOlderOnes(t *testing.T) {
	a, b, c := block.TimelineID{1}, block.TimelineID{2}, block.TimelineID{3}
	l := lineageOf(c, []block.Fork{{Timeline: b, LSN: 50}, {Timeline: a, LSN: 100}})
	if l.holds(a, 51) || !l.holds(a, 50) || !l.holds(c, 1<<63) || l.holds(block.TimelineID{4}, 1) {
		t.Fatal(l)
	}
}
