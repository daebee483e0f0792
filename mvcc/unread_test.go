package mvcc

import (
	"errors"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// cutWhileCleaning is a disk after a power cut when many blocks were to be written in
// place: their second copies are durable, and their redo is diffs. All were 1, and are 2.
func cutWhileCleaning(t *testing.T, o Options, blocks int) (*simfs.FS, []block.ID) {
	t.Helper()
	fsys := simfs.New()
	g := newGates(fsys)
	o.FS, o.MaxRAM = fsys, 20*o.MaxRAM // no round before it is asked for
	s := mustOpen(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	var ids []block.ID
	for range blocks {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Payload()[0] = 1
		ids = append(ids, b.ID())
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	settle(t, s)
	for _, id := range ids {
		set(t, s, id, 2)
	}
	ok(t, s.log.MarkIdle()) // no commit is in doubt for who only reads
	place := g.next(simfs.OpWrite, fileData, touches(s.geo.offset(ids[0])))
	round := async(func() { s.cleaner.kick() })
	<-place.reached // the second copies are there
	after := fsys.Crash(nil, simfs.DropAll)
	place.open()
	<-round
	mustClose(t, s)
	return after, ids
}

// unreadable has the reading of second copies fail, or that of the place of block id.
func unreadable(second bool, id block.ID) simfs.Fault {
	f := simfs.Fault{Ops: simfs.OpRead, File: testDir + "/" + nameDoublewrite, Err: syscall.EIO, Sticky: true}
	if !second {
		f.File, f.Sticky, f.Match = fileData, false, touches(newGeometry(4096).offset(id))
	}
	return f
}

// allAre proves what value blocks have.
func allAre(t *testing.T, s *Store, ids []block.ID, want byte) {
	t.Helper()
	r := beginRead(t, s)
	defer r.Close()
	for _, id := range ids {
		if got := value(t, r, id); got != want {
			t.Errorf("block %v is %d, want %d", id, got, want)
		}
	}
}

// TestR8_SecondCopiesThatCannotBeReadNow: the disk does not give the second copies, or the
// place that one belongs to, when the store is opened, and redo alone cannot make a block
// that is torn. Whoever opens it once more, and can read them, finds them: nothing was
// written over them meanwhile, whether redo fits in RAM or not.
func TestR8_SecondCopiesThatCannotBeReadNow(t *testing.T) {
	for _, second := range []bool{true, false} {
		for _, blocks := range []int{200, 300} {
			o := smallOptions(nil)
			fsys, ids := cutWhileCleaning(t, o, blocks)
			ok(t, fsys.FlipBits(fileData, newGeometry(4096).offset(ids[0])+100, 4)) // as torn as can be
			o.FS = fsys
			armed := fsys.Fail(unreadable(second, ids[0]))
			if s, err := Open(testDir, o); err == nil {
				t.Errorf("second %v, %d blocks: opened", second, blocks)
				_ = s.Close()
			} else if armed.Fired() == 0 || !errors.Is(err, syscall.EIO) {
				t.Errorf("second %v, %d blocks: %v", second, blocks, err)
			}
			armed.Disarm()
			s, err := Open(testDir, o)
			if err != nil {
				t.Errorf("second %v, %d blocks: not read once, and never opened again: %v", second, blocks, err)
				continue
			}
			allAre(t, s, ids, 2)
			mustClose(t, s)
		}
	}
}

// TestR8_SecondCopiesThatNobodyNeeds: no block is torn, so a double-write file that cannot
// be read keeps nobody from opening the store, for writing or not.
func TestR8_SecondCopiesThatNobodyNeeds(t *testing.T) {
	for _, second := range []bool{true, false} {
		o := smallOptions(nil)
		fsys, ids := cutWhileCleaning(t, o, 200)
		o.FS = fsys
		for _, o.ReadOnly = range []bool{true, false} {
			armed := fsys.Fail(unreadable(second, ids[0]))
			s := mustOpen(t, o)
			if armed.Fired() == 0 {
				t.Fatal("everything could be read")
			}
			armed.Disarm()
			allAre(t, s, ids, 2)
			ok(t, s.Close())
		}
	}
}
