package simfs

import (
	"math/rand/v2"
	"slices"
)

// fate decides, change by change, what a crash keeps.
type fate struct {
	mode Mode
	rng  *rand.Rand

	keepPercent int
	tearPercent int
	special     int  // the number of the only change kept, or lost; -1 for none
	lonely      bool // special is kept, not lost
	garbage     bool // what was extended and not written is garbage
	asked       int  // changes decided so far

	chosen *choice // decides instead of chance
}

func newFate(rng *rand.Rand, mode Mode, nodes []*node) *fate {
	f := &fate{mode: mode, rng: rng, special: -1}
	if mode != Random {
		return f
	}
	f.keepPercent = []int{10, 50, 90}[rng.IntN(3)]
	f.tearPercent = []int{0, 20, 60}[rng.IntN(3)]
	f.garbage = rng.IntN(4) == 0
	if all := decisions(nodes); all > 0 && rng.IntN(4) == 0 {
		f.special, f.lonely = rng.IntN(all), rng.IntN(2) == 0
	}
	return f
}

// decisions bounds how often keeps can be asked.
func decisions(nodes []*node) int {
	count := 0
	for _, n := range nodes {
		if n.isDir() {
			count += len(n.dir.pending)
		}
		for i := range n.pending {
			count++
			if n.pending[i].kind == changeWrite && n.pending[i].structural() {
				count++
			}
		}
	}
	return count
}

// keeps decides about the next change: that with number seq, of node id.
func (f *fate) keeps(id, seq int) bool {
	if f.chosen != nil {
		return f.chosen.keeps(id, seq)
	}
	number := f.asked
	f.asked++
	switch {
	case f.mode != Random:
		return f.mode == KeepAll
	case f.special >= 0:
		return (number == f.special) == f.lonely
	}
	return f.rng.IntN(100) < f.keepPercent
}

// keepsSize is keeps for the part of a change that is not data.
func (f *fate) keepsSize(id, seq int) bool {
	if f.chosen != nil && f.chosen.tears(seq) {
		return true
	}
	return f.keeps(id, seq)
}

// writeSectors stores those sectors of a write that reach the disk. Garbage is
// left where the write extends the file; if the longer size is lost, so is it.
func (f *fate) writeSectors(to *content, id int, c *change, detached []span) {
	reaches := f.sectors(id, c.seq, len(c.data)/sectorBytes)
	for i := 0; i*sectorBytes < len(c.data); i++ {
		off := c.off + int64(i)*sectorBytes
		lost := slices.ContainsFunc(detached, func(s span) bool { return s.touches(off, sectorBytes) })
		switch {
		case lost:
		case reaches(i):
			to.write(c.data[i*sectorBytes:(i+1)*sectorBytes], off)
		case off >= to.size && f.garbage:
			to.write(f.noise(), off)
		}
	}
}

// sectors decides which of a write's sectors reach the disk: all, none, or if
// it is torn those before a point, those behind it, or any.
func (f *fate) sectors(id, seq, count int) func(int) bool {
	if f.chosen != nil && f.chosen.tears(seq) {
		return f.chosen.reaches
	}
	kept := f.keeps(id, seq)
	if f.mode != Random || f.rng.IntN(100) >= f.tearPercent {
		return func(int) bool { return kept }
	}
	point := f.rng.IntN(count + 1)
	switch f.rng.IntN(3) {
	case 0:
		return func(i int) bool { return i < point }
	case 1:
		return func(i int) bool { return i >= point }
	}
	return func(int) bool { return f.rng.IntN(2) == 0 }
}

func (f *fate) noise() []byte {
	sector := make([]byte, sectorBytes)
	for i := range sector {
		sector[i] = byte(f.rng.Uint32())
	}
	return sector
}
