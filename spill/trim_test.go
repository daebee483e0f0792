package spill

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// waitForTrim lets the trimmer's time pass, inside a synctest bubble.
func waitForTrim() {
	time.Sleep(2 * trimDelay)
	synctest.Wait()
}

// TestHolesAndTailGoBackExactly looks at what the disk has given.
func TestHolesAndTailGoBackExactly(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
	slots := mustWrite(t, s, versions(12_000))
	file := disk.files[0]
	for _, part := range []struct{ from, to int }{{3000, 9000}, {9000, 12_000}, {64, 3000}} {
		s.Free(slots[part.from:part.to]...)
		s.trim()
		st := s.Stats().Dirs[0]
		if taken := file.taken(); taken != st.FileBytes {
			t.Fatalf("stats say %d bytes, the disk gave %d", st.FileBytes, taken)
		}
		if st.FileBytes > st.UsedBytes+growBytes+2*64*4096 {
			t.Fatalf("%d bytes held for %d", st.FileBytes, st.UsedBytes)
		}
	}
	for i, v := range versions(64) {
		mustRead(t, s, slots[i], v)
	}
	s.Free(slots[:64]...)
	mustBeEmpty(t, s)
	if file.taken() != 0 || file.size != 0 {
		t.Fatalf("%d bytes held, size %d", file.taken(), file.size)
	}
}

func TestWithoutHolesTheTailStillGoesBack(t *testing.T) {
	disk := newMemDisk(1 << 40)
	disk.setFault(func(op string, _ int, _ string) error {
		if op == "punch" {
			return errors.ErrUnsupported
		}
		return nil
	})
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
	slots := mustWrite(t, s, versions(12_000))
	s.Free(slots[:11_000]...)
	s.trim()
	if st := s.Stats().Dirs[0]; st.State != StateReady || st.FileBytes < 12_000*4096 {
		t.Fatalf("without holes: %+v", st)
	}
	more := mustWrite(t, s, versions(11_000))
	if size := disk.files[0].size; size > 12_000*4096+2*growBytes {
		t.Fatalf("free slots were not used again: file has %d bytes", size)
	}
	s.Free(more...)
	s.Free(slots[11_000:]...)
	mustBeEmpty(t, s)
}

// TestFailedTrimKeepsCount: what could not be given back is still held, and
// said to be.
func TestFailedTrimKeepsCount(t *testing.T) {
	for _, fault := range []error{errIO, errNoSpace} {
		for _, op := range []string{"truncate", "punch"} {
			disk := newMemDisk(1 << 40)
			s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
			slots := mustWrite(t, s, versions(8192))
			disk.setFault(func(o string, _ int, _ string) error {
				if o == op {
					return fault
				}
				return nil
			})
			s.Free(slots[1:8000]...)
			s.Free(slots[8001:]...)
			s.trim()
			s.dirs[0].mu.Lock()
			checkSpace(t, &s.dirs[0].space)
			s.dirs[0].mu.Unlock()
			st := s.Stats().Dirs[0]
			if taken := disk.files[0].taken(); taken != st.FileBytes || taken < 1<<20 {
				t.Errorf("%s, %v: stats say %d bytes, the disk gave %d", op, fault, st.FileBytes, taken)
			}
			if (st.State == StateFailed) != (fault == errIO) {
				t.Errorf("%s, %v: %+v", op, fault, st)
			}
			disk.setFault(nil)
			s.Free(slots[0], slots[8000])
			mustBeEmpty(t, s)
			if disk.files[0].taken() != 0 {
				t.Errorf("%s, %v: space was never given back", op, fault)
			}
		}
	}
}

// R7: a cut that failed leaves everything as it was: what had no space has none, and is
// not written to before some was reserved.
func TestR7_FailedCutLeavesHolesHoles(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
	slots := mustWrite(t, s, versions(64*extentSlots))
	const last = 63 * extentSlots
	s.Free(slots[extentSlots:last]...)
	s.trim() // most extents between the first and the last are holes now
	s.Free(slots[last:]...)
	d := s.dirs[0]
	classes := func() []class {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.Clone(d.space.class)
	}
	before := classes()
	if !slices.Contains(before, hole) || before[len(before)-1] != idle {
		t.Fatalf("classes %v", before)
	}
	disk.setFault(func(op string, _ int, _ string) error {
		if op == "truncate" {
			return errNoSpace
		}
		return nil
	})
	d.trimTail()
	if after := classes(); !slices.Equal(before, after) {
		t.Errorf("classes were %v, and are %v", before, after)
	}
	disk.setFault(nil)
	s.Free(slots[:extentSlots]...)
	mustBeEmpty(t, s)
}

// TestL9_MetaFollowsUse proves that maps shrink with the file.
func TestL9_MetaFollowsUse(t *testing.T) {
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 46}}, FS: newMemDisk(1 << 50)})
	fixed := s.MetaBytes()
	if fixed > stageBytes+1024 {
		t.Fatalf("%d bytes before anything is written", fixed)
	}
	sp := &s.dirs[0].space // 128 GiB, without writing them
	n := 1 << 37 / 4096 / extentSlots
	sp.reservedNow(sp.growth(n))
	if ratio := int64(1<<37) / (s.MetaBytes() - fixed); ratio < 20_000 {
		t.Errorf("maps take 1/%d of the file", ratio)
	}
	s.trim()
	if left := s.MetaBytes() - fixed; left > 1024 {
		t.Errorf("maps keep %d bytes for an empty file", left)
	}
}
