package spill

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

// checkSpace proves everything that the comments of space promise.
func checkSpace(t testing.TB, s *space) {
	t.Helper()
	var inUse, reserved int64
	counts := [classSets]int{}
	for e, c := range s.class {
		if s.used[e]&s.vacant(e) != s.vacant(e) {
			t.Fatalf("extent %d: a slot past the limit is free", e)
		}
		taken := int64(bits.OnesCount64(s.used[e] &^ s.vacant(e)))
		if !c.hasSpace() && taken != 0 {
			t.Fatalf("extent %d has no space and %d slots in use", e, taken)
		}
		inUse += taken
		if c < classSets {
			counts[c]++
		}
		if c.hasSpace() {
			reserved += s.slotsOf(e)
			s.classify(e)
			if s.class[e] != c {
				t.Fatalf("extent %d is of class %d, want %d", e, c, s.class[e])
			}
		}
	}
	for c := range s.sets {
		if s.sets[c].count != counts[c] {
			t.Fatalf("set %d has %d members, want %d", c, s.sets[c].count, counts[c])
		}
	}
	if inUse != s.inUse+int64(s.open.n) || reserved != s.reserved || s.reserved > s.slots {
		t.Fatalf("in use %d+%d, want %d; reserved %d, want %d; limit %d",
			s.inUse, s.open.n, inUse, s.reserved, reserved, s.slots)
	}
}

// TestL9_SpaceNeverHandsOutTwiceNorPastLimit runs random takes, frees, growth
// and trimming against a plain set of slots.
func TestL9_SpaceNeverHandsOutTwiceNorPastLimit(t *testing.T) {
	r := newRand(t)
	for range 60 {
		m := spaceModel{t: t, r: r, s: &space{slots: 1 + r.Int64N(1000)}, live: map[int64]bool{}}
		for range 400 {
			m.step()
			checkSpace(t, m.s)
		}
		m.fill()
		checkSpace(t, m.s)
	}
}

type spaceModel struct {
	t    *testing.T
	r    *rand.Rand
	s    *space
	live map[int64]bool
}

func (m *spaceModel) step() {
	switch m.r.IntN(8) {
	case 0, 1:
		m.take((*space).take)
	case 2:
		m.take((*space).takeShort)
	case 3:
		m.s.reservedNow(m.s.growth(1 + m.r.IntN(4)))
	case 4:
		if index := m.r.Int64N(m.s.slots + 100); m.s.free(index) != m.live[index] {
			m.t.Fatalf("slot %d: free disagrees, in use is %v", index, m.live[index])
		} else {
			delete(m.live, index)
		}
	case 5, 6:
		m.freeSome(m.r.IntN(100))
	case 7:
		m.trim()
	}
}

func (m *spaceModel) take(take func(*space, int) (run, bool)) bool {
	n := 1 + m.r.IntN(80)
	r, ok := take(m.s, n)
	if ok && (r.n < 1 || r.n > n) {
		m.t.Fatalf("asked for %d slots, got %d", n, r.n)
	}
	for i := range int64(r.n) {
		if m.live[r.first+i] || r.first+i >= m.s.slots {
			m.t.Fatalf("slot %d handed out twice, or past the limit %d", r.first+i, m.s.slots)
		}
		m.live[r.first+i] = true
	}
	return ok
}

func (m *spaceModel) freeSome(n int) {
	for index := range m.live {
		if n--; n < 0 {
			return
		}
		if !m.s.free(index) {
			m.t.Fatalf("slot %d is in use and cannot be freed", index)
		}
		delete(m.live, index)
	}
}

// trim does to the map what trim.go does to map and file.
func (m *spaceModel) trim() {
	d := &dir{space: *m.s, blockSize: 4096}
	if m.r.IntN(2) == 0 {
		first, _ := d.detachTail()
		d.space.resize(first)
	} else {
		for _, e := range d.detachIdle() {
			d.space.setClass(e, hole)
		}
	}
	*m.s = d.space
}

// fill takes all there is: every slot of the limit must come, however
// scattered the free ones are.
func (m *spaceModel) fill() {
	for m.take((*space).take) || m.grow() || m.take((*space).takeShort) {
	}
	if m.s.inUse != m.s.slots || int64(len(m.live)) != m.s.slots {
		m.t.Fatalf("full at %d slots (%d by the model), limit %d", m.s.inUse, len(m.live), m.s.slots)
	}
}

func (m *spaceModel) grow() bool {
	first, n := m.s.growth(16)
	m.s.reservedNow(first, n)
	return n > 0
}

func TestBatchesFollowEachOtherOnDisk(t *testing.T) {
	s := space{slots: 10_000}
	s.reservedNow(s.growth(20))
	next := int64(0)
	for next < 20*extentSlots {
		r, ok := s.take(7)
		if !ok || r.first != next {
			t.Fatalf("run begins at %d, want %d", r.first, next)
		}
		next += int64(r.n)
	}
}

func TestShortRunsAreTakenLast(t *testing.T) {
	s := space{slots: 10 * extentSlots}
	s.reservedNow(s.growth(1))
	s.take(extentSlots)
	for i := range int64(extentSlots) {
		if i%runSlotsMin != 0 {
			s.free(i)
		}
	}
	if _, ok := s.take(1); ok {
		t.Fatal("a short run was taken while the file can grow")
	}
	if r, ok := s.takeShort(extentSlots); !ok || r.n != runSlotsMin-1 {
		t.Fatalf("got %+v %v, want a run of %d slots", r, ok, runSlotsMin-1)
	}
	s.free(2 * runSlotsMin)
	if r, ok := s.take(extentSlots); !ok || r.n != 2*runSlotsMin-1 || r.first != runSlotsMin+1 {
		t.Fatalf("got %+v %v, want the long run", r, ok)
	}

	s = space{slots: 10 * extentSlots}
	s.reservedNow(s.growth(1))
	s.take(extentSlots)
	s.free(0)
	for i := range int64(runSlotsMin) {
		s.free(40 + i)
	}
	if r, ok := s.take(1); !ok || r.first != 40 {
		t.Fatalf("got %+v %v, want the long run behind a short one", r, ok)
	}
}
