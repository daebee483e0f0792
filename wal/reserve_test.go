package wal

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// R7: once reserved, a commit of any shape asks the file system for nothing: no
// file is made or opened, and a full disk does not matter.
func TestR7_ReservedIsEnough(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		fs := newTestFS(t)
		r := newRig(t, fs)
		r.create()
		for range 20 {
			reservedCommit(r, rng)
		}
		r.close()
		r.must()
	}
}

func reservedCommit(r *rig, rng *rand.Rand) {
	sizes := make([]int, 1+rng.IntN(recordsReserved))
	total := 0
	for i := range sizes {
		sizes[i] = rng.IntN(1 << rng.IntN(18))
		total += sizes[i]
	}
	err := r.l.Reserve(int64(total))
	if errors.Is(err, ErrFull) {
		r.release(r.acked + 1)
		err = r.l.Reserve(int64(total))
	}
	r.keep(err)
	r.must()
	r.fs.SetCapacity(r.fs.UsedBytes())
	armed := r.fs.Fail(simfs.Fault{Ops: simfs.OpCreate | simfs.OpOpen | simfs.OpAllocate | simfs.OpRename, Sticky: true})
	r.nonce++
	lsn := r.appended + 1
	c := commit{r.nonce, sizes}
	r.model[lsn], r.appended = c, lsn
	for i := range sizes {
		r.keep(r.l.Append(lsn, c.body(lsn, i), i == len(sizes)-1))
		if rng.IntN(2) == 0 { // partial syncs leave marks, which take room too
			r.keep(r.l.Sync(r.acked))
			r.l.mu.Lock()
			r.keep(r.l.flushAll())
			r.l.mu.Unlock()
		}
	}
	r.sync()
	r.must()
	armed.Disarm()
	r.fs.SetCapacity(1 << 40)
}

// R7: at the limit Reserve refuses, and a release makes room; the log that
// recovery needs never passes the limit.
func TestR7_LimitAsksForACheckpoint(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.LimitBytes = 4 * SegmentBytesMin
	r.create()
	full := 0
	for range 60 {
		if err := r.l.Reserve(30000); errors.Is(err, ErrFull) {
			full++
			r.release(r.acked + 1)
		}
		r.commit(30000)
		if s := r.must().l.Stats(); s.LiveBytes > r.o.LimitBytes || int64(s.Segments)*SegmentBytesMin > r.o.LimitBytes {
			t.Fatalf("%+v", s)
		}
	}
	if full < 5 {
		t.Fatalf("full %d times", full)
	}
}

// R7: a commit larger than the limit grows the log, which shrinks afterwards.
func TestR7_LargeCommitGrowsTheLog(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.LimitBytes = 3 * SegmentBytesMin
	r.create()
	r.commit(40000)
	r.commit(100000, 100000, 100000, 100000)
	grown := r.must().l.Stats().Segments
	if grown < 8 {
		t.Fatalf("%d segments", grown)
	}
	n := r.crash(simfs.DropAll)
	n.recover()
	for range 3 {
		n.commit(3000)
		n.release(n.acked + 1)
	}
	if s := n.must().l.Stats(); s.Segments > 3 || s.LiveBytes > n.o.LimitBytes {
		t.Fatalf("after a release: %+v", s)
	}
	n.crash(simfs.DropAll).mustEndAt(n.acked)
}

// R7: a limit lowered below the size of the last segment does not stop the log
// for ever: that one cannot be released before there is another. The limit holds
// as soon as it is gone.
func TestR7_LimitBelowTheLastSegment(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.SegmentBytes, r.o.LimitBytes = 8*SegmentBytesMin, 24*SegmentBytesMin
	r.create()
	r.commit(100)
	r.close()
	n := r.must().crash(simfs.DropAll)
	n.o.SegmentBytes, n.o.LimitBytes = SegmentBytesMin, 3*SegmentBytesMin
	n.recovered()
	for range 10 {
		n.commit(20000)
	}
	if s := n.must().l.Stats(); s.LiveBytes > n.o.LimitBytes || int64(s.Segments)*SegmentBytesMin > n.o.LimitBytes {
		t.Fatalf("%+v", s)
	}
}

// B16: a full disk refuses a reservation, poisons nothing, and is over when it
// is over. Full at every page of the growth of the log.
func TestB16_DiskFullHealsByItself(t *testing.T) {
	for pages := int64(0); ; pages++ {
		r := newRig(t, newTestFS(t)).create()
		r.commit(30000)
		r.must()
		r.fs.SetCapacity(r.fs.UsedBytes() + pages*4096)
		err := r.l.Reserve(60000)
		if err == nil {
			if pages < SegmentBytesMin/4096 {
				t.Fatalf("reserved a segment in %d pages", pages)
			}
			return
		}
		if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFailed) {
			t.Fatalf("%d pages: %v", pages, err)
		}
		r.commit(100) // still fits
		if pages%5 == 0 {
			r.must().crash(simfs.Random).mustEndAt(r.acked)
		}
		r.fs.SetCapacity(1 << 40)
		r.commit(60000)
		r.must().checkRead(1, 3)
	}
}

// B16: the same where the system finds out late, while it writes or syncs a new
// file; any other failure there poisons (L8).
func TestB16_NoSpaceFoundLate(t *testing.T) {
	for _, op := range []simfs.Op{simfs.OpWrite, simfs.OpSync, simfs.OpSyncDir} {
		r := logOf(t, 1)
		r.fs.Fail(simfs.Fault{Ops: op, Err: syscall.ENOSPC})
		if err := r.l.Reserve(100_000); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFailed) {
			t.Errorf("%v: %v", op, err)
		}
		r.commit(100_000)
		r.must()
		r.fs.Fail(simfs.Fault{Ops: op})
		if err := r.l.Reserve(300_000); !errors.Is(err, ErrFailed) {
			t.Errorf("%v with EIO: %v", op, err)
		}
	}
}

// R7: a release between a reservation and its commit takes nothing back.
func TestR7_ReleaseLeavesAReservationAlone(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.LimitBytes = 3 * SegmentBytesMin
	r.create()
	r.commit(100)
	if err := r.l.Reserve(300_000); err != nil {
		t.Fatal(err)
	}
	r.release(r.acked + 1)
	r.fs.Fail(simfs.Fault{Ops: simfs.OpCreate | simfs.OpOpen, Sticky: true})
	if err := r.l.Append(2, make([]byte, 300_000), true); err != nil {
		t.Fatal(err)
	}
	if err := r.l.Sync(2); err != nil {
		t.Fatal(err)
	}
}

// L8: "no space left" from a write into reserved space, or from its sync, is
// not that: it poisons.
func TestL8_NoSpaceInReservedSpacePoisons(t *testing.T) {
	for _, op := range []simfs.Op{simfs.OpWrite, simfs.OpSync} {
		r := logOf(t, 1)
		r.fs.Fail(simfs.Fault{Ops: op, Err: syscall.ENOSPC})
		if r.commit(10); !errors.Is(r.err, ErrFailed) {
			t.Errorf("%v: %v", op, r.err)
		}
	}
}

// R14: holders keep log, are listed with what it costs, and do not count
// against the limit.
func TestR14_Holders(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.LimitBytes = 3 * SegmentBytesMin
	r.create()
	r.commit(10)
	h := r.l.Hold("archive", 2)
	s := r.l.Hold("standby", 5)
	for range 20 {
		r.commit(30000)
		r.release(r.acked + 1)
	}
	r.must()
	list := r.l.Holders()
	if len(list) != 2 || list[0].Name != "archive" || list[0].Bytes <= list[1].Bytes || list[1].Bytes == 0 {
		t.Fatalf("%+v", list)
	}
	if st := r.l.Stats(); st.HeldBytes != list[0].Bytes || st.LiveBytes > r.o.LimitBytes {
		t.Fatalf("%+v, holders %+v", st, list)
	}
	r.checkRead(2, r.acked)
	h.Move(9)
	if o := r.l.Oldest(); o > 5 || o <= 2 {
		t.Fatalf("oldest %v with a holder of 5", o)
	}
	s.Drop()
	s.Drop()
	r.checkRead(9, r.acked)
	if err := r.l.Read(2, nil); !errors.Is(err, ErrReleased) {
		t.Fatalf("read of what was let go: %v", err)
	}
	h.Drop()
	r.release(r.acked + 1)
	if st := r.must().l.Stats(); st.HeldBytes != 0 || st.Segments > 3 {
		t.Fatalf("%+v", st)
	}
}

// R15, R6: a reader with a holder sees every commit once, in order, none above
// the horizon, while the log is appended to, recycled and synced.
func TestR15_ReadWhileAppending(t *testing.T) {
	fs := newTestFS(t)
	o := testOptions(fs)
	o.foreground = false
	l, err := Create(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := l.Hold("archive", 1)
	const commits = 600
	var both sync.WaitGroup
	both.Go(func() {
		var writer sync.Mutex
		for range commits {
			lsn := appendOne(t, l, &writer, 5000)
			if err := l.Sync(lsn); err != nil {
				t.Error(err)
			}
		}
	})
	both.Go(func() {
		for next := block.LSN(1); next <= commits; {
			err := l.Read(next, func(lsn block.LSN, body []byte, last bool) error {
				if lsn != next || !last || len(body) != 5000 || lsn > l.Durable() {
					t.Errorf("LSN %v, want %v, horizon %v", lsn, next, l.Durable())
				}
				next++
				return nil
			})
			if err != nil {
				t.Error(err)
				return
			}
			h.Move(next)
		}
	})
	both.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A reader without a holder is told when its log goes, also while it reads; it
// never gets another segment's bytes.
func TestReadOfReleasedLog(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 8 {
		r.commit(20000)
	}
	err := r.l.Read(1, func(lsn block.LSN, _ []byte, _ bool) error {
		if lsn == 1 {
			r.release(r.acked + 1)
			for range 12 {
				r.commit(20000)
			}
		}
		return nil
	})
	if !errors.Is(err, ErrReleased) {
		t.Fatal(err)
	}
	r.must()
}

// R18: the checksum of a commit names it, and stays the same.
func TestR18_ChecksumNamesACommit(t *testing.T) {
	r := logOf(t, 4)
	seen := map[uint32]bool{}
	n := r.crash(simfs.DropAll)
	n.recover()
	for lsn := block.LSN(1); lsn <= 4; lsn++ {
		a, err := r.l.Checksum(lsn)
		b, err2 := n.l.Checksum(lsn)
		if err != nil || err2 != nil || a != b || seen[a] {
			t.Fatalf("LSN %v: %x %x %v %v", lsn, a, b, err, err2)
		}
		seen[a] = true
	}
	r.append(10) // not durable: its name must not leave the process (R6)
	if _, err := r.must().l.Checksum(5); !errors.Is(err, ErrOrder) {
		t.Fatal(err)
	}
}

// R7: a large commit's segments are made ready one after the other. Who releases log at
// each step of that takes none away: each is opened once.
func TestR7_ReleaseWhileSegmentsAreMade(t *testing.T) {
	r := logOf(t, 1)
	opened, steps := map[string]int{}, 0
	r.fs.Before(func(e simfs.Event) {
		if e.Op == simfs.OpOpen {
			opened[e.File]++
		}
		if steps++; e.Op&(simfs.OpRename|simfs.OpOpen) != 0 && steps < 1000 { // or it may never end
			r.keep(r.l.Release(r.acked + 1))
		}
	})
	if err := r.l.Reserve(300_000); err != nil {
		t.Fatal(err)
	}
	r.fs.Before(nil)
	if len(opened) < 3 {
		t.Fatalf("opened: %v", opened)
	}
	for name, n := range opened {
		if n != 1 {
			t.Errorf("%s was opened %d times", name, n)
		}
	}
	r.commit(300_000)
	r.must()
}

// R7: where the disk is full and commits still have room, none of them makes a file and
// throws it away again, and the next segment is made ahead when there is room.
func TestR7_FullDiskIsNotAskedByEachCommit(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.foreground = false
	r.create()
	r.keep(r.must().l.Settle())
	full := r.fs.Fail(simfs.Fault{Ops: simfs.OpAllocate, Err: syscall.ENOSPC, Sticky: true})
	segments := r.l.number
	for r.l.number == segments { // the next one is ready
		r.commit(1000)
		r.keep(r.must().l.Settle())
	}
	for range 30 {
		r.commit(1000)
		r.keep(r.must().l.Settle())
	}
	if n := full.Seen(); n != 1 {
		t.Errorf("30 commits that have room asked %d times", n)
	}
	full.Disarm()
	r.release(r.acked + 1) // a checkpoint: another file may have given some back
	r.commit(1000)
	r.keep(r.must().l.Settle())
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if len(r.l.ready) != 1 {
		t.Errorf("%d segments are ready", len(r.l.ready))
	}
}
