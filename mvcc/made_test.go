package mvcc

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// Tests that bugs made by a tool have asked for: no other test found these (soak mutate).

// TestR8_RepairIsOnTheDiskBeforeItsCopyGoes: a sync of the data file failed, and the
// process ended. Who opens next finds a block as new as its second copy, and writes it
// again, since the system may show what the disk never got. That has to be synced before
// a second copy of something else takes the place of this one.
func TestR8_RepairIsOnTheDiskBeforeItsCopyGoes(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	other := anotherBlock(t, s)
	set(t, s, id, 2)
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: simfs.SyncCacheNew})
	if err := s.cleaner.round(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the round: %v", err)
	}
	fault.Disarm()
	_ = s.fail(syscall.EIO) // as the cleaner's own goroutine does
	_ = s.Close()

	at := s.geo.offset(id)
	const (
		untouched = iota
		written
		synced
	)
	repair, early := untouched, false
	fsys.Trace(func(ev simfs.Event) {
		switch {
		case ev.Op == simfs.OpWrite && ev.File == fileData && ev.Off <= at && at < ev.Off+ev.Len && repair == untouched:
			repair = written
		case ev.Op == simfs.OpSync && ev.File == fileData && repair == written:
			repair = synced
		case ev.Op == simfs.OpWrite && ev.File == testDir+"/"+nameDoublewrite && repair == written:
			early = true
		}
	})
	s = mustOpen(t, o)
	fsys.Trace(nil)
	if repair == untouched {
		t.Fatal("the block was not written again")
	}
	if repair == written || early {
		t.Error("opened before the block is on the disk")
	}
	set(t, s, other, 2)
	settle(t, s)
	after := fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	s = mustOpen(t, smallOptions(after))
	r := beginRead(t, s)
	if value(t, r, id) != 2 || value(t, r, other) != 2 {
		t.Error("lost")
	}
	r.Close()
	mustClose(t, s)
}

// TestR8_OnlyTheCopyThatTheHeaderNames: an image that is not sound, or that is of another
// version or another block than its header says, repairs nothing.
func TestR8_OnlyTheCopyThatTheHeaderNames(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	defer func() { mustClose(t, s) }()
	image := func(id block.ID, lsn block.LSN) []byte {
		b := make([]byte, s.geo.size)
		block.Seal(b, block.Trailer{Type: block.TypeLeaf, ID: id, LSN: lsn}, s.data.seed)
		return b
	}
	damaged := image(id, 7)
	damaged[9] ^= 1
	for what, b := range map[string][]byte{
		"as named": image(id, 7), "damaged": damaged, "older": image(id, 6), "newer": image(id, 8), "of another block": image(id+1, 7),
	} {
		f, err := fsys.OpenFile(testDir+"/copies", os.O_RDWR|os.O_CREATE, 0o600)
		ok(t, err)
		d := &doublewrite{file: f, database: s.database, size: s.geo.size, capacity: 16}
		d.buf = make([]byte, d.halfBytes())
		ok(t, d.write(3, []place{{id, 7}}, [][]byte{b}))
		n := 0
		ok(t, d.each(3, s.data.seed, func(block.ID, []byte) error { n++; return nil }))
		if (n == 1) != (what == "as named") {
			t.Errorf("a copy that is %s counts %d times", what, n)
		}
		ok(t, errors.Join(f.Close(), fsys.Remove(testDir+"/copies")))
	}
}
