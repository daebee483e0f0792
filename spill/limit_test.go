package spill

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestL9_LimitIsExactToTheByte fills a directory whose limit is no multiple of
// anything, frees at random, and fills it again.
func TestL9_LimitIsExactToTheByte(t *testing.T) {
	r := newRand(t)
	for range 20 {
		blocks, rest := 1+r.Int64N(700), r.Int64N(4096)
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: blocks*4096 + rest}}, FS: disk})
		m := newStoreModel(t, r, s)
		for range 4 {
			for m.write(1+r.IntN(100)) == nil {
			}
			if int64(len(m.live)) != blocks {
				t.Fatalf("full with %d blocks, limit %d", len(m.live), blocks)
			}
			if size := disk.files[0].size; size != blocks*4096 {
				t.Fatalf("file has %d bytes, limit %d", size, blocks*4096+rest)
			}
			if st := s.Stats(); st.Dirs[0].State != StateFull || st.UsedBytesPeak != blocks*4096 ||
				st.Dirs[0].UsedBytesPeak != blocks*4096 {
				t.Fatalf("at the limit: %+v", st)
			}
			m.free(int(r.Int64N(blocks + 1)))
			m.check()
		}
		m.finish()
	}
}

func TestFullWriteStoresWhatFits(t *testing.T) {
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 100 * 4096}}, FS: newMemDisk(1 << 40)})
	vs := versions(130)
	slots := make([]Slot, 130)
	n, err := s.Write(items(vs, 4096), slots)
	if n != 100 || !errors.Is(err, ErrFull) {
		t.Fatalf("wrote %d: %v", n, err)
	}
	for i := range n {
		mustRead(t, s, slots[i], vs[i])
	}
	for _, slot := range slots[n:] {
		if slot != 0 {
			t.Fatalf("slot %v without an item", slot)
		}
	}
}

func TestDirectoriesTakeTurns(t *testing.T) {
	s := mustOpen(t, Options{FS: newMemDisk(1 << 40), Dirs: []Dir{
		{Path: "a", BytesMax: 8 << 20}, {Path: "b", BytesMax: 8 << 20}, {Path: "c", BytesMax: 1 << 20},
	}})
	mustWrite(t, s, versions(768))
	for _, d := range s.Stats().Dirs {
		if d.UsedBytes != 1<<20 || d.Writes != 4 {
			t.Errorf("%s has %d bytes in %d writes, want a third", d.Path, d.UsedBytes, d.Writes)
		}
	}
	mustWrite(t, s, versions(1000)) // c is full; the others go on
}

// TestR7_FullFileSystemIsNotAnError has less room than the limit allows.
func TestR7_FullFileSystemIsNotAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(10 << 20)
		disk.room += 3 * 4096 // a rest that no extent fits in
		s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}, FS: disk})
		m := newStoreModel(t, newRand(t), s)
		for m.write(100) == nil {
		}
		if len(m.live) != 10<<20/4096 {
			t.Fatalf("%d blocks stored, room for %d", len(m.live), 10<<20/4096)
		}
		if disk.room != 3*4096 {
			t.Fatalf("%d bytes of room left: a failed reservation kept some", disk.room)
		}
		if d := s.Stats().Dirs[0]; d.State != StateFull || d.Failure != nil {
			t.Fatalf("%+v", d)
		}
		ops := disk.ops
		if m.write(1); disk.ops != ops {
			t.Error("a full file system was asked again at once")
		}
		disk.room += 1 << 20
		time.Sleep(retryInterval)
		if err := m.write(256); err != nil {
			t.Errorf("space came back, and yet: %v", err)
		}
		m.free(300)
		if err := m.write(300); err != nil {
			t.Errorf("slots were freed, and yet: %v", err)
		}
		m.finish()
		s.Close()
	})
}

// TestR7_WritesGoOnlyIntoReservedSpace watches the order of operations.
func TestR7_WritesGoOnlyIntoReservedSpace(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 12 << 20}}, FS: disk})
	m := newStoreModel(t, newRand(t), s)
	for range 300 {
		disk.setFault(func(op string, _ int, _ string) error {
			if op == "write" {
				disk.room -= 1 << 40 // no room while a write is going on
			}
			return nil
		})
		m.write(100)
		disk.mu.Lock()
		for disk.room < 0 {
			disk.room += 1 << 40
		}
		disk.mu.Unlock()
		m.free(m.r.IntN(200))
		s.trim()
	}
	if d := s.Stats().Dirs[0]; d.Failure != nil || d.WrittenBytes == 0 {
		t.Fatalf("%+v", d)
	}
	m.finish()
}

// TestR7_NoSpaceForReservedSpaceIsNotAnErrorEither is a file system that copies
// on write: it may refuse what it has promised.
func TestR7_NoSpaceForReservedSpaceIsNotAnErrorEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}, FS: disk})
		m := newStoreModel(t, newRand(t), s)
		refused := 0
		disk.setFault(func(op string, _ int, _ string) error {
			if op == "write" {
				refused++
				return errNoSpace
			}
			return nil
		})
		for range 3 {
			if err := m.write(100); err != ErrFull {
				t.Error(err)
			}
		}
		if refused != 1 {
			t.Errorf("a full file system was asked %d times at once", refused)
		}
		if d := s.Stats().Dirs[0]; d.State != StateFull || d.Failure != nil {
			t.Errorf("%+v", d)
		}
		disk.setFault(nil)
		time.Sleep(retryInterval)
		if err := m.write(100); err != nil {
			t.Error(err)
		}
		m.finish()
		s.Close()
	})
}

// TestR7_ReturnedSpaceEndsFull: whoever gives space back need not wait.
func TestR7_ReturnedSpaceEndsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(16 << 20)
		s := mustOpen(t, Options{FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}})
		m := newStoreModel(t, newRand(t), s)
		for m.write(64) == nil {
		}
		m.free(len(m.live)) // no time passes: the clock stands still
		s.trim()
		if err := m.write(16 << 20 / 4096); err != nil {
			t.Error(err)
		}
		m.finish()
		s.Close()
	})
}

func TestT09_FreeBytesMinIsLeftToOthers(t *testing.T) {
	disk := newMemDisk(20 << 20)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 30, FreeBytesMin: 5<<20 + 1}}, FS: disk})
	m := newStoreModel(t, newRand(t), s)
	for m.write(100) == nil {
	}
	if disk.room < 5<<20+1 || disk.room > 6<<20 {
		t.Fatalf("%d bytes left to others", disk.room)
	}
	m.finish()
}
