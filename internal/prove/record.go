package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// moment is the disk after one event, and what was promised until then.
type moment struct {
	number int
	event  simfs.Event
	disk   *simfs.Moment
	promises
}

// recording is one run of a workload.
type recording struct {
	workload Workload
	seed     uint64
	o        mvcc.Options
	m        *blockModel
	backups  []backupMade
	moments  []moment
	cover    *Coverage
	order    *Order
}

// record runs a workload to its end and keeps every moment of it.
func record(ctx context.Context, wl Workload, seed uint64) (*recording, error) {
	fs, err := newDisk()
	if err != nil {
		return nil, err
	}
	o := smallOptions(fs)
	if wl.set != nil {
		wl.set(&o)
	}
	r := &recording{workload: wl, seed: seed, o: o, m: newBlockModel(), cover: &Coverage{}, order: newOrder()}
	w := &world{ctx: ctx, rng: rand.New(rand.NewPCG(seed, 9)), fs: fs, o: o, m: r.m, cover: r.cover}
	fs.Trace(r.order.note)
	fs.Moments(func(ev simfs.Event, m *simfs.Moment) {
		r.cover.note(ev)
		ev.Data = nil // it was on loan
		r.moments = append(r.moments, moment{len(r.moments), ev, m, w.promised()})
	})
	err = w.play(wl)
	fs.Moments(nil)
	fs.Trace(nil)
	r.backups = w.backups
	if err != nil {
		return nil, fmt.Errorf("workload %q: %w", wl.Name, err)
	}
	if err := leftOpen(fs); err != nil {
		return nil, fmt.Errorf("workload %q: %w", wl.Name, err)
	}
	return r, nil
}

// play opens the store, runs the workload and what all of them have in common, and
// closes the store.
func (w *world) play(wl Workload) error {
	if err := w.open(); err != nil {
		return err
	}
	err := wl.run(w)
	if err == nil {
		err = everything(w)
	}
	if err != nil {
		_ = w.s.Close() // the first error is the one to tell
		return err
	}
	err = w.s.Close()
	if errors.Is(err, mvcc.ErrClosed) {
		err = nil
	}
	return err
}
