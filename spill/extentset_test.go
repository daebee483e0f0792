package spill

import (
	"maps"
	"slices"
	"testing"
)

func TestExtentSetIsASet(t *testing.T) {
	r := newRand(t)
	for _, n := range []int{1, 64, 65, 5000, 300_000} {
		var s extentSet
		s.resize(n)
		model := map[int]bool{}
		for range 3000 {
			e := r.IntN(n)
			if model[e] {
				s.remove(e)
				delete(model, e)
			} else {
				s.add(e)
				model[e] = true
			}
			if len(model) > 40 && r.IntN(2) == 0 {
				last, _ := s.last()
				s.remove(last)
				delete(model, last)
			}
			checkEnds(t, &s, model)
		}
	}
}

func checkEnds(t *testing.T, s *extentSet, model map[int]bool) {
	t.Helper()
	first, ok := s.first()
	last, ok2 := s.last()
	if ok != (len(model) > 0) || ok2 != ok || s.count != len(model) {
		t.Fatalf("%d members, %v %v; want %d", s.count, ok, ok2, len(model))
	}
	if !ok {
		return
	}
	members := slices.Sorted(maps.Keys(model))
	if first != members[0] || last != members[len(members)-1] {
		t.Fatalf("ends are %d and %d, want %d and %d", first, last, members[0], members[len(members)-1])
	}
}

func TestExtentSetReachesSlotsMax(t *testing.T) {
	reach := 1
	for range setLevels {
		reach *= wordBits
	}
	if int64(reach)*extentSlots != slotsMax {
		t.Fatalf("reaches %d slots, want %d", int64(reach)*extentSlots, int64(slotsMax))
	}
}

func TestResizedElementsAreZero(t *testing.T) {
	var s []int
	r := newRand(t)
	for range 2000 {
		before := len(s)
		s = resized(s, r.IntN(500))
		for i := before; i < len(s); i++ {
			if s[i] != 0 {
				t.Fatalf("element %d is %d after growing from %d", i, s[i], before)
			}
		}
		if cap(s) > 4*len(s)+500 {
			t.Fatalf("%d elements hold room for %d", len(s), cap(s))
		}
		for i := range s {
			s[i] = 1
		}
	}
}
