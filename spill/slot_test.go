package spill

import "testing"

func TestSlotKeepsItsFields(t *testing.T) {
	r := newRand(t)
	for range 10_000 {
		dir, index, use := r.IntN(dirsMax), r.Int64N(slotsMax), r.Uint64()
		s := makeSlot(dir, index, use)
		if s == 0 || s.dir() != dir || s.index() != index || uint64(s)&(1<<useBits-1) != use&(1<<useBits-1) {
			t.Fatalf("%d:%d use %#x became %#x", dir, index, use, uint64(s))
		}
		if index > 0 && makeSlot(dir, index-1, use+1) > s {
			t.Fatalf("slots do not sort by place at %v", s)
		}
	}
	if Slot(0).dir() != -1 || Slot(0).String() != "none" {
		t.Fatal("the zero slot is a place")
	}
}
