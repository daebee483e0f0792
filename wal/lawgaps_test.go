package wal

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// L7: who waits for a commit is not let go before OnDurable has returned, also
// one who comes when the horizon has moved.
func TestL7_ToldBeforeAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS(t)
		o := testOptions(fs)
		gate, acked := make(chan struct{}), make(chan error, 2)
		o.OnDurable = func(block.LSN) { <-gate }
		l, err := Create(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(1, nil, true); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			go func() { acked <- l.Sync(1) }()
			synctest.Wait()
		}
		if len(acked) != 0 || l.Durable() != 1 {
			t.Errorf("%d acknowledged, horizon %v, and OnDurable has not returned", len(acked), l.Durable())
		}
		close(gate)
		for range 2 {
			if err := <-acked; err != nil {
				t.Error(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An Append that waited for a spare while the log was closed is refused: the
// spare that it waited for is closed too.
func TestClose_MeetsAnAppendThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Create(testOptions(newTestFS(t)), 0)
		if err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		l.preparing = true
		l.mu.Unlock()
		appended := make(chan error)
		go func() { appended <- l.Append(1, make([]byte, SegmentBytesMin), true) }()
		synctest.Wait() // part of it is in the segment, the rest waits
		l.mu.Lock()
		l.ready = append(l.ready, &segment{slot: 9, header: header{size: SegmentBytesMin}})
		l.preparing = false
		l.settle()
		if err := l.finish(); err != nil {
			t.Error(err)
		}
		l.letGo()
		l.mu.Unlock()
		if err := <-appended; !errors.Is(err, ErrClosed) {
			t.Errorf("append that met Close: %v", err)
		}
	})
}

// Close makes complete commits durable also where a writer gave up one behind
// them.
func TestClose_BehindACommitGivenUp(t *testing.T) {
	r := logOf(t, 1)
	r.append(100)
	r.keep(r.l.Append(3, make([]byte, 50), false))
	r.close()
	if v := r.must().l.Durable(); v != 2 {
		t.Fatalf("horizon %v after Close", v)
	}
	n := r.crash(simfs.DropAll)
	n.mustEndAt(2)
	if n.l.Clean() {
		t.Fatal("clean, with half a commit at the end")
	}
}

// A log that was closed in good order and only looked at is not written to: not
// a second end mark in a fresh segment each time.
func TestClose_NothingNew(t *testing.T) {
	r := logOf(t, 3)
	r.reopen()
	before := r.must().fs.Events()
	r.close()
	if n := r.must().fs.Events() - before; n != 0 {
		t.Fatalf("Close of a log that nobody appended to did %d operations", n)
	}
}

// R5: an idle log gets one mark, also for commits that were found at opening.
func TestR5_IdleMarkOnce(t *testing.T) {
	r := logOf(t, 3).crash(simfs.KeepAll)
	r.recovered()
	p := r.placeOf(3)
	r.keep(r.l.Reserve(10)) // the mark takes a spare that is there
	r.idle()
	n := r.must().crash(simfs.DropAll)
	n.damage(p.slot, p.off+50)
	n.mustRefuse(p.off)
	before := r.fs.Events()
	r.idle()
	if events := r.must().fs.Events() - before; events != 0 {
		t.Fatalf("a second mark of the same: %d operations", events)
	}
}

// R5: an idle log whose segment is full goes on in a spare, if there is one, to
// say that its last commit is durable.
func TestR5_IdleMarkOfAFullSegment(t *testing.T) {
	r := logOf(t, 1)
	r.commit(int(r.l.cur.limit()-r.l.pos) - recordHeaderBytes)
	first := r.must().l.cur
	p := r.placeOf(2)
	r.keep(r.l.Reserve(10))
	r.idle()
	if r.must(); r.l.cur == first || r.l.claimed != 2 {
		t.Fatalf("the log claims %v", r.l.claimed)
	}
	n := r.crash(simfs.DropAll)
	n.damage(p.slot, p.off+50)
	n.mustRefuse(p.off)
	r.commit(10)
	r.must().crash(simfs.DropAll).mustEndAt(3)
}

// A log that is being synced is not idle: MarkIdle leaves it to who syncs.
func TestMarkIdle_WhileOthersSync(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	r.append(100)
	r.duringSync(func() {
		r.idle()
		r.append(300)
	})
	r.sync()
	r.sync()
	r.must().crash(simfs.DropAll).mustEndAt(2)
}

// R5, B6: recovery writes again what no claim covers, and nothing else: opening
// does not rewrite the log.
func TestR5_RecoveryWritesWhatIsInDoubt(t *testing.T) {
	written := func(n *rig, s Start) (bytes int64) {
		t.Helper()
		n.fs.Trace(func(e simfs.Event) {
			if e.Op == simfs.OpWrite {
				bytes += e.Len
			}
		})
		l, err := Open(n.o, s)
		if err != nil || l.End() != 40 {
			t.Fatal(err)
		}
		return bytes
	}
	r := logOf(t, 40)
	last := int64(r.placeOf(40).bytes)
	if n := written(r.crash(simfs.KeepAll), Start{Redo: 1}); n != last {
		t.Errorf("%d bytes written, the last commit has %d", n, last)
	}
	if n := written(r.crash(simfs.KeepAll), Start{Redo: 1, Durable: 40}); n != 0 {
		t.Errorf("%d bytes written of what was declared durable", n)
	}
	r.idle()
	if n := written(r.must().crash(simfs.KeepAll), Start{Redo: 1}); n != recordHeaderBytes {
		t.Errorf("%d bytes written, want the mark", n)
	}
}

// R5: a slot file that somebody copied under another slot's name refuses.
func TestB18_SegmentThatIsThereTwice(t *testing.T) {
	r := logOf(t, 3)
	b, err := r.fs.Bytes(r.l.cur.path(testDir))
	if err != nil {
		t.Fatal(err)
	}
	n := r.crash(simfs.DropAll)
	f, err := n.fs.OpenFile(testDir+"/"+slotName(77), os.O_RDWR|os.O_CREATE, slotMode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	n.mustRefuse(0)
}

// R5: a header that says that a commit goes on where the log says that it is
// complete belongs to another history.
func TestR5_HeaderDisagreesOnOpenCommit(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	r.commit(60000)
	r.commit(10000)
	seg := *r.must().l.cur
	if seg.header.prevLSN == 0 {
		t.Fatal("the log is in its first segment")
	}
	seg.header.open = !seg.header.open
	n := r.crash(simfs.DropAll)
	if err := seg.openSlot(&n.o); err != nil {
		t.Fatal(err)
	}
	if err := seg.writeHeaders(0); err != nil {
		t.Fatal(err)
	}
	seg.file.Close()
	n.mustRefuse(0)
}

// Of two sound header copies the one of the later use counts, whichever it is.
func TestHeaderOfTheLaterUseCounts(t *testing.T) {
	b := make([]byte, recordsOffset)
	old, late := goldenHeader(), goldenHeader()
	late.number++
	for _, offA := range []int{0, headerBlockBytes} {
		late.encode(b[offA:])
		old.encode(b[headerBlockBytes-offA:])
		if h, err := pickHeader(b); err != nil || h != late {
			t.Errorf("later use at offset %d: %+v, %v", offA, h, err)
		}
	}
}

// A clean close needs no room: the end mark has its own, behind where other
// records stop, also in a segment that is full to the last byte.
func TestClose_FullSegmentHasRoomForTheEndMark(t *testing.T) {
	r := logOf(t, 1)
	r.commit(int(r.l.cur.limit()-r.l.pos) - recordHeaderBytes)
	if r.must(); r.l.pos != r.l.cur.limit() {
		t.Fatalf("%d bytes are left", r.l.cur.limit()-r.l.pos)
	}
	first := r.l.cur
	r.close()
	if r.must(); r.l.cur != first {
		t.Fatal("the end mark is in another segment")
	}
	n := r.crash(simfs.DropAll)
	n.mustEndAt(2)
	if !n.l.Clean() {
		t.Fatal("not clean")
	}
}

// R7: what Reserve asks for is enough for every commit that it covers, whatever
// its records leave unused at the ends of segments, with a mark behind each.
// Only the arithmetic, so that segments can be large.
func TestR7_SparesAreEnough(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	for range 2000 {
		size := int64(SegmentBytesMin) << rng.IntN(15)
		l := newLog(Options{SegmentBytes: size, LimitBytes: 1 << 62})
		segment := func() {
			l.cur, l.pos = &segment{header: header{size: size}}, recordsOffset
		}
		if rng.IntN(3) > 0 {
			segment()
			l.pos += rng.Int64N(l.cur.limit()-l.pos) &^ (recordAlign - 1)
		}
		sizes, total := coveredCommit(rng, size)
		spares, used := l.sparesFor(total), 0
		mark := func() {
			if l.cur != nil && l.pos+recordHeaderBytes <= l.cur.limit() {
				l.pos += recordHeaderBytes
			}
		}
		mark() // by a sync between Reserve and Append
		for _, n := range sizes {
			for n >= 0 {
				fits := l.fit(n)
				if fits < 0 {
					segment()
					used++
					continue
				}
				l.pos += int64(recordBytes(fits))
				if n -= fits; n == 0 {
					break
				}
			}
			mark()
		}
		if used > spares {
			t.Fatalf("seed %d: segments of %d bytes: %d spares for %d bytes, %d were needed", seed, size, spares, total, used)
		}
	}
}

// coveredCommit is the bodies of a commit as Reserve describes it, often such as
// leave much unused.
func coveredCommit(rng *rand.Rand, segmentBytes int64) (sizes []int, total int64) {
	long := rng.IntN(1 + int(min(3*segmentBytes/RecordBytesMax, 400)))
	n := RecordBytesMax/2 + rng.IntN(2)*rng.IntN(RecordBytesMax/2)
	for range long {
		sizes = append(sizes, n)
	}
	for range rng.IntN(recordsReserved + 1) {
		sizes = append(sizes, rng.IntN(1<<(1+rng.IntN(14))))
	}
	rng.Shuffle(len(sizes), func(i, j int) { sizes[i], sizes[j] = sizes[j], sizes[i] })
	for _, n := range sizes {
		total += int64(n)
	}
	return sizes, total
}

// R7: a segment of another size is not taken for a spare, whoever let it go: a
// reservation counts in segments of the size that is now asked for.
func TestR7_SparesHaveTheSizeAskedFor(t *testing.T) {
	r := logOf(t, 3).crash(simfs.DropAll)
	r.o.SegmentBytes *= 2
	r.recovered()
	h := r.l.Hold("archive", 1)
	r.commit(10)
	r.release(r.acked + 1)
	h.Drop() // recycles, and removes nothing
	if err := r.must().l.Reserve(1 << 20); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.l.ready {
		if s.header.size != r.o.SegmentBytes {
			t.Fatalf("slot %d has %d bytes", s.slot, s.header.size)
		}
	}
}

// R7: where the file system cannot allocate, the zeros that are written make
// sure of the space.
func TestR7_PrewrittenWithoutAllocate(t *testing.T) {
	for _, size := range []int64{SegmentBytesMin, 2*prewriteBytes + SegmentBytesMin} {
		r := newRig(t, newTestFS(t))
		r.o.SegmentBytes, r.o.LimitBytes = size, 8*size
		r.fs.Fail(simfs.Fault{Ops: simfs.OpAllocate, Err: errors.ErrUnsupported, Sticky: true})
		r.create()
		rng := rand.New(rand.NewPCG(1, 1))
		for range 10 {
			reservedCommit(r, rng)
		}
		r.must().crash(simfs.DropAll).recovered()
	}
}

// R7: what is prepared in the background stays within the limit.
func TestR7_PreparedAheadWithinTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newTestFS(t))
		r.o.foreground = false
		r.o.LimitBytes = 3 * SegmentBytesMin
		r.create()
		for range 12 {
			r.commit(30000)
			synctest.Wait()
			if n := r.must().l.Stats().Segments; n > 3 {
				t.Errorf("%d segments, the limit is 3", n)
			}
		}
		r.close()
		r.must()
	})
}

// R7: a commit that was not reserved and finds no room half way through ends the
// log: half of it may be on disk. Where nothing of it was appended it is refused.
func TestR7_UnreservedCommitOutOfRoom(t *testing.T) {
	for _, records := range []int{1, 2} {
		r := logOf(t, 1)
		r.fs.SetCapacity(r.fs.UsedBytes())
		rest := int(r.l.cur.limit() - r.l.pos)
		if records == 1 {
			c := commit{nonce: 50, sizes: []int{rest - recordHeaderBytes - 80}} // leaves no room for a piece
			r.model[2], r.appended = c, 2
			r.keep(r.l.Append(2, c.body(2, 0), true))
			rest = RecordBytesMax
		}
		lsn := r.must().l.End() + 1
		err := r.l.Append(lsn, make([]byte, rest), true)
		if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFailed) != (records == 2) {
			t.Fatalf("%d records: %v", records, err)
		}
		if r.fs.SetCapacity(1 << 40); records == 1 {
			r.commit(300)
			r.must().crash(simfs.DropAll).mustEndAt(lsn)
		}
	}
}

// L8: a disk that cannot be read is not damage: opening says so, and can be
// tried again.
func TestOpen_ReadErrorsAreNotDamage(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 8 {
		r.commit(20000)
	}
	for skip := 0; ; skip++ {
		n := r.must().crash(simfs.DropAll)
		armed := n.fs.Fail(simfs.Fault{Ops: simfs.OpRead, Skip: skip})
		_, err := Open(n.o, Start{Redo: 7, Keep: 1})
		if armed.Fired() == 0 {
			break
		}
		if !errors.Is(err, syscall.EIO) || errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("read %d failed: %v", skip, err)
		}
		if open := n.fs.OpenFiles(); len(open) != 0 {
			t.Fatalf("left open: %v", open)
		}
		n.recovered()
	}
}

// R14: recovery's start never moves back, whatever Release is told.
func TestR14_ReleaseNeverMovesBack(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	h := r.l.Hold("archive", 1)
	for range 9 {
		r.commit(30000)
	}
	r.release(9)
	before := r.must().l.Stats()
	r.release(2)
	if after := r.must().l.Stats(); after != before || before.HeldBytes == 0 {
		t.Fatalf("%+v became %+v", before, after)
	}
	h.Drop()
	if o := r.l.Oldest(); o < 8 {
		t.Fatalf("log from %v", o)
	}
	h = r.l.Hold("standby", 9)
	h.Move(2)
	if list := r.l.Holders(); list[0].LSN != 9 {
		t.Fatalf("moved back: %+v", list)
	}
}

// Create takes nothing away that holds records, also where the first of them is
// damaged, and Open clears what was never complete.
func TestCreate_OverWhatIsThere(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 8 {
		r.commit(20000)
	}
	for _, seg := range r.must().l.live {
		n := r.crash(simfs.DropAll)
		n.damage(seg.slot, recordsOffset+50)
		before := n.fs.Names()
		if _, err := Create(n.o, 0); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("create over a log: %v", err)
		}
		if after := n.fs.Names(); !slices.Equal(after, before) {
			t.Fatalf("%v became %v", before, after)
		}
		n.damage(seg.slot, recordsOffset+50) // back to what it was
		n.mustEndAt(8)
	}
	n := r.crash(simfs.DropAll)
	f, err := n.fs.OpenFile(testDir+"/0055.wal"+unborn, os.O_RDWR|os.O_CREATE, slotMode)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	n.recovered()
	if slices.Contains(n.fs.Names(), testDir+"/0055.wal"+unborn) {
		t.Fatal("what was never complete is still there")
	}
}

// Slot files are the owner's alone, and a spare has two header copies: rot in
// one does not keep a log from opening.
func TestSpare_ModeAndCopies(t *testing.T) {
	r := logOf(t, 1)
	if err := r.l.Reserve(SegmentBytesMin); err != nil {
		t.Fatal(err)
	}
	name := r.l.ready[0].path(testDir)
	info, err := r.fs.Lstat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	for _, off := range []int64{16, headerBlockBytes + 16} {
		n := r.crash(simfs.DropAll)
		n.damage(r.l.ready[0].slot, off)
		n.mustEndAt(1)
	}
}

// A reader of a log that is closed under it is told so, whatever becomes of the files: who
// closed it may open it again, or make it anew for another timeline.
func TestRead_ClosedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(*rig, int) error{
		"gone":  func(r *rig, slot int) error { return r.fs.Remove(testDir + "/" + slotName(slot)) },
		"other": func(r *rig, slot int) error { r.damage(slot, recordsOffset+4); return nil },
	} {
		r := newRig(t, newTestFS(t)).create()
		for range 4 {
			r.commit(40000) // a segment holds less than two
		}
		slot := r.must().l.live[2].slot
		err := r.l.Read(1, func(lsn block.LSN, _ []byte, _ bool) error {
			if lsn > 1 {
				return nil
			}
			r.close()
			return errors.Join(r.err, change(r, slot))
		})
		if !errors.Is(err, ErrClosed) || errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
