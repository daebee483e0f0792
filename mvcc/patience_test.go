package mvcc

import (
	"context"
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// Who gives up waiting for the open write transaction leaves nothing behind that quiets
// the store when that ends, or marks it, and one goroutine at most.
func TestQuiesce_GivenUp(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	lsn := set(t, s, id, 2)
	tx, err := s.BeginWrite()
	ok(t, err)
	at := s.anchor.now.sequence
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		var quiet, mark error
		quieted := async(func() { _, quiet = s.QuiesceContext(ctx) })
		marked := async(func() { _, mark = s.MarkContext(ctx, "m") })
		cancel()
		<-quieted
		<-marked
		if !errors.Is(quiet, context.Canceled) || !errors.Is(mark, context.Canceled) {
			t.Fatal(quiet, mark)
		}
	}
	if n := s.state.users.Load(); n != 1 {
		t.Errorf("%d users of the store, one writes", n)
	}
	tx.Rollback()
	s.patient.Lock() // the last one that waits has let go
	if now := s.anchor.now.sequence; now != at || s.newestLSN() != lsn {
		t.Errorf("superblock %d, then %d; LSN %v", at, now, s.newestLSN())
	}
	s.patient.Unlock()
	mustClose(t, s)
}

// R18: a head that nobody waits for any more is not remembered when a quiet ends: by then
// its repository may have a newer one.
func TestR18_RememberGivenUp(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	lsn := set(t, s, id, 2)
	q, err := s.Quiesce()
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	remembered := async(func() { err = s.RememberHeadContext(ctx, [16]byte{1}, Head{LSN: lsn}) })
	cancel()
	<-remembered
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	q.Release()
	if s.anchor.now.heads[0] != (repositoryHead{}) {
		t.Error("it is remembered")
	}
	mustClose(t, s)
}

// A repair that is given up while the store is quiet waits for no round.
func TestRepair_GivenUpWhileQuiet(t *testing.T) {
	s, _ := oneBlock(t, smallOptions(simfs.New()))
	q, err := s.Quiesce()
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	waited := async(func() { err = s.cleaner.awaitRoundFor(ctx, s.cleaner.rounds()) })
	cancel()
	<-waited
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	q.Release()
	ok(t, s.cleaner.awaitRound(s.cleaner.rounds()))
	mustClose(t, s)
}
