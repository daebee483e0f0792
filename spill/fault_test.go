package spill

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestS6_FaultAtEachOperation fails each operation of a script once, in each
// way, with one directory and with two. Whatever happens: what was stored comes
// back or fails typed, counters are exact at each step and return to zero, and
// with a second directory nothing is refused.
func TestS6_FaultAtEachOperation(t *testing.T) {
	for _, dirs := range []int{1, 2} {
		for _, fault := range []simfs.Fault{
			{Err: errNoSpace}, {Err: errNoSpace, Short: true},
			{Err: errIO}, {Err: errIO, Short: true}, {Err: errIO, Late: true},
			{Err: errIO, Sticky: true},
		} {
			fault.Ops = simfs.OpRead | simfs.OpWrite | simfs.OpTruncate | simfs.OpAllocate | simfs.OpPunch | simfs.OpClose
			if seen := sweep(t, dirs, fault); seen < 25 {
				t.Errorf("the script has %d operations only", seen)
			}
		}
	}
}

// sweep lets more and more operations pass, to the script's end.
func sweep(t *testing.T, dirs int, fault simfs.Fault) (seen int) {
	for ; ; fault.Skip++ {
		disk := simfs.New()
		for _, name := range []string{"/a", "/b"} {
			if err := disk.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		armed := disk.Fail(fault)
		runFaultScript(t, disk, dirs, fault.Sticky)
		if armed.Seen() <= fault.Skip {
			return armed.Seen()
		}
	}
}

func runFaultScript(t *testing.T, disk *simfs.FS, dirs int, sticky bool) {
	s, err := Open(Options{
		FS: disk, BlockSize: 4096, Encrypt: true,
		Dirs: []Dir{{Path: "/a", BytesMax: 40 << 20}, {Path: "/b", BytesMax: 40 << 20}}[:dirs],
	})
	if err != nil {
		t.Fatal(err)
	}
	m := newStoreModel(t, rand.New(rand.NewPCG(1, 2)), s)
	m.faulty = true
	for range 2 {
		if err := m.write(90); err != nil && dirs == 2 && !sticky {
			t.Fatalf("one directory works, and yet: %v", err)
		}
		m.check()
		m.readSome(4)
		m.free(80)
		m.check()
		s.trim()
	}
	m.finish()
	_ = s.Close() // may be what fails
	if open := disk.OpenFiles(); len(open) > 0 {
		t.Fatalf("%v still open", open)
	}
	if used := disk.UsedBytes(); used > 0 {
		t.Fatalf("%d bytes held", used)
	}
}

// TestL10_FailedDirectoryKeepsWhatItHolds breaks one of two directories for
// writing, then the other.
func TestL10_FailedDirectoryKeepsWhatItHolds(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 8 << 20}, {Path: "b", BytesMax: 8 << 20}}})
	vs := versions(256)
	slots := mustWrite(t, s, vs)

	bad := map[string]bool{"a": true}
	disk.setFault(func(op string, _ int, dir string) error {
		if op == "write" && bad[dir] {
			return errIO
		}
		return nil
	})
	more := mustWrite(t, s, vs)
	for _, slot := range more {
		if slot.dir() == 0 {
			t.Fatalf("slot %v is in the directory that failed", slot)
		}
	}
	var failure *IOError
	st := s.Stats()
	if st.Dirs[0].State != StateFailed || !errors.As(st.Dirs[0].Failure, &failure) || failure.Dir != "a" || failure.Op != "write" {
		t.Fatalf("%+v", st.Dirs[0])
	}

	bad["b"] = true
	for range 2 { // it does not turn into "full" (T08), nor heal
		n, err := s.Write(items(vs, 4096), make([]Slot, len(vs)))
		if n != 0 || !errors.As(err, &failure) || !errors.Is(err, errIO) {
			t.Fatalf("wrote %d: %v", n, err)
		}
	}
	bad["a"], bad["b"] = false, false
	if n, err := s.Write(items(vs, 4096), make([]Slot, len(vs))); n != 0 || !errors.Is(err, errIO) {
		t.Fatalf("a failed directory took %d writes: %v", n, err)
	}
	for i, v := range vs {
		mustRead(t, s, slots[i], v)
		mustRead(t, s, more[i], v)
	}
	s.Free(slots...)
	s.Free(more...)
	mustBeEmpty(t, s)
}

// TestT08_FailureIsToldFromFull has one directory full and one that fails with
// items left over.
func TestT08_FailureIsToldFromFull(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 256 << 10}, {Path: "b", BytesMax: 8 << 20}}})
	disk.setFault(func(op string, _ int, dir string) error {
		if op == "write" && dir == "b" {
			return errShort
		}
		return nil
	})
	slots := make([]Slot, 100)
	var failure *IOError
	n, err := s.Write(items(versions(100), 4096), slots)
	if n != 64 || !errors.As(err, &failure) || failure.Dir != "b" {
		t.Fatalf("wrote %d: %v", n, err)
	}
	if _, err := s.Write(items(versions(1), 4096), slots[n:]); err != ErrFull {
		t.Fatalf("a is full, b failed before: %v", err)
	}
	s.Free(slots[:n]...)
	if st := s.Stats(); st.UsedBytes != 0 || st.UsedBytesPeak != 64*4096 {
		t.Fatalf("%+v", st)
	}
}

func TestFailedReadIsTypedAndStopsWrites(t *testing.T) {
	for _, fault := range []error{errIO, errShort} {
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}})
		vs := versions(2)
		slots := mustWrite(t, s, vs)
		disk.failAt(disk.ops, fault)
		var failure *IOError
		err := s.Read(slots[0], vs[0].id, vs[0].lsn, make([]byte, 4096))
		if !errors.As(err, &failure) || failure.Op != "read" || errors.Is(err, block.ErrCorrupt) {
			t.Fatal(err)
		}
		mustRead(t, s, slots[1], vs[1])
		if _, err := s.Write(items(vs, 4096), make([]Slot, 2)); !errors.As(err, &failure) {
			t.Fatal(err)
		}
	}
}

func TestFailedOpenLeavesNothingOpen(t *testing.T) {
	disk := newMemDisk(1 << 40)
	disk.failAt(1, errIO)
	_, err := Open(Options{FS: disk, BlockSize: 4096, Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}, {Path: "b", BytesMax: 1 << 20}}})
	if !errors.Is(err, errIO) || disk.open != 0 {
		t.Fatalf("%d files open: %v", disk.open, err)
	}
}
