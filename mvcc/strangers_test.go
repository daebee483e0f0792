package mvcc

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// Tests that a stranger's planted bugs have asked for: no other test found these
// (internal/mutants).

// segments are those that have their names: the syncs of others are nobody's commit.
const segments = testDir + "/log/*.wal"

// superblocks matches what is written to or behind the superblocks.
func superblocks(ev simfs.Event) bool { return ev.Off < 2*superblockStride }

// touches matches what is read or written of a place in a file.
func touches(at int64) func(simfs.Event) bool {
	return func(ev simfs.Event) bool { return ev.Off <= at && at < ev.Off+ev.Len }
}

// fill changes a block, all of it, until so many bytes more are in the log.
func fill(t *testing.T, s *Store, id block.ID, bytes int64) {
	t.Helper()
	for from := s.log.Stats().RecordBytes; s.log.Stats().RecordBytes < from+bytes; {
		tx, err := s.BeginWrite()
		ok(t, err)
		b, err := tx.Edit(id)
		ok(t, err)
		for i := range b.Payload() {
			b.Payload()[i] += byte(2*i + 1)
		}
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
	}
}

// TestR8_ChangedWhileTheRoundComesToIt: a block that a round is due to write is changed
// before the round comes to it. It still holds the change that the round is for, so it
// is written, as it is then.
func TestR8_ChangedWhileTheRoundComesToIt(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, a := oneBlock(t, smallOptions(fsys))
	b := anotherBlock(t, s)
	r := beginRead(t, s)
	set(t, s, a, 2)
	due := set(t, s, b, 2)
	squeeze(t, s) // now the cleaner has to read the original of block a

	read := g.next(simfs.OpRead, fileData, touches(s.geo.offset(a)))
	cleaned := async(func() { ok(t, s.cleaner.awaitRound(s.cleaner.rounds())) })
	<-read.reached
	set(t, s, b, 3)
	read.open()
	<-cleaned
	if got := s.redoStart(); got != due+1 {
		t.Fatalf("redo begins at %v, the round was for %v", got, due)
	}
	after := fsys.Crash(nil, simfs.DropAll)
	r.Close()
	mustClose(t, s)

	s = mustOpen(t, smallOptions(after))
	r = beginRead(t, s)
	if got := value(t, r, b); got != 3 {
		t.Errorf("block %v is %d", b, got)
	}
	r.Close()
	mustClose(t, s)
}

// TestR8_FirstChangeBehindWhatWasWritten: a block is changed twice while it is being
// written in place. From then on the first of the two is what redo must not pass.
func TestR8_FirstChangeBehindWhatWasWritten(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	set(t, s, id, 2)
	write := g.next(simfs.OpWrite, fileData, touches(s.geo.offset(id)))
	record := g.next(simfs.OpWrite, fileData, superblocks)
	cleaned := async(func() { settle(t, s) })
	<-write.reached
	first := set(t, s, id, 3)
	set(t, s, id, 4)
	write.open()
	<-record.reached
	l := s.cache.Latch(id)
	h := l.Head(id)
	rec, dirty := h.Rec, h.Dirty
	l.Unlock()
	record.open()
	<-cleaned
	if !dirty || rec != first {
		t.Errorf("the first change that is not in place is %v, dirty %v; it is that of commit %v", rec, dirty, first)
	}
	mustClose(t, s)
}

// TestR8_SecondCopyOfWhatRedoFound: redo finds a block in place at one of its changes and
// applies another one. No image of it is in the log, so the write that follows needs a
// second copy, as any.
func TestR8_SecondCopyOfWhatRedoFound(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	set(t, s, id, 2)
	record := g.next(simfs.OpWrite, fileData, superblocks)
	cleaned := async(func() { settle(t, s) })
	<-record.reached // it is in place and synced, and the checkpoint is not recorded
	set(t, s, id, 3)
	after := fsys.Crash(nil, simfs.DropAll)
	record.open()
	<-cleaned
	mustClose(t, s)

	copies := 0
	after.Trace(func(ev simfs.Event) {
		if ev.Op == simfs.OpWrite && ev.File == fileSecond {
			_, places := decodeDoublewrite(ev.Data, s.database)
			for _, p := range places {
				if p.id == id {
					copies++
				}
			}
		}
	})
	s = mustOpen(t, smallOptions(after))
	settle(t, s)
	after.Trace(nil)
	if copies != 1 {
		t.Errorf("%d second copies (L6)", copies)
	}
	mustClose(t, s)
}

// TestR8_SuperblockOfTheKilledIsSecured: who wrote the superblock in force was killed
// before its sync. The log that only the one before it needs is used again: so it has to
// be durable first.
func TestR8_SuperblockOfTheKilledIsSecured(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	fill(t, s, id, 2*o.segmentBytes())
	before := s.redoStart()
	written := false
	sync := g.next(simfs.OpWrite|simfs.OpSync, fileData, func(ev simfs.Event) bool {
		written = written || ev.Op == simfs.OpWrite && superblocks(ev)
		return written && ev.Op == simfs.OpSync
	})
	cleaned := async(func() { s.cleaner.kick() })
	<-sync.reached
	killed := fsys.Kill()
	sync.open()
	<-cleaned
	_ = s.Close() // has no file system any more

	o.FS = killed
	s = mustOpen(t, o)
	if s.redoStart() == before {
		t.Fatal("the superblock was not there")
	}
	fill(t, s, id, 3*o.segmentBytes())
	newest := s.newestLSN()
	o.FS = killed.Crash(nil, simfs.DropAll)
	_ = s.Close()
	s = mustOpen(t, o)
	if got := s.newestLSN(); got < newest {
		t.Errorf("opened at %v, %v was acknowledged", got, newest)
	}
	mustClose(t, s)
}

// TestL8_TornByTheSyncThatFailed: the sync of many blocks in place failed. The system shows
// them, and the disk has one half. Who opens next has to write it before its second copy
// gives way to those of other blocks.
func TestL8_TornByTheSyncThatFailed(t *testing.T) {
	const low, high = 16, 24 // blocks; a half has room for 16
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	o.BlockSize, o.MaxRAM, o.LogBytesMax = block.SizeMax, 64<<20, 64<<20
	s := mustOpen(t, o)
	var ids []block.ID
	tx, err := s.BeginWrite()
	ok(t, err)
	for range low + high {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		ids = append(ids, b.ID())
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	settle(t, s)
	settle(t, s)
	edit := func(ids []block.ID, v byte) {
		t.Helper()
		tx, err := s.BeginWrite()
		ok(t, err)
		for _, id := range ids {
			b, err := tx.Edit(id)
			ok(t, err)
			for at := 0; at < len(b.Payload()); at += 1 << 12 {
				b.Payload()[at] = v
			}
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	edit(ids[low:], 2)
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: simfs.SyncCacheNew})
	write := g.next(simfs.OpWrite, fileData, touches(s.geo.offset(ids[low])))
	failed := async(func() { _ = s.cleaner.awaitRound(s.cleaner.rounds()) })
	<-write.reached
	edit(ids[:low], 2) // durable, and behind the round
	write.open()
	<-failed
	fault.Disarm()
	_ = s.Close()
	o.FS = fsys

	s = mustOpen(t, o)
	place := g.next(simfs.OpWrite, fileData, touches(s.geo.offset(ids[0])))
	cleaned := async(func() { settle(t, s) })
	<-place.reached // the second copies of the first batch are there
	after := fsys.Crash(nil, simfs.DropAll)
	place.open()
	<-cleaned
	mustClose(t, s)

	for _, id := range ids[low:] {
		tear(t, after, s, id, 2)
	}
	o.FS = after
	s = mustOpen(t, o)
	r := beginRead(t, s)
	for _, id := range ids {
		if got := value(t, r, id); got != 2 {
			t.Errorf("block %v is %d", id, got)
		}
	}
	r.Close()
	mustClose(t, s)
}

// tear leaves half of a block's newest image in place, if the disk does not have all of it.
func tear(t *testing.T, fsys *simfs.FS, s *Store, id block.ID, v byte) {
	t.Helper()
	data, err := fsys.Bytes(fileData)
	ok(t, err)
	at := s.geo.offset(id)
	if data[at] == v {
		return
	}
	f, err := fsys.OpenFile(fileData, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt([]byte{v}, at)
	ok(t, errors.Join(err, f.Sync(), f.Close()))
}

// TestR9_TailWaitsForItsFree: the commit that frees the end of the file is on its way to
// the disk when the cleaner comes to cut it off. Until it is durable a power cut may
// bring the blocks back into use.
func TestR9_TailWaitsForItsFree(t *testing.T) { synctest.Test(t, tailWaitsForItsFree) }

func tailWaitsForItsFree(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	o.MaxRAM *= 4
	s, id := oneBlock(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	var tail []block.ID
	for range 300 {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		tail = append(tail, b.ID())
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	settle(t, s)

	set(t, s, id, 2) // something for the round to do
	record := g.next(simfs.OpWrite, fileData, superblocks)
	cleaned := async(func() { ok(t, s.cleaner.awaitRound(s.cleaner.rounds())) })
	<-record.reached
	sync := g.every(simfs.OpSync, segments)
	freed := async(func() {
		tx, err := s.BeginWrite()
		ok(t, err)
		for _, id := range tail {
			ok(t, tx.Free(id))
		}
		_, err = tx.Commit()
		ok(t, err)
	})
	<-sync.reached
	synctest.Wait()
	size := s.data.length()
	record.open()
	synctest.Wait()
	if s.data.length() != size {
		t.Error("the tail is cut off, and a power cut may take the free of it back")
	}
	sync.open()
	<-freed
	<-cleaned
	settle(t, s)
	if s.data.length() == size {
		t.Error("the tail is never cut off")
	}
	mustClose(t, s)
}

// TestR16_DistrustIsDurable: the map was found to be wrong in a store that nobody
// writes to. The next checkpoint says so for good.
func TestR16_DistrustIsDurable(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, _ := oneBlock(t, o)
	settle(t, s)
	s.distrustMap()
	settle(t, s)
	newest := s.newestLSN()
	o.FS = fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	s = mustOpen(t, o)
	if got := s.mapFloor(); got != newest {
		t.Errorf("bases from %v on are taken, those below %v must not be", got, newest)
	}
	mustClose(t, s)
}

// TestL11_RolledBackBlocksAreUsedAgain: what a transaction took and gave up is free, and
// the next one takes it, spilled or not.
func TestL11_RolledBackBlocksAreUsedAgain(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	take := func(n int) (ids []block.ID) {
		t.Helper()
		tx, err := s.BeginWrite()
		ok(t, err)
		for range n {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			ids = append(ids, b.ID())
			b.Release()
		}
		ok(t, tx.Rollback())
		return ids
	}
	for _, n := range []int{3, 2 * s.privateMax()} {
		if first, again := take(n), take(n); !slices.Equal(first, again) {
			t.Errorf("%d blocks from %v on, and then from %v on", n, first[0], again[0])
		}
	}
	mustClose(t, s)
}

// TestRepair_ImageAsOfTheCommitBeforeTheLog: the oldest state that the log leads on from
// is the one before its first commit.
func TestRepair_ImageAsOfTheCommitBeforeTheLog(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	other := anotherBlock(t, s)
	fill(t, s, other, 3*o.segmentBytes())
	settle(t, s)
	data, err := fsys.Bytes(fileData)
	ok(t, err)
	image := data[s.geo.offset(id):][:s.geo.size]
	set(t, s, id, 2)
	settle(t, s)
	before := s.log.Oldest() - 1
	if before < 2 {
		t.Fatal("the log was not recycled")
	}
	squeeze(t, s)
	ok(t, fsys.FlipBits(fileData, s.geo.offset(id)+100, 4))
	out, err := s.RepairBlock(context.Background(), BlockRepair{Block: id, Image: image, AsOf: before})
	if err != nil || out.State != RepairImage {
		t.Errorf("repaired: %+v, %v", out, err)
	}
	r := beginRead(t, s)
	if got := value(t, r, id); got != 2 {
		t.Errorf("block %v is %d", id, got)
	}
	r.Close()
	mustClose(t, s)
}

// TestR1_FreeBehindTheHorizon: a block is changed and then freed, and the change is
// durable before the free is. Who opens now sees the change.
func TestR1_FreeBehindTheHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		g := newGates(fsys)
		s, id := oneBlock(t, smallOptions(fsys))
		before := s.newestLSN()
		first := g.next(simfs.OpSync, segments)
		changed := async(func() { set(t, s, id, 2) })
		<-first.reached
		freed := async(func() {
			tx, err := s.BeginWrite()
			ok(t, err)
			ok(t, tx.Free(id))
			_, err = tx.Commit()
			ok(t, err)
		})
		synctest.Wait()
		if end := s.log.End(); end != before+2 {
			t.Fatalf("the log ends at %v, not behind two commits more than %v", end, before)
		}
		second := g.next(simfs.OpSync, segments)
		first.open()
		<-changed
		<-second.reached
		r := beginRead(t, s)
		if r.LSN() != before+1 || value(t, r, id) != 2 {
			t.Errorf("at %v, where %v is durable, the block is %d", r.LSN(), before+1, value(t, r, id))
		}
		second.open()
		<-freed
		if got := value(t, r, id); got != 2 {
			t.Errorf("when the free is durable the snapshot has %d", got)
		}
		r.Close()
		mustClose(t, s)
	})
}

// TestR8_DamagedBlockThatTheLogMakesWhole: the place of a block is damaged, and no second
// copy is of use. A change of it is in the log, and then a whole image.
func TestR8_DamagedBlockThatTheLogMakesWhole(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	set(t, s, id, 2)
	fill(t, s, id, 1)
	r := beginRead(t, s)
	want := value(t, r, id)
	r.Close()
	o.FS = fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	ok(t, o.FS.(*simfs.FS).FlipBits(fileData, s.geo.offset(id)+100, 4))
	s = mustOpen(t, o)
	r = beginRead(t, s)
	if got := value(t, r, id); got != want {
		t.Errorf("the block is %d, not %d", got, want)
	}
	r.Close()
	mustClose(t, s)
}
