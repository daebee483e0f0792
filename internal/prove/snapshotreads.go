package prove

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

// view is an open snapshot.
type view struct {
	tx  *mvcc.ReadTx
	im  image
	ids []block.ID

	had     []uint64   // a bit for each block: it was read
	changed []block.ID // of ids, changed since; as of the last look
	freed   []block.ID // and free by now
	stays   int        // one of so many looks is the last
}

// read keeps snapshots for a while and reads what they see.
func (r *readers) read(rng *rand.Rand) error {
	var held []view
	defer func() {
		for _, v := range held {
			r.close(v)
		}
	}()
	for !r.over.Load() {
		if len(held) < 1+rng.IntN(snapshotsEach) {
			v, err := r.open()
			if err != nil {
				return err
			}
			r.pace(1) // if it is broken each time, there have to be commits
			if v.tx == nil {
				continue
			}
			if v.stays = 2; rng.IntN(8) == 0 {
				v.stays = 24
			}
			held = append(held, v)
		}
		i := rng.IntN(len(held))
		isBroken, err := r.look(rng, &held[i])
		if err != nil {
			return err
		}
		if isBroken || rng.IntN(held[i].stays) == 0 {
			r.close(held[i])
			held = append(held[:i], held[i+1:]...)
		}
		runtime.Gosched() // on two processors writers would wait for every time slice
	}
	return nil
}

func (r *readers) close(v view) {
	v.tx.Close()
	r.live.Add(-1)
}

// open begins a snapshot, unless it is broken at once.
func (r *readers) open() (v view, err error) {
	w := r.w
	least := block.LSN(w.m.acked.Load())
	tx, err := w.s.BeginRead()
	if errors.Is(err, snapshot.ErrBroken) {
		r.broken.Add(1)
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("begin to read: %w", err)
	}
	r.snapshots.Add(1)
	raise64(&r.liveMax, r.live.Add(1))
	if tx.LSN() < least {
		return v, fmt.Errorf("a snapshot begins at LSN %v, LSN %v was acknowledged before", tx.LSN(), least)
	}
	im, known := w.m.image(tx.LSN())
	if !known {
		return v, fmt.Errorf("a snapshot begins at LSN %v, which was never given", tx.LSN())
	}
	return view{tx: tx, im: im, ids: im.ids()}, nil
}

func raise64(most *atomic.Int64, n int64) {
	for {
		old := most.Load()
		if n <= old || most.CompareAndSwap(old, n) {
			return
		}
	}
}

// look reads some blocks of a snapshot, or now and then everything.
func (r *readers) look(rng *rand.Rand, v *view) (isBroken bool, err error) {
	if rng.IntN(200) == 0 {
		n, err := r.w.m.compare(r.w.s, v.tx)
		r.reads.Add(int64(n))
		r.pace(n)
		if errors.Is(err, snapshot.ErrBroken) {
			r.broken.Add(1)
			return true, nil
		}
		r.whole.Add(1)
		return false, err
	}
	r.whatChanged(v)
	n := 10 + rng.IntN(50)
	defer r.pace(n)
	for range n {
		if isBroken, err := r.one(v, v.choose(rng)); isBroken || err != nil {
			return isBroken, err
		}
	}
	return false, nil
}

// lookAtFreed reads what of a snapshot is free by now.
func (r *readers) lookAtFreed(v *view) (isBroken bool, err error) {
	r.whatChanged(v)
	for _, id := range v.freed {
		if isBroken, err := r.one(v, id); isBroken || err != nil {
			return isBroken, err
		}
	}
	return false, nil
}

// whatChanged lists the blocks of a snapshot that were changed or freed since.
func (r *readers) whatChanged(v *view) {
	v.changed, v.freed = v.changed[:0], v.freed[:0]
	lsn := uint64(v.tx.LSN())
	for _, id := range v.ids {
		switch mark := r.changed[id].Load(); {
		case mark>>1 <= lsn:
		case mark&1 == 1:
			v.freed = append(v.freed, id)
		default:
			v.changed = append(v.changed, id)
		}
	}
}

// choose is a block to be read: often one that is free by now, or was changed.
func (v *view) choose(rng *rand.Rand) block.ID {
	from := v.ids
	switch roll := rng.IntN(8); {
	case roll < 1 && len(v.freed) > 0:
		from = v.freed
	case roll < 2 && len(v.changed) > 0:
		from = v.changed
	}
	return from[rng.IntN(len(from))]
}

// one reads a block and compares it.
func (r *readers) one(v *view, id block.ID) (isBroken bool, err error) {
	b, err := v.tx.Block(id)
	if errors.Is(err, snapshot.ErrBroken) {
		r.broken.Add(1)
		if _, again := v.tx.Block(id); !errors.Is(again, snapshot.ErrBroken) {
			return true, fmt.Errorf("a snapshot was broken once, and then: %v (L10)", again)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("block %v at LSN %v: %w", id, v.tx.LSN(), err)
	}
	got := contentOf(b)
	b.Release()
	if got != v.im.blocks[id] {
		return false, fmt.Errorf("block %v at LSN %v is another version than that of the commit", id, v.tx.LSN())
	}
	v.count(r, id)
	return false, nil
}

// count counts a read.
func (v *view) count(r *readers, id block.ID) {
	r.reads.Add(1)
	if v.had == nil {
		v.had = make([]uint64, snapshotIDs/64)
	}
	word, bit := &v.had[id/64], uint64(1)<<(id%64)
	mark := r.changed[id].Load()
	if mark>>1 > uint64(v.tx.LSN()) {
		if *word&bit != 0 {
			r.again.Add(1)
		}
		if mark&1 == 1 {
			r.freed.Add(1)
		}
	}
	*word |= bit
}
