package mvcc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/wal"
)

// Tests that planted bugs have asked for: no other test found these (internal/mutants).

// TestR8_FreeBehindTheRound: while a round is under way a block that is due is changed
// and then freed, so that it never gets in place. Redo begins between the change that
// the round was for and the one behind it, whose predecessor is nowhere: only the free
// says that it does not matter.
func TestR8_FreeBehindTheRound(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, a := oneBlock(t, smallOptions(fsys))
	b := anotherBlock(t, s)
	r := beginRead(t, s)
	set(t, s, a, 2)
	due := set(t, s, b, 2)
	squeeze(t, s) // now the cleaner has to read the original of block a

	read := g.next(simfs.OpRead, fileData, func(ev simfs.Event) bool { return ev.Off == s.geo.offset(a) })
	cleaned := async(func() { settle(t, s) })
	<-read.reached
	set(t, s, b, 3)
	tx, err := s.BeginWrite()
	ok(t, err)
	ok(t, tx.Free(b))
	_, err = tx.Commit()
	ok(t, err)
	h := g.next(simfs.OpWrite, fileData, func(ev simfs.Event) bool { return ev.Off < 2*superblockStride })
	read.open()
	<-h.reached
	again := g.next(simfs.OpWrite, fileData, func(ev simfs.Event) bool { return ev.Off < 2*superblockStride }) // of the next round
	h.open()
	eventually(t, func() string {
		if s.redoStart() != due+1 {
			return fmt.Sprintf("redo begins at %v, not between the changes at %v", s.redoStart(), due)
		}
		return ""
	})
	after := fsys.Crash(nil, simfs.DropAll)
	again.open()
	<-cleaned
	r.Close()
	mustClose(t, s)

	s = mustOpen(t, smallOptions(after))
	r = beginRead(t, s)
	if got := value(t, r, a); got != 2 || r.meta.inUse != 1 {
		t.Errorf("block %v is %d, %d blocks are in use", a, got, r.meta.inUse)
	}
	r.Close()
	mustClose(t, s)
}

// TestR8_DiffOnAnotherVersionIsRefused: the disk lost a write in place that it had
// said was done. The next change in the log is of a version that is not there: damage,
// with its name.
func TestR8_DiffOnAnotherVersionIsRefused(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	data, err := fsys.Bytes(fileData)
	ok(t, err)
	old := data[s.geo.offset(id):][:s.geo.size]
	set(t, s, id, 2)
	settle(t, s)
	set(t, s, id, 3) // not in place
	after := fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)

	f, err := after.OpenFile(fileData, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt(old, s.geo.offset(id))
	ok(t, errors.Join(err, f.Close()))
	_, err = Open(testDir, smallOptions(after))
	var damage *block.CorruptError
	if !errors.As(err, &damage) || damage.Block != id {
		t.Fatalf("opened: %v", err)
	}
}

// TestR8_FailedSyncIsNotTrusted: a sync of the data file failed, after which the system
// shows what the disk never got, and calls it clean. Who opens next finds each block as
// new as the log has it, and has to write it all the same.
func TestR8_FailedSyncIsNotTrusted(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf) // its image in the log does for a second copy
	ok(t, err)
	id := b.ID()
	b.Payload()[0] = 7
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: simfs.SyncCacheNew})
	if err := s.cleaner.round(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the round: %v", err)
	}
	fault.Disarm()
	_ = s.fail(syscall.EIO) // as the cleaner's own goroutine does
	_ = s.Close()
	ok(t, mustOpen(t, o).Close())

	s = mustOpen(t, smallOptions(fsys.Crash(nil, simfs.DropAll)))
	r := beginRead(t, s)
	if value(t, r, id) != 7 {
		t.Error("lost")
	}
	r.Close()
	mustClose(t, s)
}

// TestL8_CommitInFlightWhenTheStoreFails: a write in place fails while a commit waits
// for its sync, which succeeds. It is durable, and yet not acknowledged: from the
// failure on nothing is.
func TestL8_CommitInFlightWhenTheStoreFails(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	before := s.newestLSN()
	sync := g.every(simfs.OpSync, filesLog) // the cleaner has syncs of its own
	var acked error
	done := async(func() {
		tx, err := s.BeginWrite()
		if err != nil {
			acked = err
			return
		}
		b, err := tx.Edit(id)
		if err != nil {
			acked = err
			return
		}
		b.Payload()[0] = 2
		b.Release()
		_, acked = tx.Commit()
	})
	<-sync.reached
	for s.newestLSN() == before {
		runtime.Gosched()
	}
	_ = s.fail(syscall.EIO)
	sync.open()
	<-done
	if !errors.Is(acked, wal.ErrUnknownOutcome) || !errors.Is(acked, ErrPoisoned) || !errors.Is(acked, syscall.EIO) {
		t.Errorf("the commit in flight: %v", acked)
	}
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
}

// TestB10_HalfOfTheFirstSuperblock: writing it ended half way, so that it was written
// over with zeros; but these were not synced, and a power cut that kept the half and lost
// the zeros, or a disk that refused them, left what looked like a damaged database instead of an unfinished one.
func TestB10_HalfOfTheFirstSuperblock(t *testing.T) {
	for _, undone := range []simfs.Fault{{Skip: 1 << 20}, {Short: true}, {}} { // how the writing of zeros fails
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		ok(t, fsys.SyncDir("/"))
		undone.Ops, undone.File, undone.Len, undone.Err = simfs.OpWrite, fileData, superblockSize, syscall.ENOSPC
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: fileData, Len: superblockSize, Err: syscall.ENOSPC, Short: true})
		second := fsys.Fail(undone)
		if _, err := Open(testDir, smallOptions(fsys)); !errors.Is(err, syscall.ENOSPC) || fault.Fired() == 0 {
			t.Fatalf("opened: %v", err)
		}
		var now *simfs.Moment
		second.Disarm()
		fsys.Moments(func(_ simfs.Event, m *simfs.Moment) { now = m })
		ok(t, fsys.Mkdir("/elsewhere", 0o700))
		for _, state := range now.States() {
			s, err := Open(testDir, smallOptions(state.Disk()))
			if err != nil {
				t.Fatalf("%v: %v", state, err)
			}
			ok(t, s.Close())
		}
	}
}
