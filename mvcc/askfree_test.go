package mvcc

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// TestR12_AuditHasNoFreedBlock: an incremental that fell forward lists a block to audit,
// which is then freed, and whose newest version is not in place. What the place holds is
// older than what the base has: held against that, it would be a map that lies.
func TestR12_AuditHasNoFreedBlock(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 60)
	settle(t, s)
	const at = 20
	set(t, s, ids[at], 150) // the base has it, the file does not
	base := s.newestLSN()
	p := openForward(t, s, BackupOptions{Base: base, AuditBlocks: 4 * len(ids)})
	if _, audited := p.b.inc.audit[ids[at]]; !audited {
		t.Fatal("the block is not audited")
	}
	set(t, s, ids[0], 201)
	p.fall(t)
	ok(t, p.pull(t, 1)) // it tells
	ok(t, p.pull(t, 1)) // and has listed what it will look at, of which this is the first
	if p.now[ids[at]] {
		t.Fatal("the block is the first")
	}
	drop(t, s, ids[at])
	ok(t, p.rest(t))
	audited := 0
	for i, id := range ids {
		image := p.images[id]
		if image == nil {
			continue
		}
		v, reason := block.Verify(image, id, s.data.seed)
		switch {
		case reason != "":
			t.Errorf("block %v: %s", id, reason)
		case v.LSN <= base && (i == at || image[0] != byte(i+1)):
			t.Errorf("block %v is to be held against the base with %d of LSN %v", id, image[0], v.LSN)
		case v.LSN <= base:
			audited++
		}
	}
	if audited < len(ids)/2 {
		t.Errorf("only %d blocks are audited", audited)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR11_BitmapOfAFreeGroupIsNotAsked: all blocks of a group are freed, and so is its
// bitmap. The place of the bitmap still names them. One of them is not carried, and its
// place is damaged: that is no damage, since it is free.
func TestR11_BitmapOfAFreeGroupIsNotAsked(t *testing.T) {
	fsys := simfs.New()
	s, _ := oneBlock(t, smallOptions(fsys))
	tx, err := s.BeginWrite()
	ok(t, err)
	var ids []block.ID
	for range 4 {
		s.firstGroup = 1
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		ids = append(ids, b.ID())
		b.Release()
	}
	base, err := tx.Commit()
	ok(t, err)
	settle(t, s)
	p := openIncremental(t, s, base, 0)
	drop(t, s, ids...)
	ok(t, fsys.FlipBits(fileData, s.geo.offset(ids[1])+9, 1))
	if err := p.rest(t); err != nil {
		t.Errorf("the incremental takes a free block for damaged: %v", err)
	}
	for _, id := range ids {
		if p.images[id] != nil {
			t.Errorf("block %v is handed out, and did not change since the base", id)
		}
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestRepair_FreeBlockThatSomebodyRead: somebody has read the place of a free block, so
// that it has a head. It is free all the same: nothing is repaired, nothing is written.
func TestRepair_FreeBlockThatSomebodyRead(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	drop(t, s, id)
	settle(t, s)
	b, err := s.get(id, view{lsn: newest})
	ok(t, err)
	b.Release()
	ok(t, fsys.FlipBits(fileData, s.geo.offset(id)+9, 1))
	got, err := s.RepairBlock(t.Context(), BlockRepair{Block: id})
	ok(t, err)
	if got.State != RepairFree {
		t.Errorf("block %v is free, and its repair says %q", id, got.State)
	}
	if n := s.cache.Frames(blockcache.ClassDirty); n > 0 {
		t.Errorf("%d blocks are to be written", n)
	}
	mustClose(t, s)
}

// breaksAt is a snapshot that is broken when it is asked for the nth time.
type breaksAt struct{ n int }

func (b *breaksAt) Err() error {
	if b.n--; b.n < 0 {
		return snapshot.ErrBroken
	}
	return nil
}

// TestL10_BrokenWhileItReads: a snapshot is broken between any two steps of reading an
// original. The reader hears of it, and no pin is left behind.
func TestL10_BrokenWhileItReads(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	r := beginRead(t, s)
	set(t, s, id, 2)
	broken := 0
	for n := range 8 {
		b, err := s.get(id, view{r.LSN(), &breaksAt{n}})
		switch {
		case err == nil:
			b.Release()
		case errors.Is(err, snapshot.ErrBroken):
			broken++
		default:
			t.Fatal(err)
		}
	}
	if broken == 0 {
		t.Error("nobody hears that the snapshot is broken")
	}
	l := s.cache.Latch(id)
	if v := s.snapshots.Find(id, r.LSN()); v == nil || v.Pinned() {
		t.Error("the original is pinned by nobody")
	}
	l.Unlock()
	r.Close()
	mustClose(t, s)
}
