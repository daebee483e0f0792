package spill

import "math/bits"

// space says which slots of one file are free, and in which extents. It does
// no I/O and has no lock: dir.mu guards it.
//
// An extent is extentSlots slots: the unit in which file system space is
// reserved and given back, and one word of the bitmap. Each extent is in one
// class, and each class that is ever searched has a set, so that neither
// writing nor freeing looks at more than one extent (L9: cost is of what is
// used, not of what could be).
//
// Slots are handed out from one open run: it is claimed whole (its bits are
// set) and given out from its start, so that small batches follow each other
// on disk as large ones do.
type space struct {
	slots    int64    // limit
	used     []uint64 // word per extent of the file: slots in use, claimed, or past the limit
	class    []class  // of each extent of the file
	sets     [classSets]extentSet
	open     run   // claimed, and not yet handed out
	inUse    int64 // slots handed out
	reserved int64 // slots in extents that have file system space
}

const (
	extentSlots = wordBits
	// runSlotsMin is the shortest run worth a write of its own while the file
	// may still grow: shorter ones only when there is nothing else.
	runSlotsMin = 16
)

// class says what may be done with an extent.
type class uint8

const (
	hole      class = iota // has no file system space
	idle                   // has space, no slot in use
	roomy                  // some in use, and a free run of at least runSlotsMin
	cramped                // free slots in short runs only
	classSets              // classes below have a set
	full      = classSets
	leaving   = classSets + 1 // free, and being given back by the trimmer
)

func (c class) hasSpace() bool { return c != hole && c != leaving }

// extents is the number of extents of the file.
func (s *space) extents() int { return len(s.used) }

// extentsMax is the number of extents at the limit.
func (s *space) extentsMax() int { return int((s.slots + extentSlots - 1) / extentSlots) }

// slotsBelow is the number of slots in the first n extents: the last extent
// may be cut short by the limit.
func (s *space) slotsBelow(n int) int64 { return min(int64(n)*extentSlots, s.slots) }

func (s *space) slotsOf(extent int) int64 { return s.slotsBelow(extent+1) - s.slotsBelow(extent) }

// vacant is the word of an extent that has no slot in use.
func (s *space) vacant(extent int) uint64 { return ^mask(0, int(s.slotsOf(extent))) }

// mask has n bits, from bit first on.
func mask(first, n int) uint64 {
	if n == 0 {
		return 0
	}
	return ^uint64(0) >> (wordBits - n) << first
}

// take hands out at most n slots that lie behind each other and whose space is
// reserved. It does not use up short runs.
func (s *space) take(n int) (run, bool) {
	if s.open.n == 0 && !s.openIn(idle, 1) && !s.openIn(roomy, runSlotsMin) {
		return run{}, false
	}
	return s.fromOpen(n), true
}

// takeShort is take for when nothing else is left.
func (s *space) takeShort(n int) (run, bool) {
	if s.open.n == 0 && !s.openIn(cramped, 1) {
		return run{}, false
	}
	return s.fromOpen(n), true
}

func (s *space) fromOpen(n int) run {
	r := run{s.open.first, min(n, s.open.n)}
	s.open.first += int64(r.n)
	s.open.n -= r.n
	s.inUse += int64(r.n)
	return r
}

// openIn claims the first run of at least slotsMin slots in the lowest extent
// of a class. Low ones first, so that the tail becomes free.
func (s *space) openIn(c class, slotsMin int) bool {
	extent, ok := s.sets[c].first()
	if !ok {
		return false
	}
	first, n := freeRun(^s.used[extent], slotsMin)
	s.open = run{int64(extent)*extentSlots + int64(first), n}
	s.used[extent] |= mask(first, n)
	s.classify(extent)
	return true
}

// freeRun finds the first run of at least slotsMin ones, which there is.
// slotsMin is 1 or runSlotsMin.
func freeRun(free uint64, slotsMin int) (first, n int) {
	starts := free
	if slotsMin == runSlotsMin {
		starts = longRuns(free)
	}
	first = bits.TrailingZeros64(starts)
	return first, bits.TrailingZeros64(^(free >> first))
}

// longRuns has a bit where a run of runSlotsMin ones starts.
func longRuns(free uint64) uint64 {
	for n := 1; n < runSlotsMin; n *= 2 {
		free &= free >> n
	}
	return free
}

// giveBack frees what take handed out.
func (s *space) giveBack(r run) {
	extent := int(r.first / extentSlots)
	s.used[extent] &^= mask(int(r.first%extentSlots), r.n)
	s.inUse -= int64(r.n)
	s.classify(extent)
}

// free gives a slot back and reports false if it was not in use.
func (s *space) free(index int64) bool {
	if !s.isInUse(index) {
		return false
	}
	s.giveBack(run{index, 1})
	return true
}

func (s *space) isInUse(index int64) bool {
	extent := int(index / extentSlots)
	return index < s.slots && extent < len(s.used) &&
		s.used[extent]&mask(int(index%extentSlots), 1) != 0 && !s.open.contains(index)
}

// closeRun gives up the open run, so that its extent can be given back.
func (s *space) closeRun() {
	if s.open.n == 0 {
		return
	}
	s.inUse += int64(s.open.n) // as if it had been handed out
	s.giveBack(s.open)
	s.open = run{}
}

// classify brings the class of an extent that has space up to date.
func (s *space) classify(extent int) {
	switch used := s.used[extent]; {
	case used == s.vacant(extent):
		s.setClass(extent, idle)
	case used == ^uint64(0):
		s.setClass(extent, full)
	case longRuns(^used) != 0:
		s.setClass(extent, roomy)
	default:
		s.setClass(extent, cramped)
	}
}

func (s *space) setClass(extent int, c class) {
	before := s.class[extent]
	if before == c {
		return
	}
	if before < classSets {
		s.sets[before].remove(extent)
	}
	if c < classSets {
		s.sets[c].add(extent)
	}
	s.class[extent] = c
	switch had, has := before.hasSpace(), c.hasSpace(); {
	case had && !has:
		s.reserved -= s.slotsOf(extent)
	case !had && has:
		s.reserved += s.slotsOf(extent)
	}
}

// growth returns the lowest extents without space, at most n that lie behind
// each other, lengthening the file's map if need be; none at the limit.
func (s *space) growth(n int) (first, count int) {
	first, ok := s.sets[hole].first()
	if !ok {
		first = s.extents()
		s.resize(min(first+n, s.extentsMax()))
	}
	for count < n && first+count < s.extents() && s.class[first+count] == hole {
		count++
	}
	return first, count
}

// holesFrom reports whether the file has no space from an extent on.
func (s *space) holesFrom(extent int) bool {
	for _, c := range s.class[extent:] {
		if c != hole {
			return false
		}
	}
	return true
}

// resize lengthens the map by holes, or cuts off extents that are leaving.
func (s *space) resize(extents int) {
	before := s.extents()
	s.used = resized(s.used, extents)
	s.class = resized(s.class, extents)
	for i := range s.sets {
		s.sets[i].resize(extents)
	}
	for e := before; e < extents; e++ {
		s.used[e] = s.vacant(e)
		s.sets[hole].add(e) // class is hole: zero
	}
}

// reservedNow makes holes usable.
func (s *space) reservedNow(first, count int) {
	for e := first; e < first+count; e++ {
		s.setClass(e, idle)
	}
}

func (s *space) metaBytes() int64 {
	n := int64(cap(s.used))*8 + int64(cap(s.class))
	for i := range s.sets {
		n += s.sets[i].metaBytes()
	}
	return n
}
