package mvcc

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestR8_HotBlockLogRecycles: a block that is changed by every commit gets in
// place all the same, and a small log is enough for ever.
func TestR8_HotBlockLogRecycles(t *testing.T) {
	o := smallOptions(simfs.New())
	o.LogBytesMax = LogBytesMin
	s, id := oneBlock(t, o)
	dog := newWatchdog(t)
	dog.watch(s)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 400 {
		dog.pat()
		tx, err := s.BeginWrite()
		ok(t, err)
		b, err := tx.Edit(id)
		ok(t, err)
		for i := range b.Payload() {
			b.Payload()[i] = byte(rng.Uint32())
		}
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
	}
	if s.redoStart() < 100 {
		t.Fatalf("redo starts at %v of %v", s.redoStart(), s.newestLSN())
	}
	if used := s.log.Stats().LiveBytes; used > 2*LogBytesMin {
		t.Fatalf("the log has %d bytes", used)
	}
	mustClose(t, s)
}

// TestR8_SecondCopyWhileNoImageCounts: the whole image in the log makes the
// second copy needless, until the checkpoint's redo start has passed it.
func TestR8_SecondCopyWhileNoImageCounts(t *testing.T) {
	fsys := simfs.New()
	s := mustOpen(t, smallOptions(fsys))
	copies := map[block.ID]int{}
	fsys.Trace(func(ev simfs.Event) {
		if ev.Op == simfs.OpWrite && ev.File == fileSecond {
			_, places := decodeDoublewrite(ev.Data, s.database)
			for _, p := range places {
				copies[p.id]++
			}
		}
	})
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	id := b.ID()
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	set(t, s, id, 2) // a diff on an image that counts
	settle(t, s)
	if copies[id] != 0 {
		t.Fatal("a second copy although the image counts")
	}
	set(t, s, id, 3) // a diff on an image that counts no more
	settle(t, s)
	if copies[id] != 1 {
		t.Fatalf("%d second copies, and no image counts (L6)", copies[id])
	}
	fsys.Trace(nil)
	mustClose(t, s)
}

// TestR8_TornBlockRepaired: the power goes in the middle of a write in place.
func TestR8_TornBlockRepaired(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(id)
	ok(t, err)
	for at := 0; at < len(b.Payload()); at += 512 { // something in each sector
		b.Payload()[at] = 2
	}
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	h := g.next(simfs.OpSync, fileData)
	done := async(func() { settle(t, s) })
	<-h.reached
	rng := rand.New(rand.NewPCG(1, 1))
	torn := 0
	for range 150 {
		after := fsys.Crash(rng, simfs.Random)
		data, err := after.Bytes(fileData)
		ok(t, err)
		if _, reason := block.Verify(data[s.geo.offset(id):][:4096], id, s.data.seed); reason != "" {
			torn++
		}
		o := o
		o.FS = after
		again := mustOpen(t, o)
		r := beginRead(t, again)
		if value(t, r, id) != 2 {
			t.Fatal("lost")
		}
		r.Close()
		ok(t, again.Close())
	}
	if torn == 0 {
		t.Fatal("no block was torn")
	}
	h.open()
	<-done
	mustClose(t, s)
}

// TestR8_FreeMakesEarlierRedoVoid, whatever the place holds, readable or not.
func TestR8_FreeMakesEarlierRedoVoid(t *testing.T) {
	for _, again := range []bool{false, true} {
		fsys := simfs.New()
		o := smallOptions(fsys)
		s, id := oneBlock(t, o)
		set(t, s, id, 2)
		tx, err := s.BeginWrite()
		ok(t, err)
		ok(t, tx.Free(id))
		_, err = tx.Commit()
		ok(t, err)
		if again {
			tx, err := s.BeginWrite()
			ok(t, err)
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			if b.ID() != id {
				t.Fatalf("block %v is not used again", id)
			}
			b.Payload()[0] = 9
			b.Release()
			_, err = tx.Commit()
			ok(t, err)
		}
		after := fsys.Crash(nil, simfs.KeepAll)
		ok(t, s.Close())
		data, err := after.OpenFile(fileData, os.O_RDWR, 0)
		ok(t, err)
		_, err = data.WriteAt([]byte("rubbish"), s.geo.offset(id))
		ok(t, err)
		ok(t, data.Close())
		o.FS = after
		s = mustOpen(t, o)
		r := beginRead(t, s)
		if again && value(t, r, id) != 9 {
			t.Fatal("lost")
		}
		if r.meta.inUse != map[bool]uint64{true: 1}[again] {
			t.Fatalf("%d blocks in use", r.meta.inUse)
		}
		r.Close()
		mustClose(t, s)
	}
}
