package hostmem

import (
	"math"
	"runtime"
	"testing"
)

func TestMappedMemoryIsZeroedAndWritable(t *testing.T) {
	for _, n := range []int{1, 4095, 1 << 20} {
		b, err := Map(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != n || cap(b) != n {
			t.Errorf("asked for %d bytes, got %d of %d", n, len(b), cap(b))
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("byte %d is %d", i, b[i])
			}
			b[i] = 0xff
		}
		if err := Unmap(b); err != nil {
			t.Error(err)
		}
	}
}

func TestImpossibleSizesAreErrors(t *testing.T) {
	sizes := []int{0, -1}
	if runtime.GOOS == "linux" && math.MaxInt > math.MaxInt32 {
		sizes = append(sizes, math.MaxInt) // no address space is that large
	}
	for _, n := range sizes {
		if b, err := Map(n); err == nil {
			t.Errorf("mapped %d bytes: %d", n, len(b))
		}
	}
}

func TestMappedMemoryIsOffTheHeap(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("comes from the heap on this system")
	}
	const n = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := Map(n)
	if err != nil {
		t.Fatal(err)
	}
	defer Unmap(b)
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown >= n {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// Discard must not touch what lies beside the range it was given.
func TestDiscardKeepsTheNeighbours(t *testing.T) {
	const page = 65536 // a multiple of every page size
	b, err := Map(4 * page)
	if err != nil {
		t.Fatal(err)
	}
	defer Unmap(b)
	for _, r := range []struct{ from, to int }{
		{page, 2 * page}, {page + 1, 2*page + 1}, {page - 1, 3*page - 1}, {5, 9}, {7, 7}, {0, 4 * page},
	} {
		for i := range b {
			b[i] = 1
		}
		if err := Discard(b[r.from:r.to]); err != nil {
			t.Fatal(err)
		}
		for i, c := range b {
			if inside := i >= r.from && i < r.to; c != 1 && !inside {
				t.Fatalf("discarding %v changed byte %d", r, i)
			}
		}
		if runtime.GOOS == "linux" && r.to-r.from >= 2*page && b[2*page] != 0 {
			t.Errorf("discarding %v kept a page", r)
		}
	}
	if err := Unmap(b[:page]); err == nil && runtime.GOOS == "linux" {
		t.Error("unmapped a part")
	}
}

// TestReuse_GivesBackWhatItKept: as many as are asked for are kept, for who maps as much.
func TestReuse_GivesBackWhatItKept(t *testing.T) {
	const n = 1 << 16
	if err := Reuse(1); err != nil {
		t.Fatal(err)
	}
	var maps [2][]byte
	for i := range maps {
		b, err := Map(n)
		if err != nil {
			t.Fatal(err)
		}
		b[7] = byte(i + 1)
		maps[i] = b
	}
	first := &maps[0][0]
	for _, b := range maps {
		if err := Unmap(b); err != nil {
			t.Fatal(err)
		}
	}
	other, err := Map(2 * n)
	if err != nil || len(other) != 2*n {
		t.Fatalf("%d bytes, %v", len(other), err)
	}
	again, err := Map(n)
	if err != nil || &again[0] != first || again[7] != 1 {
		t.Fatalf("not the one that was kept: %v", err)
	}
	for _, b := range [][]byte{again, other} { // the second finds no room
		if err := Unmap(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := Reuse(0); err != nil || len(reused.free) > 0 {
		t.Fatalf("%d are still kept, %v", len(reused.free), err)
	}
}
