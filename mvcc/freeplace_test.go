package mvcc

import (
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
