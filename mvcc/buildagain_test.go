package mvcc

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestR8_BuiltOverOneThatWentOn: a standby is built where an earlier one was built of the
// same backup and rolled forward. What that left in places that are free at the backup's
// LSN, and of second copies, is of later commits. A kill behind the first of these must not
// have redo take it for what was done.
func TestR8_BuiltOverOneThatWentOn(t *testing.T) {
	s, _ := oneBlock(t, smallOptions(simfs.New()))
	p := openBackup(t, s)
	ok(t, p.rest(t))
	tail := openTail(t, s, s.newestLSN())
	var id block.ID
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	id = b.ID()
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	set(t, s, id, 2)
	set(t, s, id, 3)
	list := records(t, tail)

	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	build := func() *Store {
		t.Helper()
		bl, err := NewBuilder(testDir, p.b.Info(), BuildOptions{FS: fsys, Standby: true, Resume: true})
		ok(t, err)
		for id, im := range p.images {
			ok(t, bl.Write(id, im))
		}
		ok(t, bl.Finish())
		return mustOpen(t, smallOptions(fsys))
	}
	first := build()
	applyAll(t, first, list)
	settle(t, first)
	fsys = fsys.Kill() // it was not closed either, so the file keeps its size
	_ = first.Close()

	again := build()
	applyAll(t, again, list[:2])
	fsys = fsys.Kill()
	_ = again.Close()
	again = mustOpen(t, smallOptions(fsys))
	r := beginRead(t, again)
	if got := value(t, r, id); got != 2 {
		t.Errorf("block %v is %d as of commit %v", id, got, r.LSN())
	}
	r.Close()
	for _, rec := range list[2:] {
		if err := again.Apply(rec); err != nil {
			t.Error(err)
		}
	}
	mustClose(t, again)
	tail.Close()
	ok(t, p.b.Close())
	mustClose(t, s)
}
