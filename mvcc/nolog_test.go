package mvcc

import (
	"errors"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestL8_TailIsNotCutByACommitThatIsInNoLog: a round has nothing to write, and is about to
// look for a tail to cut off, when a commit frees the end of the file and the log refuses
// it: another of its writes has failed, of a mark, so that all commits before are durable.
// By then the commit is published. It is none: nobody sees it, and what it freed is there
// when the store is opened again.
func TestL8_TailIsNotCutByACommitThatIsInNoLog(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	o.MaxRAM *= 4
	o.changesClock = func() time.Time { return time.Unix(1e9, 0) } // nothing of that is to be saved
	s, id := oneBlock(t, o)
	s.resting.Lock() // nobody else marks the log
	tail := tailOf(t, s, 300)
	set(t, s, id, 2)
	settle(t, s)
	ok(t, s.log.Settle())
	before, size := s.newestLSN(), s.data.length()

	sync := g.next(simfs.OpSync, fileData)
	var round error
	cleaned := async(func() { round = s.cleaner.awaitRound(s.cleaner.rounds()) })
	<-sync.reached
	fault := refuseCommit(t, s, fsys, tail)
	sync.open()
	<-cleaned
	if !errors.Is(round, ErrPoisoned) {
		t.Errorf("the round goes on behind the failure: %v", round)
	}
	if now := s.data.length(); now != size {
		t.Errorf("the file is cut from %d bytes to %d by a commit that is in no log", size, now)
	}
	r := beginRead(t, s)
	if r.LSN() != before {
		t.Errorf("who begins to read sees commit %v, and %v is the last one in the log", r.LSN(), before)
	}
	r.Close()
	s.resting.Unlock()
	if err := s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	fault.Disarm()
	wantTail(t, smallOptions(fsys), tail)
}

// tailOf allocates n blocks at the end of the file, in one commit.
func tailOf(t *testing.T, s *Store, n int) (tail []block.ID) {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	for range n {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Payload()[0] = 7
		tail = append(tail, b.ID())
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	return tail
}

// refuseCommit frees the tail in a commit that is published when the log fails.
func refuseCommit(t *testing.T, s *Store, fsys *simfs.FS, tail []block.ID) *simfs.Armed {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	last := block.ID(0)
	for _, id := range tail {
		ok(t, tx.Free(id))
	}
	tx.away.All(func(h blockcache.Handle) { last = s.cache.Entry(h).ID })
	l := s.cache.Latch(last) // as far as here it is published
	committed := async(func() { _, err = tx.Commit() })
	eventually(t, func() string {
		if s.publishing.TryLock() {
			s.publishing.Unlock()
			return "the commit is not on its way"
		}
		return ""
	})
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: segments, Sticky: true})
	if s.log.MarkIdle() == nil {
		t.Error("the log has not failed")
	}
	l.Unlock()
	<-committed
	if !errors.Is(err, ErrPoisoned) {
		t.Errorf("the commit is not refused: %v", err)
	}
	return fault
}

// wantTail opens the store again and looks for the blocks.
func wantTail(t *testing.T, o Options, tail []block.ID) {
	t.Helper()
	s := mustOpen(t, o)
	r := beginRead(t, s)
	for _, id := range tail {
		b, err := r.Block(id)
		if err != nil || b.Payload()[0] != 7 {
			t.Fatalf("block %v, which was acknowledged, is lost: %v", id, err)
		}
		b.Release()
	}
	r.Close()
	mustClose(t, s)
}
