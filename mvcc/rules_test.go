package mvcc

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
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
