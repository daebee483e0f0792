package wal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// place is where a record stands.
type place struct {
	slot  int
	off   int64
	lsn   block.LSN
	flags recordFlags
	bytes int
}

// places lists the records of the live segments of an open log.
func (r *rig) places() (list []place) {
	r.t.Helper()
	for _, seg := range r.l.live {
		in, err := openSegment(&r.o, seg)
		if err != nil {
			r.t.Fatal(err)
		}
		for off := int64(recordsOffset); off < seg.end; {
			rec, ok, err := in.record(off)
			if !ok || err != nil {
				r.t.Fatalf("slot %d offset %d: sound=%v %v", seg.slot, off, ok, err)
			}
			n := recordBytes(len(rec.body))
			list = append(list, place{seg.slot, off, rec.lsn, rec.flags, n})
			off += int64(n)
		}
		in.close()
	}
	return list
}

func (r *rig) placeOf(lsn block.LSN) place {
	r.t.Helper()
	for _, p := range r.places() {
		if p.lsn == lsn && p.flags&flagMark == 0 {
			return p
		}
	}
	r.t.Fatalf("LSN %v is nowhere", lsn)
	return place{}
}

// mustRefuse opens the log and wants a corruption error of the given place (-1:
// any offset).
func (r *rig) mustRefuse(off int64) *block.CorruptError {
	r.t.Helper()
	l, err := Open(r.o, Start{Redo: r.redo})
	var c *block.CorruptError
	if err == nil {
		r.t.Fatalf("opened, and ends at %v", l.End())
	}
	if !errors.As(err, &c) || c.Path == "" {
		r.t.Fatalf("refused without a place: %v", err)
	}
	if off >= 0 && c.Offset != off {
		r.t.Fatalf("damage at %d, want %d: %v", c.Offset, off, err)
	}
	return c
}

// mustEndAt opens the log and wants it to end there.
func (r *rig) mustEndAt(end block.LSN) *rig {
	r.t.Helper()
	r.acked = min(r.acked, end) // what this test damaged was not acknowledged, or is allowed to go
	r.recover()
	r.must()
	if r.l.End() != end {
		r.t.Fatalf("log ends at %v, want %v", r.l.End(), end)
	}
	return r
}

// logOf makes a log of n commits, each synced by itself, and returns it after a
// power cut.
func logOf(t *testing.T, n int) *rig {
	r := newRig(t, newTestFS(t)).create()
	for i := range n {
		r.commit(200 + 8*i)
	}
	return r.must()
}

// R5: a cut that keeps 106 and loses 105 is legal; both are gone.
func TestR5_CutKeepsNextAndLosesDue(t *testing.T) {
	r := logOf(t, 4)
	r.append(500)
	r.append(500)
	r.sync() // their group reached the disk; the process never heard of it
	r.acked = 4
	n := r.crash(simfs.KeepAll)
	lost := r.placeOf(5)
	n.damage(lost.slot, lost.off+60)
	n.mustEndAt(4)

	// R5: an old 106 is not replayed behind a new, equally long 105.
	n.commit(500)
	z := n.crash(simfs.DropAll)
	z.mustEndAt(5)

	// Nor where the new 105 is lost again, to the next cut ...
	y := n.crash(simfs.KeepAll)
	p := n.placeOf(5)
	y.damage(p.slot, p.off+60)
	y.acked = 4
	y.mustEndAt(4)
	// ... nor after a third recovery.
	y.commit(500)
	y.commit(500)
	y.crash(simfs.DropAll).mustEndAt(6)
}

// R5: damage where a later record claims that it was synced refuses. Every byte
// of every record below the last claim, one bit each (B3, B5).
func TestR5_DamageBelowSyncedRefuses(t *testing.T) {
	r := logOf(t, 3)
	r.append(100, 30)
	r.commit(41)
	r.idle()
	list := r.must().places()
	for _, p := range list[:len(list)-1] {
		for i := range p.bytes {
			n := r.crash(simfs.DropAll)
			n.damage(p.slot, p.off+int64(i))
			n.mustRefuse(p.off)
		}
	}
	mark := list[len(list)-1]
	if mark.flags != flagMark {
		t.Fatal("the idle log has no sync mark at its end")
	}
	for i := range mark.bytes { // the last record cannot vouch for itself
		n := r.crash(simfs.DropAll)
		n.damage(mark.slot, mark.off+int64(i))
		n.mustEndAt(5)
	}
}

// R5: without the idle mark the last group looks like a torn tail, and only
// Start.Durable knows better.
func TestR5_RotInTheLastGroupNeedsDurable(t *testing.T) {
	r := logOf(t, 5)
	p := r.placeOf(5)
	n := r.crash(simfs.DropAll)
	n.damage(p.slot, p.off+50)
	_, err := Open(n.o, Start{Redo: 1, Durable: 5})
	if !errors.Is(err, ErrEndsEarly) || !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("log that ends below its durable LSN: %v", err)
	}
	n.mustEndAt(4)
}

// R5: a clean close leaves nothing undetectable but its own mark.
func TestR5_CleanCloseVouchesForAll(t *testing.T) {
	r := logOf(t, 3)
	r.commit(64)
	list := r.places()
	r.close()
	for _, p := range list {
		n := r.crash(simfs.DropAll)
		n.damage(p.slot, p.off+8)
		n.mustRefuse(p.off)
	}
	n := r.crash(simfs.DropAll)
	n.mustEndAt(4)
	if !n.l.Clean() {
		t.Fatal("not clean after Close")
	}
	if z := n.crash(simfs.KeepAll); !z.mustEndAt(4).l.Clean() {
		t.Fatal("not clean after an opening that appended nothing")
	}
	n.commit(10)
	if z := n.crash(simfs.DropAll); z.mustEndAt(5).l.Clean() {
		t.Fatal("clean after a cut")
	}
}

// R5: only the last group is in doubt. What was appended while 1 was synced says
// nothing about 1, so its group gets a mark that does.
func TestR5_OnlyTheLastGroupIsInDoubt(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	r.append(100)
	r.duringSync(func() { r.append(200) })
	r.sync()
	r.sync()
	p := r.must().placeOf(1)
	n := r.crash(simfs.DropAll)
	n.damage(p.slot, p.off+50)
	n.mustRefuse(p.off)
}

// R5: the header of a segment vouches for the segment before it.
func TestR5_HeaderVouchesForWhatIsBefore(t *testing.T) {
	r := logOf(t, 1)
	first := r.l.cur
	r.commit(50000)
	r.commit(int(first.limit()-r.l.pos) - recordHeaderBytes - recordAlign)
	last := r.placeOf(r.acked)
	r.commit(500)
	next := r.placeOf(r.acked)
	if last.slot != first.slot || next.slot == first.slot {
		t.Fatalf("slots %d and %d", last.slot, next.slot)
	}
	n := r.crash(simfs.DropAll)
	n.damage(next.slot, next.off)
	n.damage(last.slot, last.off+100)
	n.mustRefuse(last.off)
}

// R5: a mark that a sync wrote into the middle of a commit does not end it.
func TestR5_MarkInsideACommit(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	r.append(100)
	c := commit{nonce: 99, sizes: []int{300, 400, 10}}
	r.model[2] = c
	add := func(i int) { r.keep(r.l.Append(2, c.body(2, i), i == 2)) }
	r.duringSync(func() { add(0) })
	r.sync()
	r.l.o.BufferBytes = 1
	add(1) // forces a sync of the first record, and its mark
	n := r.must().crash(simfs.KeepAll)
	r.l.mu.Lock()
	r.keep(r.l.flushAll()) // what add(1) left in the buffer
	r.l.mu.Unlock()
	list := r.must().places()
	if len(list) < 3 || list[2].flags != flagMark || list[2].lsn != 2 {
		t.Fatalf("no mark in the middle: %+v", list)
	}
	n.mustEndAt(1)
	r.crash(simfs.KeepAll).mustEndAt(1)
	add(2)
	r.appended = 2
	r.sync()
	r.must().crash(simfs.DropAll).mustEndAt(2)
}

// R5: the same where the commit that the mark is in goes on after it.
func TestR5_CommitGoesOnBehindAMark(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	r.append(100)
	c := commit{nonce: 99, sizes: []int{300, 400}}
	r.model[3] = c
	r.duringSync(func() {
		r.append(100)
		r.keep(r.l.Append(3, c.body(3, 0), false))
	})
	r.keep(r.l.Sync(1))
	r.keep(r.l.Sync(2)) // its group has a mark, for 1, behind the first record of 3
	r.acked, r.appended = 2, 3
	r.crash(simfs.DropAll).mustEndAt(2)
	r.keep(r.l.Append(3, c.body(3, 1), true))
	r.sync()
	if list := r.must().places(); list[3].flags != flagMark || list[3].lsn != 3 || list[4].lsn != 3 {
		t.Fatalf("no mark inside 3: %+v", list)
	}
	r.crash(simfs.DropAll).mustEndAt(3)
}

// A record follows another only with its checksum and the LSN that is due.
func TestR5_Follows(t *testing.T) {
	for _, c := range []struct {
		r    record
		open bool
		want bool
	}{
		{record{lsn: 6, prevSum: 9}, false, true},
		{record{lsn: 6, prevSum: 8}, false, false},
		{record{lsn: 5, prevSum: 9}, false, false},
		{record{lsn: 7, prevSum: 9}, false, false},
		{record{lsn: 5, prevSum: 9}, true, true},
		{record{lsn: 6, prevSum: 9}, true, false},
		{record{lsn: 5, prevSum: 9, flags: flagMark}, false, true},
		{record{lsn: 6, prevSum: 9, flags: flagMark}, false, false},
		{record{lsn: 5, prevSum: 9, flags: flagMark}, true, true},
	} {
		if got := c.r.follows(5, 9, c.open); got != c.want {
			t.Errorf("%+v behind LSN 5, open %v: %v", c.r, c.open, got)
		}
	}
}

// A segment is not let go before its successor is on disk: there would be no
// log at all after a cut.
func TestReleaseWaitsForTheSuccessor(t *testing.T) {
	r := logOf(t, 3).crash(simfs.DropAll)
	r.o.SegmentBytes *= 2 // so that what is released is removed
	r.recovered()
	r.append(100) // in a fresh segment, not synced
	r.release(r.acked + 1)
	r.must().crash(simfs.KeepAll).recovered()
	r.sync()
	r.release(r.acked + 1)
	if n := r.must().l.Stats().Segments; n > 2 {
		t.Errorf("%d segments after a release", n)
	}
	r.crash(simfs.KeepAll).recovered()

	// The same where the successor is in a slot that was there at opening.
	r = logOf(t, 3)
	r.keep(r.l.Reserve(SegmentBytesMin))
	r = r.must().crash(simfs.DropAll)
	r.o.LimitBytes = 3 * SegmentBytesMin
	r.recovered()
	r.append(100)
	r.keep(r.l.Reserve(5 * SegmentBytesMin)) // beyond the limit: what is released is removed
	r.release(r.acked + 1)
	r.must().crash(simfs.KeepAll).recovered()
}

// R5: a commit of several records without its last one is a torn tail.
func TestR5_CommitWithoutItsLastRecord(t *testing.T) {
	r := logOf(t, 2)
	r.o.BufferBytes = 1 // each record is synced by the next
	r.l.o.BufferBytes = 1
	for i := range 3 {
		if err := r.l.Append(3, make([]byte, 1000), false); err != nil {
			t.Fatal(i, err)
		}
	}
	n := r.crash(simfs.KeepAll)
	n.mustEndAt(2)
	n.commit(100)
	n.crash(simfs.DropAll).mustEndAt(3)
}

// R5: what lies between a cut and the segment that went on from it is dead: it
// is not replayed and is no evidence.
func TestR5_WhatACutLeftIsDead(t *testing.T) {
	r := logOf(t, 3)
	r.commit(20000, 20000, 20000, 3000) // 4 reaches into the next segment
	r.acked = 3
	list := r.places()
	lost := list[len(list)-1]
	if lost.slot == list[0].slot {
		t.Fatal("the commit is in one segment")
	}
	n := r.crash(simfs.KeepAll)
	n.damage(lost.slot, lost.off)
	n.mustEndAt(3)
	n.commit(700) // the new 4 stands in a fresh segment
	n.commit(700)
	n.must().checkRead(1, 5)
	for range 3 {
		n = n.crash(simfs.DropAll)
		n.mustEndAt(n.acked)
		n.commit(300)
	}
	// Damage to the new 4 is no torn tail: the new 5 claims it.
	p := n.placeOf(4)
	z := n.crash(simfs.DropAll)
	z.damage(p.slot, p.off+41)
	z.mustRefuse(p.off)
}

// R5: recovery never appends behind a cut, and goes on under a new salt.
func TestR5_GoesOnInAFreshSegment(t *testing.T) {
	r := logOf(t, 3)
	before := r.l.live[0]
	n := r.crash(simfs.DropAll)
	n.recover()
	n.commit(10)
	n.must()
	fresh := n.l.live[len(n.l.live)-1]
	if fresh.slot == before.slot || fresh.header.salt == before.header.salt || fresh.header.number <= before.header.number {
		t.Fatalf("went on in slot %d, segment %d", fresh.slot, fresh.header.number)
	}
	if fresh.header.prevLSN != 3 {
		t.Fatalf("the fresh segment follows LSN %v", fresh.header.prevLSN)
	}
	// A fresh segment of which nothing was accepted is not part of the log.
	z := n.crash(simfs.KeepAll)
	z.damage(fresh.slot, recordsOffset+50)
	if z.mustEndAt(3); len(z.l.live) != 1 || z.l.live[0].slot != before.slot {
		t.Fatalf("%d segments are live", len(z.l.live))
	}
}

// B3: a whole segment missing in the middle, or at the start, refuses.
func TestB3_MissingSegmentRefuses(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 12 {
		r.commit(20000)
	}
	for i, seg := range r.must().l.live[:len(r.l.live)-1] {
		n := r.crash(simfs.DropAll)
		if err := n.fs.Remove(seg.path(testDir)); err != nil {
			t.Fatal(err)
		}
		c := n.mustRefuse(-1)
		t.Logf("without segment %d: %v", i+1, c)
	}
}

// B3: a segment file that is cut short anywhere refuses: files have their whole
// size before they have a name.
func TestB3_ShortSegmentRefuses(t *testing.T) {
	r := logOf(t, 3)
	for size := int64(0); size < SegmentBytesMin; size += 1000 {
		n := r.crash(simfs.DropAll)
		f, err := n.fs.OpenFile(testDir+"/0001.wal", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		n.mustRefuse(-1)
	}
}

// B4: a recycled file holds valid records of its earlier use right behind the
// new end, at every alignment; none is taken.
func TestB4_RecycledSegmentHoldsOldRecords(t *testing.T) {
	for size := 8; size <= 4096; size *= 2 {
		for used := 1; used <= 3; used++ {
			t.Run(fmt.Sprintf("%d bytes, %d records", size, used), func(t *testing.T) {
				recycledUse(t, size, used)
			})
		}
	}
}

func recycledUse(t *testing.T, size, used int) {
	r := newRig(t, newTestFS(t)).create()
	first := r.l.cur
	for r.l.cur == first {
		r.append(size)
	}
	r.sync()
	r.release(r.acked)
	slot := r.l.cur
	for r.l.cur == slot {
		r.append(size)
	}
	r.sync()
	if r.must().l.cur.slot != first.slot {
		t.Fatalf("slot %d is not used again", first.slot)
	}
	for range used {
		r.commit(size)
	}
	r.release(r.acked)
	n := r.crash(simfs.KeepAll)
	n.mustEndAt(r.acked)
}

// B18: a segment of another database, or of another timeline of this one.
func TestB18_ForeignSegmentRefuses(t *testing.T) {
	r := logOf(t, 3)
	for _, change := range []func(o *Options){
		func(o *Options) { o.Database[5]++ },
		func(o *Options) { o.Timeline[5]++ },
	} {
		n := r.crash(simfs.DropAll)
		change(&n.o)
		if c := n.mustRefuse(0); !errors.Is(c, ErrForeign) {
			t.Fatal(c)
		}
	}
}

// R5: one sound header copy is enough, none refuses; every bit of both.
func TestR5_HeaderCopies(t *testing.T) {
	r := logOf(t, 2)
	for i := range int64(headerBytes) {
		for _, off := range []int64{i, headerBlockBytes + i} {
			n := r.crash(simfs.DropAll)
			n.damage(1, off)
			n.mustEndAt(2)
		}
		n := r.crash(simfs.DropAll)
		n.damage(1, i)
		n.damage(1, headerBlockBytes+(i*7)%headerBytes)
		n.mustRefuse(0)
	}
}

// The magic is looked at before the version, the version before the checksum.
func TestHeaderErrorsInOrder(t *testing.T) {
	h := header{kind: kindSpare, size: SegmentBytesMin}
	whole := make([]byte, headerBytes)
	h.encode(whole)
	for _, c := range []struct {
		bytes []int
		want  error
	}{
		{[]int{0, 8, 40}, errHeaderMagic},
		{[]int{8, 40}, ErrVersion},
		{[]int{40}, errHeaderChecksum},
	} {
		b := append([]byte(nil), whole...)
		for _, i := range c.bytes {
			b[i] ^= 1
		}
		if _, err := decodeHeader(b); !errors.Is(err, c.want) {
			t.Errorf("bytes %v changed: %v", c.bytes, err)
		}
	}
}

// A slot that a newer release took in use refuses, though its second copy is
// still the old one.
func TestHeaderOfNewerVersionDecides(t *testing.T) {
	b := make([]byte, recordsOffset)
	h := header{kind: kindSpare, size: SegmentBytesMin}
	h.encode(b)
	h.encode(b[headerBlockBytes:])
	b[8] = 2
	sum := headerChecksum(b)
	b[12], b[13], b[14], b[15] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	if _, err := pickHeader(b); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
	b[8] = 3 // rot: the other copy stands
	if _, err := pickHeader(b); err != nil {
		t.Fatal(err)
	}
}

// R6: an LSN that was declared durable elsewhere has to be there.
func TestR6_EndBelowDurableRefuses(t *testing.T) {
	r := logOf(t, 3)
	r.close()
	for durable := block.LSN(0); durable < 6; durable++ {
		n := r.crash(simfs.DropAll)
		_, err := Open(n.o, Start{Redo: 1, Durable: durable})
		if errors.Is(err, ErrEndsEarly) != (durable > 3) || (err != nil) != (durable > 3) {
			t.Fatalf("durable %v: %v", durable, err)
		}
	}
	if _, err := Open(r.crash(simfs.DropAll).o, Start{Redo: 9}); err == nil {
		t.Fatal("opened without the redo start")
	}
}

// R14: what a holder wants is kept across an opening, as far as it is sound.
func TestR14_KeepAcrossOpen(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 9 {
		r.commit(20000)
	}
	r.must()
	open := func(n *rig, keep block.LSN) *Log {
		l, err := Open(n.o, Start{Redo: 8, Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	n := r.crash(simfs.DropAll)
	l := open(n, 2)
	if l.Oldest() > 2 {
		t.Fatalf("kept from %v", l.Oldest())
	}
	if s := l.Stats(); s.HeldBytes == 0 || s.LiveBytes > 2*SegmentBytesMin {
		t.Fatalf("what is kept for others is counted as recovery's: %+v", s)
	}
	h := l.Hold("archive", 5)
	if err := l.Release(8); err != nil {
		t.Fatal(err)
	}
	if o := l.Oldest(); o > 5 || o <= 2 {
		t.Fatalf("holder of 5, log from %v", o)
	}
	h.Drop()
	if o := l.Oldest(); o <= 5 {
		t.Fatalf("no holder, log from %v", o)
	}
	n = r.crash(simfs.DropAll)
	p := r.placeOf(3)
	n.damage(p.slot, p.off+100)
	if o := open(n, 2).Oldest(); o <= 3 || o > 8 {
		t.Fatalf("LSN 3 is damaged, log from %v", o)
	}
}

// An option changed between openings: segments of the old size are read, and
// go when they are released.
func TestSegmentSizeChanges(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 7 {
		r.commit(20000)
	}
	n := r.must().crash(simfs.DropAll)
	n.o.SegmentBytes *= 2
	n.recover()
	for range 9 {
		n.commit(30000)
	}
	n.release(n.acked)
	n.commit(1)
	n.must()
	for _, s := range n.l.idle {
		if s.header.size != n.o.SegmentBytes {
			t.Fatalf("slot %d has still %d bytes", s.slot, s.header.size)
		}
	}
	n.crash(simfs.DropAll).mustEndAt(n.acked)
}

// TestR5_UnreadableIsNoTornTail: where a record is damaged, what stands behind it decides
// whether that is a torn tail. If it cannot be read for a moment, nothing is decided: a
// log that was cut there would have lost what was acknowledged.
func TestR5_UnreadableIsNoTornTail(t *testing.T) {
	r := logOf(t, 3)
	hurt := r.placeOf(3)
	for range 3 {
		r.commit(windowBytes + 1000) // its head is read before it is
	}
	r.must()
	reads := 0
	for struck := true; struck; reads++ {
		n := r.crash(simfs.DropAll)
		n.damage(hurt.slot, hurt.off+50)
		fault := n.fs.Fail(simfs.Fault{Ops: simfs.OpRead, Skip: reads})
		l, err := Open(n.o, Start{Redo: 1})
		if struck = fault.Fired() > 0; err == nil {
			t.Fatalf("read %d fails, and the log is cut at LSN %v", reads, l.End())
		}
		if struck && !errors.Is(err, syscall.EIO) && !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("read %d fails: %v", reads, err)
		}
	}
	if reads < 6 { // headers, what stands before the damage, and behind it
		t.Errorf("%d reads", reads)
	}
}

// What an owner that knows nothing of its log opens is all of it.
func TestOpen_WithoutAStart(t *testing.T) {
	r := logOf(t, 3)
	r.close()
	r.must()
	l, err := Open(r.o, Start{})
	if err != nil {
		t.Fatal(err)
	}
	r.l = l
	r.checkRead(1, 3)
	if n := l.Oldest(); n != 1 {
		t.Errorf("the log reaches back to %v", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
