package spill

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

func storesOnMemDisk(t *testing.T, test func(*testing.T, *Store, *memFile)) {
	for name, encrypt := range map[string]bool{"plain": false, "encrypted": true} {
		t.Run(name, func(t *testing.T) {
			disk := newMemDisk(1 << 40)
			s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}, FS: disk, Encrypt: encrypt})
			test(t, s, disk.files[0])
		})
	}
}

func TestT07_DamageOnDiskIsFound(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		vs := versions(3)
		slots := mustWrite(t, s, vs)
		f.pages[1][17] ^= 4
		mustRead(t, s, slots[0], vs[0])
		mustBeCorrupt(t, s, slots[1], vs[1])
		mustRead(t, s, slots[2], vs[2])
		if d := s.Stats().Dirs[0]; d.CorruptSlots != 1 {
			t.Errorf("%d damaged slots counted", d.CorruptSlots)
		}
	})
}

func TestT07_WrongSlotIsFound(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		vs := versions(3)
		slots := mustWrite(t, s, vs)
		mustBeCorrupt(t, s, slots[0], vs[1])
		mustBeCorrupt(t, s, slots[0], version{id: vs[0].id, lsn: vs[0].lsn + 1})
		mustBeCorrupt(t, s, 0, vs[0])
		mustBeCorrupt(t, s, makeSlot(3, 0, 1), vs[0])
		mustBeCorrupt(t, s, makeSlot(0, 50, 1), vs[0])
		mustBeCorrupt(t, s, makeSlot(0, slotsMax-1, 1), vs[0])
	})
}

// TestT07_StaleSlotIsFound: the place was used again, for the same block as of
// the same LSN even.
func TestT07_StaleSlotIsFound(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		v := version{id: 5, lsn: 0, salt: 1}
		stale := mustWrite(t, s, []version{v})
		s.Free(stale...)
		s.trim()
		now := mustWrite(t, s, []version{{id: 5, lsn: 0, salt: 2}})
		if now[0].index() != stale[0].index() {
			t.Fatalf("the place was not used again: %v, %v", stale[0], now[0])
		}
		mustBeCorrupt(t, s, stale[0], v)
	})
}

// TestT07_LostWriteIsFound: the disk says it wrote, and has what was there
// before: the same block as of the same LSN, with other content.
func TestT07_LostWriteIsFound(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		keep := mustWrite(t, s, versions(1))
		before := mustWrite(t, s, []version{{id: 5, lsn: 0, salt: 1}})
		image := append([]byte(nil), f.pages[before[0].index()]...)
		s.Free(before...)
		s.Free(keep...)
		s.trim()
		mustWrite(t, s, versions(1))
		v := version{id: 5, lsn: 0, salt: 2}
		now := mustWrite(t, s, []version{v})
		if now[0].index() != before[0].index() {
			t.Fatalf("the place was not used again: %v, %v", before[0], now[0])
		}
		copy(f.pages[now[0].index()], image)
		mustBeCorrupt(t, s, now[0], v)
	})
}

// TestShortFileIsFound: what the buffer held before is not taken for what was
// read, not even the slot's own bytes.
func TestShortFileIsFound(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		vs := versions(2)
		slots := mustWrite(t, s, vs)
		dst := append([]byte(nil), f.pages[1]...)
		if err := f.Truncate(4096); err != nil {
			t.Fatal(err)
		}
		if err := s.Read(slots[1], vs[1].id, vs[1].lsn, dst); !errors.Is(err, block.ErrCorrupt) {
			t.Fatal(err)
		}
		mustRead(t, s, slots[0], vs[0])
	})
}

// TestFreeOfAFreeSlotChangesNothing: outside of invariants builds, where it
// panics.
func TestFreeOfAFreeSlotChangesNothing(t *testing.T) {
	if invariants {
		t.Skip("panics")
	}
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		vs := versions(4)
		slots := mustWrite(t, s, vs)
		s.Free(slots[2])
		s.Free(slots[2], 0, makeSlot(0, 40, 1), makeSlot(0, slotsMax-1, 1), makeSlot(9, 0, 1))
		if used := s.Stats().UsedBytes; used != 3*4096 {
			t.Fatalf("%d bytes used", used)
		}
		mustRead(t, s, slots[3], vs[3])
		s.Free(slots[0], slots[1], slots[3])
		mustBeEmpty(t, s)
	})
}

func TestEncryptedFileShowsNothing(t *testing.T) {
	storesOnMemDisk(t, func(t *testing.T, s *Store, f *memFile) {
		plain := s.codec.aead == nil
		v := version{id: 0x4242, lsn: 9}
		slots := mustWrite(t, s, []version{v, v})
		shown := 0
		for _, slot := range slots {
			page := f.pages[slot.index()]
			want := v.item(4096).Data
			for i := 0; i < 4096-block.TrailerSize; i += 8 {
				if [8]byte(page[i:]) == [8]byte(want[i:]) {
					shown++
				}
			}
		}
		if plain != (shown > 0) {
			t.Fatalf("%d words of payload are in the file", shown)
		}
		if !plain && [64]byte(f.pages[0]) == [64]byte(f.pages[1]) {
			t.Fatal("the same block was encrypted twice to the same bytes")
		}
	})
}

func TestKeyDiesWithTheStore(t *testing.T) {
	disk := newMemDisk(1 << 40)
	o := Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}, FS: disk, Encrypt: true}
	a, b := mustOpen(t, o), mustOpen(t, o)
	v := version{id: 5, lsn: 6}
	slots := mustWrite(t, a, []version{v})
	mustWrite(t, b, []version{v})
	copy(disk.files[1].pages[0], disk.files[0].pages[0])
	mustBeCorrupt(t, b, slots[0], v)
	if err := a.Close(); err != nil || a.codec.aead != nil {
		t.Fatalf("the key is still there: %v", err)
	}
	if errors.Is(b.Read(slots[0], 5, 6, make([]byte, 4096)), ErrClosed) {
		t.Fatal("closing one store closed another")
	}
}
