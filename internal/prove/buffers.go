//go:build invariants

package prove

import (
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/mvcc"
)

// requestKinds are what the budget can be asked for. A workload that never asks for one
// of them proves nothing of it.
var requestKinds = []string{"frame", "buffer", "promise"}

// allAsked reports which kinds of request a run did not make.
func allAsked(seen map[string]int) error {
	for _, what := range requestKinds {
		if seen[what] == 0 {
			return fmt.Errorf("the budget is never asked for a %s: %v", what, seen)
		}
	}
	return nil
}

// buffers is what a sweep over refused requests begins with: blocks that change often,
// of which each backup asks for a list, and a backup whose taker asks for buffers of
// his own, while others write. Who gets none does with less, and says nothing wrong.
func (w *faultWorld) buffers() {
	w.try(func(e *edit) error { return e.grow(40) })
	for range 20 {
		w.try(func(e *edit) error { return e.sweepAll(6) })
	}
	lent, _ := w.lentAtRest()
	for range 2 {
		w.takeByHand()
	}
	if now, ok := w.lentAtRest(); ok && now > lent {
		w.judge(fmt.Errorf("%d bytes are lent that were not before a backup, which is closed (L9)", now-lent))
	}
	w.wholeShare()
}

// wholeShare asks for all that buffers may have, until it is not refused for the sweep's
// sake: what was refused before must not count.
func (w *faultWorld) wholeShare() {
	all := w.o.MaxRAM / 4 / 2 // heap bytes count twice
	for range refusedAtOnce + 1 {
		if w.s.Charge(all) == nil {
			w.s.Uncharge(all)
			return
		}
	}
	w.judge(errors.New("nobody has a buffer, and there is no room for one (L9)"))
}

// lentAtRest is what MaxRAM has lent when nobody is at work.
func (w *faultWorld) lentAtRest() (int64, bool) {
	w.rest()
	st := w.s.Status()
	return st.Cache.LentBytes, st.Failed == ""
}

// takeByHand takes a backup, with a buffer for as many blocks as the budget grants, and
// compares each block.
func (w *faultWorld) takeByHand() {
	b, err := w.s.OpenBackup(w.ctx, mvcc.BackupOptions{Owner: "by hand", FullSpeed: true, OnExhaustion: mvcc.ExhaustionAbort})
	if err != nil {
		w.note(err)
		return
	}
	defer func() { w.note(b.Close()) }()
	im, known := w.m.image(b.Info().LSN)
	if !known {
		w.judge(fmt.Errorf("backup of LSN %v, which was never given", b.Info().LSN))
		return
	}
	taken := map[block.ID]bool{}
	for err == nil {
		err = w.takeSome(b, im, taken)
		w.try(func(e *edit) error { return e.sweepAll(9) })
	}
	if !errors.Is(err, io.EOF) {
		w.note(err)
	} else if len(taken) < len(im.blocks) {
		w.judge(fmt.Errorf("a backup ends with %d of %d blocks, and no error", len(taken), len(im.blocks)))
	}
}

// takeSome takes a few blocks; io.EOF if there are no more.
func (w *faultWorld) takeSome(b *mvcc.Backup, im image, taken map[block.ID]bool) error {
	size := b.Info().BlockSize
	n := 8
	if err := b.Charge(int64(n * size)); err != nil {
		if !errors.Is(err, blockcache.ErrBudget) {
			w.judge(fmt.Errorf("a buffer is refused by: %w", err))
		}
		n = 1 // what it has without asking
	} else {
		defer b.Uncharge(int64(n * size))
	}
	buf, ids := make([]byte, n*size), make([]block.ID, n)
	got, err := b.Next(w.ctx, buf, ids)
	if err != nil {
		return err
	}
	for i, id := range ids[:got] {
		want, used := im.blocks[id]
		if !used {
			continue // meta block and bitmaps
		}
		if taken[id] || contentOfBytes(buf[i*size:(i+1)*size]) != want {
			w.judge(fmt.Errorf("backup of LSN %v hands out block %v twice, or another version", b.Info().LSN, id))
		}
		taken[id] = true
	}
	return nil
}
