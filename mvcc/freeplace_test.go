package mvcc

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// changedBehind opens an incremental, and names a block that it does not carry, which was
// changed behind it: to 201, which is in place, and to 202, which is not.
func changedBehind(t *testing.T) (*Store, *backupPull, block.ID) {
	t.Helper()
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 60)
	base := s.newestLSN()
	settle(t, s)
	set(t, s, ids[21], 150) // of one extent, carried
	p := openIncremental(t, s, base, 0)
	id := ids[20]
	set(t, s, id, 201)
	settle(t, s)
	set(t, s, id, 202)
	return s, p, id
}

// TestL1_PlaceOfAFreeBlockIsNoHead: an incremental looks at the place of a block that is not
// carried, was changed in place behind S, changed again in RAM only, and freed. A reader of
// the state just before the free still sees the version that it saw before.
func TestL1_PlaceOfAFreeBlockIsNoHead(t *testing.T) {
	s, p, id := changedBehind(t)
	r, err := s.BeginRead()
	ok(t, err)
	see := func(when string) {
		t.Helper()
		b, err := r.Block(id)
		ok(t, err)
		if got := b.Payload()[0]; got != 202 {
			t.Errorf("%s: the reader at LSN %v sees %d of LSN %v, not 202", when, r.LSN(), got, b.v.LSN)
		}
		b.Release()
	}
	see("before")
	drop(t, s, id)
	see("freed")
	ok(t, p.rest(t))
	see("after the scan")
	r.Close()
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestL1_PlaceOfAFreeBlockIsInNoBackup: the same, and it is a full backup that wants the
// version: it would hand out the wrong one, with a good checksum.
func TestL1_PlaceOfAFreeBlockIsInNoBackup(t *testing.T) {
	s, p, id := changedBehind(t)
	full := openBackup(t, s)
	drop(t, s, id)
	ok(t, p.rest(t))
	ok(t, full.rest(t))
	if got := full.images[id][0]; got != 202 {
		t.Errorf("the full backup at LSN %v has %d, not 202", full.b.info.LSN, got)
	}
	ok(t, p.b.Close())
	ok(t, full.b.Close())
	mustClose(t, s)
}

// TestR12_PlaceOfAFreeBlockIsNamedByNobody: a backup that falls forward comes to a block that
// was in use when it listed what it looks at, and is free by now. Its place holds a version
// from before the last one, and that is handed out, or becomes a head. The backup carries it
// then, of an LSN in (F, E], and nothing names it: what is built from the backup is the state
// at E, readers of the version before the free see that, and who uses the block again sees
// what he wrote.
func TestR12_PlaceOfAFreeBlockIsNamedByNobody(t *testing.T) {
	for _, reads := range []bool{false, true} {
		for _, cached := range []bool{false, true} {
			placeOfAFreeBlock(t, reads, cached)
		}
	}
}

func placeOfAFreeBlock(t *testing.T, reads, cached bool) {
	t.Helper()
	s, m, rng := manyBlocks(t, smallOptions(newDisk(t)), 64)
	ids := m.at[m.newest()].ids()
	id := ids[40]
	p := openForward(t, s, BackupOptions{FileOrder: true})
	editAll(t, s, m, rng, ids[0], id)
	p.fall(t)
	ok(t, p.pull(t, 1)) // it tells
	ok(t, p.pull(t, 1)) // it has listed what it will look at
	editAll(t, s, m, rng, id)
	settle(t, s) // this one is in place
	stale := m.newest()
	editAll(t, s, m, rng, id) // this one is not
	var r *ReadTx
	if reads {
		r = beginRead(t, s)
	}
	w, err := begin(t, s, m, rng)
	ok(t, err)
	ok(t, w.free(id))
	_, err = w.commit(m)
	ok(t, err)
	settle(t, s)
	if cached {
		if b, err := p.b.newestVersion(id); err == nil {
			b.Release()
		} else if !errors.Is(err, ErrNotInUse) {
			t.Fatal(err)
		}
	}
	ok(t, p.rest(t))
	carried, reason := block.Verify(p.images[id], id, s.data.seed)
	if !p.now[id] || reason != "" || carried.LSN != stale {
		t.Errorf("reader %v, in memory %v: it carries version %v of the free block (%s), the test is about %v", reads, cached, carried.LSN, reason, stale)
	}
	ok(t, p.build(t, m, nil))
	if reads {
		checkRead(t, r, m)
		r.Close()
	}
	ok(t, p.b.Close())
	for range 8 { // the block is used again
		w, err := begin(t, s, m, rng)
		ok(t, err)
		ok(t, w.alloc())
		_, err = w.commit(m)
		ok(t, err)
	}
	checkAll(t, s, m)
	mustClose(t, s)
}

// TestR9_IncrementalOfAGroupGivenBack: a block that an incremental need not carry is changed
// and freed, and its group is given back, bitmap and all. Neither was ever in place: what
// cannot be read there is no damage.
func TestR9_IncrementalOfAGroupGivenBack(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	someBlocks(t, s, 4)
	tx, err := s.BeginWrite()
	ok(t, err)
	s.hints[0] = s.geo.group // the next block is of a new group
	b, err := tx.Alloc(block.TypeUser)
	ok(t, err)
	id := b.ID()
	b.Release()
	base, err := tx.Commit()
	ok(t, err)
	p := openIncremental(t, s, base, 0)
	set(t, s, id, 2)
	drop(t, s, id)
	if s.meta.highWater > id {
		t.Fatalf("the high-water mark is %v, above block %v", s.meta.highWater, id)
	}
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	mustClose(t, s)
}
