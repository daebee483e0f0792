package mvcc

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// In the weaker modes a commit is swept before it is durable. A block that such a
// commit frees while a checkpoint is under way takes the change before it along:
// the checkpoint must not pass that change before the free is in the log.
func TestR9_CheckpointWaitsForAFreeThatIsNotDurable(t *testing.T) {
	fs := simfs.New()
	var free atomic.Pointer[func()]
	fs.Before(func(e simfs.Event) {
		if f := free.Load(); f != nil && e.Op == simfs.OpSync && strings.Contains(e.File, "/log/") && free.CompareAndSwap(f, nil) {
			(*f)()
		}
	})
	o := smallOptions(fs)
	o.Durability = DurableNever
	s, id := oneBlock(t, o)
	changed := set(t, s, id, 2)
	freeing := func() {
		tx, err := s.BeginWrite()
		ok(t, err)
		ok(t, tx.Free(id))
		_, err = tx.Commit()
		ok(t, err)
	}
	free.Store(&freeing)
	ok(t, s.cleaner.awaitRound(s.cleaner.rounds()))
	if free.Load() != nil {
		t.Fatal("the checkpoint did not sync the log")
	}
	for _, mode := range []simfs.Mode{simfs.DropAll, simfs.KeepAll} {
		o.FS = fs.Crash(nil, mode)
		again := mustOpen(t, o)
		r, err := again.BeginRead()
		ok(t, err)
		switch r.LSN() {
		case changed:
			if got := value(t, r, id); got != 2 {
				t.Errorf("mode %v: the block holds %d after commit %v, which made it 2", mode, got, changed)
			}
		case changed + 1: // the block is free
		default:
			t.Errorf("mode %v: the store is at %v, commit %v was synced", mode, r.LSN(), changed)
		}
		r.Close()
		mustClose(t, again)
	}
	mustClose(t, s)
}

// Whoever has waited for a sync may rely on what it covers having been swept,
// also where commits are acknowledged before: the cleaner ends heads by that.
func TestR1_SyncedIsSweptInEveryMode(t *testing.T) {
	for _, mode := range []Durability{DurableCommit, DurableInterval, DurableNever} {
		o := smallOptions(simfs.New())
		o.Durability = mode
		s, id := oneBlock(t, o)
		tx, err := s.BeginWrite()
		ok(t, err)
		b, err := tx.Edit(id)
		ok(t, err)
		b.Payload()[0] = 2
		b.Release()
		ok(t, tx.prepare())
		lsn, err := tx.logAndPublish()
		ok(t, err)
		tx.finish()
		ok(t, s.log.Sync(lsn))
		var pending [1]replacedBlock
		if n := s.replaced.take(pending[:], lsn); n != 0 {
			t.Errorf("mode %v: block %v until %v is pending, and commit %v is durable", mode, pending[0].id, pending[0].until, lsn)
			s.sweepOne(pending[0])
		}
		s.advance(lsn)
		mustClose(t, s)
	}
}

// A transaction whose last record is nearly full when the list of the blocks that
// it freed comes.
func TestR7_ManyFreesBehindAFullRecord(t *testing.T) {
	const frees, edits = 444 * 38, 250 // the edits fill the last stretch of the encoder
	o := smallOptions(simfs.New())
	o.MaxRAM, o.LogBytesMax, o.Durability = 64<<20, 64<<20, DurableNever
	s := mustOpen(t, o)
	var ids []block.ID
	for len(ids) < frees+edits {
		tx, err := s.BeginWrite()
		ok(t, err)
		for range min(2000, frees+edits-len(ids)) {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			ids = append(ids, b.ID())
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	tx, err := s.BeginWrite()
	ok(t, err)
	for _, id := range ids[:frees] {
		ok(t, tx.Free(id))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, id := range ids[frees:] {
		b, err := tx.Edit(id)
		ok(t, err)
		for i := range b.Payload() {
			b.Payload()[i] = byte(rng.Uint32())
		}
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	mustClose(t, s)
}
