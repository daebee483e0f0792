package spill

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// newSimDisk is a simulated disk with one directory for temporary files.
func newSimDisk(t *testing.T) *simfs.FS {
	t.Helper()
	disk := simfs.New()
	if err := disk.Mkdir("/a", 0o700); err != nil {
		t.Fatal(err)
	}
	return disk
}

// R7: what is written while a hole is punched is not in the hole, and the file is
// never cut while it may grow.
func TestR7_WritesWhileSpaceGoesBack(t *testing.T) {
	disk := newSimDisk(t)
	var during func(op simfs.Op)
	disk.Before(func(e simfs.Event) {
		if fn := during; fn != nil && e.Op&(simfs.OpPunch|simfs.OpTruncate|simfs.OpAllocate) != 0 {
			during = nil
			fn(e.Op)
			during = fn
		}
	})
	s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "/a", BytesMax: 64 << 20}}})
	slots := mustWrite(t, s, versions(12_000))
	var more []Slot
	holes := 0
	during = func(op simfs.Op) {
		if op != simfs.OpPunch {
			if s.dirs[0].growing.TryLock() {
				t.Errorf("%v: the file may grow and shrink meanwhile", op)
				s.dirs[0].growing.Unlock()
			}
			return
		}
		holes++
		more = append(more, mustWrite(t, s, versions(3000))...) // more than is kept: it has to grow
	}
	s.Free(slots[64:6000]...)
	s.trim()
	during = nil
	if holes == 0 {
		t.Fatal("no hole was punched")
	}
	for i, slot := range more {
		mustRead(t, s, slot, versions(3000)[i%3000])
	}
	s.Free(more...)
	s.Free(slots[:64]...)
	s.Free(slots[6000:]...)
	mustBeEmpty(t, s)
}

// R7: a reservation inside the file that finds too little gives back what it took,
// and nothing behind it.
func TestR7_FailedReservationInsideTheFile(t *testing.T) {
	disk := newMemDisk(48 << 20)
	s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}})
	vs := versions(48 << 20 / 4096)
	slots := mustWrite(t, s, vs)
	const keptFrom = 11_000
	s.Free(slots[64:keptFrom]...)
	s.trim()
	disk.mu.Lock()
	disk.room = 3*4096 + 70*4096 // others took the rest: less than a growth step
	disk.mu.Unlock()
	more := 0
	for {
		n, err := s.Write(items(versions(64), 4096), make([]Slot, 64))
		if more += n; err != nil {
			break
		}
	}
	if disk.room > 70*4096 || more < 64 {
		t.Fatalf("%d bytes of room left, %d blocks written", disk.room, more)
	}
	for _, i := range []int{0, 63, keptFrom, keptFrom + 100, len(vs) - 1} {
		mustRead(t, s, slots[i], vs[i])
	}
}

// R7: holes that were punched end "full", as a cut tail does.
func TestR7_PunchedSpaceEndsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(16 << 20)
		s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}})
		slots := mustWrite(t, s, versions(16<<20/4096))
		s.Free(slots[64:2000]...)
		s.trim()
		disk.mu.Lock()
		disk.room = 0
		disk.mu.Unlock()
		if _, err := s.Write(items(versions(2000), 4096), make([]Slot, 2000)); err != ErrFull {
			t.Error(err)
		}
		s.Free(slots[2000:4000]...) // no time passes
		s.trim()
		if disk.room == 0 {
			t.Error("no hole was punched")
		}
		n := int(disk.room/4096) + growBytes/4096
		if n, err := s.Write(items(versions(n), 4096), make([]Slot, n)); err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
		s.Close()
	})
}

// No use counter, and so no nonce, is used twice with the key, also where a
// write failed half way: what it left in the file was encrypted with them.
func TestEncryptedUsesAreNeverRepeated(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{FS: disk, Encrypt: true, Dirs: []Dir{{Path: "a", BytesMax: 8 << 20}, {Path: "b", BytesMax: 8 << 20}}})
	failed := false
	disk.setFault(func(op string, _ int, _ string) error {
		if op == "write" && !failed {
			failed = true
			return errShort
		}
		return nil
	})
	mustWrite(t, s, versions(500))
	seen := map[[useSize]byte]bool{}
	for _, f := range disk.files {
		for _, page := range f.pages {
			use := [useSize]byte(page[4096-useSize:])
			if use == [useSize]byte{} {
				continue // reserved, not written
			}
			if seen[use] {
				t.Fatalf("use %x is there twice", use)
			}
			seen[use] = true
		}
	}
	if len(seen) <= 500 {
		t.Fatalf("%d slots written: the failed write left none", len(seen))
	}
}

// R17: each run's writeback is started, in the order of writing, and every
// cacheTailBytes the whole file is asked for. A write carries at most what the
// staging buffer holds (L9).
func TestR17_EveryRunIsDropped(t *testing.T) {
	for _, size := range []int{4096, 64 << 10} {
		disk := newSimDisk(t)
		type span struct{ off, n int64 }
		var last span
		var wholes, bytes int64
		disk.Trace(func(e simfs.Event) {
			switch {
			case e.Op == simfs.OpWrite:
				if last != (span{}) {
					t.Errorf("%+v is not dropped before the next write", last)
				}
				if last = (span{e.Off, e.Len}); e.Len > stageBytes {
					t.Errorf("a write of %d bytes", e.Len)
				}
				bytes += e.Len
			case e.Op == simfs.OpDropCache && e.Off == 0 && e.Len >= 64<<20:
				wholes++
			case e.Op == simfs.OpDropCache && last == (span{e.Off, e.Len}):
				last = span{}
			}
		})
		s := mustOpen(t, Options{FS: disk, BlockSize: size, Dirs: []Dir{{Path: "/a", BytesMax: 64 << 20}}})
		mustWrite(t, s, versions(20<<20/size))
		if wholes != bytes/cacheTailBytes || last != (span{}) {
			t.Errorf("%d sweeps for %d bytes", wholes, bytes)
		}
	}
}

// Trimming begins at twice what it leaves: a store whose use goes up and down by
// less does not trim and grow in turn.
func TestTrimHasHysteresis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}})
		slots := mustWrite(t, s, versions(8192))
		disk.setFault(func(op string, _ int, _ string) error {
			if op == "punch" || op == "truncate" || op == "allocate" {
				t.Errorf("%s in a steady state", op)
			}
			return nil
		})
		n := 3 * growBytes / 2 / 4096
		for range 3 {
			s.Free(slots[len(slots)-n:]...)
			waitForTrim()
			copy(slots[len(slots)-n:], mustWrite(t, s, versions(n)))
		}
		disk.setFault(nil)
		s.Close()
	})
}

// A write that failed leaves nothing held: what was reserved for it goes back by
// itself.
func TestFailedWriteHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}})
		disk.setFault(func(op string, _ int, _ string) error {
			if op == "write" {
				return errIO
			}
			return nil
		})
		if _, err := s.Write(items(versions(10), 4096), make([]Slot, 10)); !errors.Is(err, errIO) {
			t.Error(err)
		}
		waitForTrim()
		if held := disk.files[0].taken(); held != 0 {
			t.Errorf("%d bytes held for nothing", held)
		}
		s.Close()
	})
}

// L10: a directory that has failed is not grown any more.
func TestL10_FailedDirectoryDoesNotGrow(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}, {Path: "b", BytesMax: 64 << 20}}})
	fail := true
	disk.setFault(func(op string, _ int, dir string) error {
		if dir == "a" && op == "write" && fail {
			fail = false
			return errIO
		}
		if dir == "a" && op == "allocate" && !fail {
			t.Error("space is reserved in a directory that takes no writes")
		}
		return nil
	})
	mustWrite(t, s, versions(5000))
}

// Close waits for calls in flight: they end well or are refused.
func TestClose_WithCallsInFlight(t *testing.T) {
	for range 30 {
		s := mustOpen(t, Options{FS: newSimDisk(t), Dirs: []Dir{{Path: "/a", BytesMax: 64 << 20}}})
		var workers, started sync.WaitGroup
		started.Add(4)
		for range 4 {
			workers.Go(func() {
				vs, dst := versions(70), make([]byte, 4096)
				slots := make([]Slot, len(vs))
				for i := 0; ; i++ {
					_, err := s.Write(items(vs, 4096), slots)
					if i == 0 {
						started.Done()
					}
					if err == nil {
						err = s.Read(slots[69], vs[69].id, vs[69].lsn, dst)
					}
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					s.Free(slots...)
				}
			})
		}
		started.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		workers.Wait()
	}
}

// A directory that cannot punch holes is asked once.
func TestWithoutHolesAskedOnce(t *testing.T) {
	disk := newMemDisk(1 << 40)
	asked := 0
	disk.setFault(func(op string, _ int, _ string) error {
		if op == "punch" {
			asked++
			return errors.ErrUnsupported
		}
		return nil
	})
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
	slots := mustWrite(t, s, versions(12_000))
	s.Free(slots[:11_000]...)
	for range 3 {
		s.trim()
	}
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
}
