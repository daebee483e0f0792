package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Load is writers at work: each runs transactions that change records which
// exist, until it is stopped.
type Load struct {
	Records      int          // the database has records 0 to Records-1
	HotRecords   int          // the first so many are changed; 0: all
	Keys         Distribution // "": uniform
	ValueBytes   int
	Writers      int // 0: one
	UpdatesPerTx int // 0: one
	// UpdatesPerSecond is the rate of all writers together; 0: as fast as they
	// can. A writer that falls behind catches up.
	UpdatesPerSecond float64
	Batch            bool // commits may share transactions
	Compressible     bool // half of each value is zeros
	Seed             uint64
}

// filled has the defaults filled in.
func (l Load) filled() Load {
	l.Writers, l.UpdatesPerTx = max(l.Writers, 1), max(l.UpdatesPerTx, 1)
	if l.HotRecords == 0 {
		l.HotRecords = l.Records
	}
	return l
}

// Running is a load at work.
type Running struct {
	load    Load
	start   time.Time
	cancel  context.CancelFunc
	done    sync.WaitGroup
	writers []writer
}

// Start sets the writers to work. Call Stop.
func (l Load) Start(ctx context.Context, db DB) (*Running, error) {
	l = l.filled()
	if l.HotRecords < 1 || l.HotRecords > l.Records || l.ValueBytes < 0 || l.UpdatesPerSecond < 0 {
		return nil, fmt.Errorf("load is not possible: %+v", l)
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Running{load: l, cancel: cancel, writers: make([]writer, l.Writers)}
	for i := range r.writers {
		if err := r.writers[i].init(l, db, uint64(i)); err != nil {
			cancel()
			return nil, err
		}
	}
	r.start = time.Now()
	for i := range r.writers {
		w := &r.writers[i]
		r.done.Go(func() { w.run(ctx, r.start) })
	}
	return r, nil
}

// Since is the time since the load's start, as its trace counts it.
func (r *Running) Since() time.Duration { return time.Since(r.start) }

// Stop ends the writers and returns what they did. The error is that of the
// first one that failed.
func (r *Running) Stop() (*Trace, error) {
	r.cancel()
	r.done.Wait()
	t := &Trace{Start: r.start, UpdatesPerTx: r.load.UpdatesPerTx}
	var errs []error
	for i := range r.writers {
		t.Commits = r.writers[i].commits.appendTo(t.Commits)
		errs = append(errs, r.writers[i].err)
	}
	return t, errors.Join(errs...)
}

// writer is one goroutine of a load. It allocates nothing per transaction, so
// that what is measured is the engine.
type writer struct {
	load    Load
	draw    func() uint64
	source  source
	commit  func(func(Writer) error) error
	keys    [][]byte
	values  [][]byte
	every   time.Duration // between two transactions; 0: none
	commits recorder
	err     error
}

func (w *writer) init(l Load, db DB, stream uint64) (err error) {
	w.load, w.source, w.commit = l, newSource(l.Seed, stream), db.Update
	if l.Batch {
		w.commit = db.Batch
	}
	if l.UpdatesPerSecond > 0 {
		w.every = time.Duration(float64(l.Writers*l.UpdatesPerTx) / l.UpdatesPerSecond * float64(time.Second))
	}
	for range l.UpdatesPerTx {
		w.keys = append(w.keys, make([]byte, 0, KeyBytes))
		w.values = append(w.values, make([]byte, l.ValueBytes))
	}
	w.draw, err = l.Keys.draw(w.source, l.HotRecords)
	return err
}

func (w *writer) run(ctx context.Context, start time.Time) {
	due := time.Duration(0)
	put := w.put
	for ctx.Err() == nil {
		if w.every > 0 {
			if !sleepUntil(ctx, start.Add(due)) {
				return
			}
			due += w.every
		}
		w.next()
		began := time.Since(start)
		if err := w.commit(put); err != nil {
			w.err = fmt.Errorf("commit: %w", err)
			return
		}
		w.commits.add(Commit{began, time.Since(start)})
	}
}

// next draws what the next transaction will change.
func (w *writer) next() {
	for i := range w.keys {
		w.keys[i] = AppendKey(w.keys[i][:0], w.draw())
		w.source.fill(w.values[i])
		if w.load.Compressible {
			thin(w.values[i], len(w.values[i]))
		}
	}
}

func (w *writer) put(tx Writer) error {
	for i := range w.keys {
		if err := tx.Put(w.keys[i], w.values[i]); err != nil {
			return err
		}
	}
	return nil
}

// sleepUntil reports whether t was reached before ctx ended.
func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
