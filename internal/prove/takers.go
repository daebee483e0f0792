package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

// taken is a backup that ended, and with its bases is the state at an LSN.
type taken struct {
	lsn   block.LSN
	state images
}

// basesKept is how many of the backups that ended others can be based on.
const basesKept = 6

// keep keeps a backup that ended as a base.
func (r *readers) keep(t taken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.taken) == basesKept {
		r.taken = append(r.taken[:0], r.taken[1:]...)
	}
	r.taken = append(r.taken, t)
}

// base draws what a backup is based on: nothing, the newest state that was taken, or any.
func (r *readers) base(rng *rand.Rand) taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch roll := rng.IntN(8); {
	case roll == 0 || len(r.taken) == 0:
		return taken{}
	case roll < 7:
		return slices.MaxFunc(r.taken, func(a, b taken) int { return cmp.Compare(a.lsn, b.lsn) })
	}
	return r.taken[rng.IntN(len(r.taken))]
}

// backUp takes one backup after the other and compares it.
func (r *readers) backUp(ctx context.Context, rng *rand.Rand) error {
	for quick := true; !r.done.Load(); quick = !quick { // what a quick one ends with is a new base for the next
		err := r.takeOne(ctx, rng, quick)
		switch {
		case errors.Is(err, snapshot.ErrBroken):
			r.broken.Add(1)
		case err != nil:
			return err
		}
		runtime.Gosched()
	}
	return nil
}

// takeOne takes one backup: by a taker who is quick, or waits for commits before it or in
// between. Some leave half way.
func (r *readers) takeOne(ctx context.Context, rng *rand.Rand, quick bool) error {
	base := r.base(rng)
	o := mvcc.BackupOptions{FullSpeed: true, Base: base.lsn, FileOrder: rng.IntN(4) == 0}
	if base.lsn > 0 && rng.IntN(3) == 0 {
		o.AuditBlocks = 1 + rng.IntN(16)
	}
	if rng.IntN(2) == 0 {
		o.OnExhaustion = mvcc.ExhaustionAbort
	}
	n, rest := 16+rng.IntN(48), int64(1)
	if !quick && rng.IntN(4) == 0 {
		n, rest = 1+rng.IntN(16), 2+rng.Int64N(5)
	}
	t, err := r.w.take(ctx, o, base.state, n)
	if err != nil {
		return fmt.Errorf("open a backup on base %v: %w", base.lsn, err)
	}
	defer t.close()
	var beside []view
	if base.lsn > 0 && !quick {
		r.after(6 + rng.Int64N(20)) // what it does not carry is changed and freed meanwhile
		beside = r.takeOver()
	}
	whole, err := r.follow(ctx, rng, t, rest, beside)
	if err != nil || !whole {
		return err
	}
	state, err := t.finish()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	r.ended(t)
	r.keep(taken{t.b.Final().LSN, state})
	return nil
}

// follow takes a backup to its end, or not. Behind each step it looks at what is free by
// now in snapshots that it is given: the scan has just looked there, too.
func (r *readers) follow(ctx context.Context, rng *rand.Rand, t *taking, rest int64, beside []view) (whole bool, err error) {
	defer func() {
		for _, v := range beside {
			r.close(v)
		}
	}()
	leaves := rng.IntN(16) == 0
	for {
		done, err := t.next(ctx)
		if err != nil {
			return false, fmt.Errorf("backup: %w", err)
		}
		for i := range beside {
			if _, err := r.lookAtFreed(&beside[i]); err != nil { // who was broken stays it
				return false, err
			}
		}
		if done {
			return true, nil
		}
		if leaves && rng.IntN(8) == 0 {
			r.left.Add(1)
			return false, nil
		}
		r.after(rng.Int64N(rest))
		runtime.Gosched()
	}
}

// besideMax is how many snapshots wait for who takes a backup.
const besideMax = 4

// hand opens a snapshot for who takes a backup.
func (r *readers) hand() error {
	v, err := r.open()
	if err != nil || v.tx == nil {
		return err
	}
	for {
		select {
		case r.beside <- v:
			return nil
		default:
		}
		select {
		case old := <-r.beside:
			r.close(old)
		default:
		}
	}
}

// takeOver returns the snapshots that wait.
func (r *readers) takeOver() (list []view) {
	for len(list) < besideMax {
		select {
		case v := <-r.beside:
			list = append(list, v)
		default:
			return list
		}
	}
	return list
}

// ended counts a backup.
func (r *readers) ended(t *taking) {
	r.reads.Add(int64(t.blocks))
	switch {
	case t.info.Base > 0:
		r.incrementals.Add(1)
	default:
		r.backups.Add(1)
	}
	if t.fell != nil {
		r.forward.Add(1)
	}
}
