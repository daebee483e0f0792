package mvcc

import (
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// A handle of a transaction that has ended does nothing, whoever writes now.
func TestWriteTx_LateRollbackHitsNobodyElse(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	m := newModel()
	rng := rand.New(rand.NewPCG(1, 1))
	first, err := s.BeginWrite()
	ok(t, err)
	_, err = first.Commit()
	ok(t, err)
	w, err := begin(t, s, m, rng)
	ok(t, err)
	ok(t, w.alloc())
	ok(t, first.Rollback())
	if _, err := first.Alloc(block.TypeLeaf); !errors.Is(err, ErrTxDone) {
		t.Fatalf("an ended transaction allocates: %v", err)
	}
	ok(t, w.alloc())
	_, err = w.commit(m)
	ok(t, err)
	checkAll(t, s, m)
	mustClose(t, s)
}

// oneBlock makes a store whose block 13 holds n bytes of value and is in place.
func oneBlock(t *testing.T, o Options) (*Store, block.ID) {
	t.Helper()
	s := mustOpen(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	b.Payload()[0] = 1
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	settle(t, s)
	return s, b.ID()
}

// set writes a value into a block.
func set(t testing.TB, s *Store, id block.ID, value byte) block.LSN {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(id)
	ok(t, err)
	b.Payload()[0] = value
	b.Release()
	lsn, err := tx.Commit()
	ok(t, err)
	return lsn
}

func value(t testing.TB, r *ReadTx, id block.ID) byte {
	t.Helper()
	b, err := r.Block(id)
	ok(t, err)
	defer b.Release()
	return b.Payload()[0]
}

func beginRead(t testing.TB, s *Store) *ReadTx {
	t.Helper()
	r, err := s.BeginRead()
	ok(t, err)
	return r
}

// TestR21_CloseUnderABorrowedBlock: whoever still has a block when Close gives
// up waiting reads what it lent, and then gets a typed error.
func TestR21_CloseUnderABorrowedBlock(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s, id := oneBlock(t, smallOptions(simfs.New()))
	r := beginRead(t, s)
	b, err := r.Block(id)
	ok(t, err)
	ok(t, s.Close())
	if b.Payload()[0] != 1 {
		t.Fatal("a borrowed block has changed")
	}
	b.Release()
	var broken *snapshot.BrokenError
	if _, err := r.Block(id); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonClosed {
		t.Fatalf("after Close: %v", err)
	}
	r.Close()
	if _, err := s.BeginRead(); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// TestR21_CloseBreaksBackup: the next use of a backup says why it ended.
func TestR21_CloseBreaksBackup(t *testing.T) {
	s, _ := oneBlock(t, smallOptions(simfs.New()))
	p := openBackup(t, s)
	ok(t, p.pull(t, 1))
	ok(t, s.Close())
	var broken *snapshot.BrokenError
	if err := p.rest(t); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonClosed {
		t.Fatalf("after Close: %v", err)
	}
	ok(t, p.b.Close())
}
