package spill

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/spillwaydb/spillway/block"
)

// storeModel runs random writes, reads, frees and trims against a map of what
// is stored. Faults may be going on: an operation may then fail, typed, and
// what the store says it holds must still be exact.
type storeModel struct {
	t      *testing.T
	r      *rand.Rand
	s      *Store
	live   map[Slot]version
	salt   uint64
	faulty bool
}

func newStoreModel(t *testing.T, r *rand.Rand, s *Store) *storeModel {
	return &storeModel{t: t, r: r, s: s, live: map[Slot]version{}}
}

func (m *storeModel) step() {
	switch m.r.IntN(10) {
	case 0, 1, 2:
		m.write(1 + m.r.IntN(150))
	case 3, 4, 5:
		m.readSome(m.r.IntN(10))
	case 6, 7:
		m.free(m.r.IntN(100))
	case 8:
		m.free(m.r.IntN(600))
	case 9:
		m.s.trim()
	}
	m.check()
}

func (m *storeModel) write(count int) error {
	m.t.Helper()
	vs := make([]version, count)
	for i := range vs {
		m.salt++
		vs[i] = version{block.ID(m.r.Uint64N(1000)), block.LSN(m.r.Uint64N(5)), m.salt}
	}
	slots := make([]Slot, count)
	n, err := m.s.Write(items(vs, m.s.blockSize), slots)
	var io *IOError
	switch {
	case err == nil && n == count, errors.Is(err, ErrFull):
	case m.faulty && errors.As(err, &io):
	default:
		m.t.Fatalf("wrote %d of %d: %v", n, count, err)
	}
	for i, slot := range slots {
		if (slot != 0) != (i < n) {
			m.t.Fatalf("slot %d of %d written is %v", i, n, slot)
		}
		if i < n {
			m.live[slot] = vs[i]
		}
	}
	return err
}

// sorted is the live slots in an order that the seed decides.
func (m *storeModel) sorted() []Slot {
	slots := make([]Slot, 0, len(m.live))
	for slot := range m.live {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	return slots
}

func (m *storeModel) readSome(n int) {
	m.t.Helper()
	slots := m.sorted()
	m.r.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	for _, slot := range slots[:min(n, len(slots))] {
		if !m.faulty {
			mustRead(m.t, m.s, slot, m.live[slot])
			continue
		}
		v := m.live[slot]
		dst := make([]byte, m.s.blockSize)
		var io *IOError
		switch err := m.s.Read(slot, v.id, v.lsn, dst); {
		case err == nil:
			if !slices.Equal(dst, v.sealed(m.s.blockSize, m.s.codec.seed)) {
				m.t.Fatalf("slot %v: other bytes came back", slot)
			}
		case !errors.As(err, &io):
			m.t.Fatal(err)
		}
	}
}

func (m *storeModel) free(n int) {
	slots := m.sorted()
	if m.r.IntN(2) == 0 {
		m.r.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
	}
	slots = slots[:min(n, len(slots))]
	m.s.Free(slots...)
	for _, slot := range slots {
		delete(m.live, slot)
	}
}

func (m *storeModel) check() {
	m.t.Helper()
	st := m.s.Stats()
	if want := int64(len(m.live) * m.s.blockSize); st.UsedBytes != want {
		m.t.Fatalf("%d bytes used, want %d", st.UsedBytes, want)
	}
	sum := int64(0)
	for i, d := range st.Dirs {
		sum += d.UsedBytes
		if d.UsedBytes > d.FileBytes || d.FileBytes > d.LimitBytes {
			m.t.Fatalf("used %d <= file %d <= limit %d does not hold", d.UsedBytes, d.FileBytes, d.LimitBytes)
		}
		m.s.dirs[i].mu.Lock()
		checkSpace(m.t, &m.s.dirs[i].space)
		m.s.dirs[i].mu.Unlock()
	}
	if sum != st.UsedBytes {
		m.t.Fatalf("directories use %d bytes, the store %d", sum, st.UsedBytes)
	}
}

func (m *storeModel) finish() {
	m.t.Helper()
	m.readSome(len(m.live))
	m.free(len(m.live))
	m.check()
	mustBeEmpty(m.t, m.s)
}

func TestStoreIsAMapOfVersions(t *testing.T) {
	for _, size := range []int{4 << 10, 64 << 10} {
		for _, encrypt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d-%v", size, encrypt), func(t *testing.T) {
				disk := newMemDisk(1 << 40)
				m := newStoreModel(t, newRand(t), mustOpen(t, Options{
					Dirs:      []Dir{{Path: "a", BytesMax: 300 * int64(size)}, {Path: "b", BytesMax: 77 * int64(size)}},
					BlockSize: size, Encrypt: encrypt, FS: disk,
				}))
				for range 3 << 20 / size / 2 {
					m.step()
				}
				m.finish()
			})
		}
	}
}

func TestStoreIsAMapOfVersionsOnDisk(t *testing.T) {
	m := newStoreModel(t, newRand(t), mustOpen(t, Options{
		Dirs: []Dir{{Path: t.TempDir(), BytesMax: 3<<20 + 5}, {Path: t.TempDir(), BytesMax: 1 << 20}},
	}))
	for range 300 {
		m.step()
	}
	m.finish()
}

func TestWriteLeavesItemsAsTheyAre(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}, FS: newMemDisk(1 << 40), Encrypt: encrypt})
		v := version{id: 3, lsn: 4}
		it := v.item(4096)
		if _, err := s.Write([]Item{it}, make([]Slot, 1)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(it.Data, v.item(4096).Data) {
			t.Fatal("Write changed the caller's block")
		}
	}
}

func TestWrongArgumentsAreErrors(t *testing.T) {
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}, FS: newMemDisk(1 << 40)})
	if _, err := s.Write(items(versions(2), 4096), make([]Slot, 1)); err == nil {
		t.Error("fewer slots than items were accepted")
	}
	if _, err := s.Write(items(versions(2), 8192), make([]Slot, 2)); err == nil {
		t.Error("blocks of another size were accepted")
	}
	if err := s.Read(makeSlot(0, 0, 0), 0, 0, make([]byte, 100)); err == nil {
		t.Error("a short buffer was accepted")
	}
}

func TestNoDirectoriesIsFull(t *testing.T) {
	s := mustOpen(t, Options{})
	if n, err := s.Write(items(versions(1), 4096), make([]Slot, 1)); n != 0 || !errors.Is(err, ErrFull) {
		t.Fatalf("wrote %d: %v", n, err)
	}
	s.Free(0)
	mustBeEmpty(t, s)
}

func TestClosedStoreSaysSo(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}}, FS: disk})
	slots := mustWrite(t, s, versions(1))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if disk.open != 0 || disk.room != 1<<40 {
		t.Fatalf("%d files open, %d bytes held", disk.open, 1<<40-disk.room)
	}
	if _, err := s.Write(items(versions(1), 4096), slots); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.Read(slots[0], 0, 1, make([]byte, 4096)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	s.Free(slots...)
	if st := s.Stats(); st.UsedBytes != 0 || st.Dirs != nil || s.MetaBytes() != 0 {
		t.Error(st)
	}
}

// TestConcurrentUse has many readers and freers, two writers and a watcher; it
// is the race detector's.
func TestConcurrentUse(t *testing.T) {
	s := mustOpen(t, Options{Dirs: []Dir{{Path: t.TempDir(), BytesMax: 2 << 20}, {Path: t.TempDir(), BytesMax: 1 << 20}}})
	r := newRand(t)
	var workers sync.WaitGroup
	for range 4 {
		own := &storeWorker{t, s, rand.New(rand.NewPCG(r.Uint64(), 1))}
		workers.Go(own.run)
	}
	workers.Go(func() {
		for range 300 {
			s.Stats()
			s.MetaBytes()
			s.trim()
		}
	})
	workers.Wait()
	mustBeEmpty(t, s)
}

// storeWorker writes, reads and frees its own versions.
type storeWorker struct {
	t *testing.T
	s *Store
	r *rand.Rand
}

func (w *storeWorker) run() {
	dst := make([]byte, 4096)
	for range 60 {
		vs := versions(1 + w.r.IntN(200))
		slots := make([]Slot, len(vs))
		n, err := w.s.Write(items(vs, 4096), slots)
		if err != nil && !errors.Is(err, ErrFull) {
			w.t.Error(err)
			return
		}
		for i := range n {
			if err := w.s.Read(slots[i], vs[i].id, vs[i].lsn, dst); err != nil {
				w.t.Error(err)
				return
			}
		}
		w.s.Free(slots[:n]...)
	}
}

// TestSpaceGoesBackBySelf proves that nobody has to ask for trimming.
func TestSpaceGoesBackBySelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(1 << 40)
		s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 64 << 20}}, FS: disk})
		slots := mustWrite(t, s, versions(8192))
		s.Free(slots[1000:]...)
		waitForTrim()
		if held := disk.files[0].taken(); held > 1000*4096+2*growBytes {
			t.Errorf("%d bytes held for %d", held, 1000*4096)
		}
		s.Free(slots[:1000]...)
		waitForTrim()
		if held := disk.files[0].taken(); held != 0 {
			t.Errorf("%d bytes held for nothing", held)
		}
		s.Close()
	})
}
