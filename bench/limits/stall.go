package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// stall is a store whose snapshot holds many originals, and one writer.
type stall struct {
	s *mvcc.Store
	stallSizes
	ids   []block.ID // of all blocks
	next  atomic.Int64
	among atomic.Int64    // so many of them are changed, one after the other
	held  int             // originals, just before the end
	ended chan mvcc.Event // snapshots that were ended
}

// stallSizes are how large a run is.
type stallSizes struct {
	originals int           // that go at once
	ram       int64         // MaxRAM, in bytes
	around    time.Duration // for which commits are looked at before and after
	edge      time.Duration // how long before an event is heard of it may have begun
	atOnce    int           // blocks that one commit changes while originals are made
}

// stallPart measures the longest commit when so many originals go at once.
func stallPart(ctx context.Context, r *report, parent string, sizes stallSizes) (err error) {
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	originals := sizes.originals
	w := &stall{stallSizes: sizes, ended: make(chan mvcc.Event, 100)}
	w.s, err = mvcc.Open(dir+"/db", mvcc.Options{
		MaxRAM: sizes.ram, OverflowMax: -1, Durability: mvcc.DurableNever, LogBytesMax: 512 << 20,
		Temp: []mvcc.TempDir{{Path: dir, BytesMax: int64(originals) * block.SizeDefault}}, OnEvent: w.heard,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.s.Close()) }()
	began := time.Now()
	if err := w.fill(ctx, originals+originals/2); err != nil {
		return err
	}
	r.say("the database was made in", "%s", human.Elapsed(time.Since(began)))
	for _, how := range []string{"release", "break", "fall forward"} {
		began := time.Now()
		if err := w.measure(ctx, r, how); err != nil {
			return fmt.Errorf("%s: %w", how, err)
		}
		r.say("this took", "%s", human.Elapsed(time.Since(began)))
	}
	return nil
}

func (w *stall) heard(ev mvcc.Event) {
	switch ev.Kind {
	case mvcc.EventReleased, mvcc.EventBroken, mvcc.EventFellForward:
		select {
		case w.ended <- ev:
		default:
		}
	}
}

func (w *stall) transact(fn func(*mvcc.WriteTx) error) error {
	tx, err := w.s.BeginWrite()
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	_, err = tx.Commit()
	return err
}

func (w *stall) fill(ctx context.Context, n int) error {
	for len(w.ids) < n && ctx.Err() == nil {
		err := w.transact(func(tx *mvcc.WriteTx) error {
			for range min(1000, n-len(w.ids)) {
				b, err := tx.Alloc(block.TypeUser)
				if err != nil {
					return err
				}
				w.ids = append(w.ids, b.ID())
				b.Release()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// change changes the next n blocks, in the order of the file.
func (w *stall) change(n int) error {
	return w.transact(func(tx *mvcc.WriteTx) error {
		for range n {
			b, err := tx.Edit(w.ids[(w.next.Add(1)-1)%w.among.Load()])
			if err != nil {
				return err
			}
			b.Payload()[0]++
			b.Release()
		}
		return nil
	})
}

// hold opens a snapshot; end ends it if it is to be released.
func (w *stall) hold(ctx context.Context, how string) (end, closeIt func() error, err error) {
	if how == "fall forward" {
		b, err := w.s.OpenBackup(ctx, mvcc.BackupOptions{Owner: how})
		if err != nil {
			return nil, nil, err
		}
		return nil, b.Close, nil
	}
	t, err := w.s.BeginSnapshot(mvcc.SnapshotOptions{Owner: how})
	if err != nil {
		return nil, nil, err
	}
	closeIt = func() error { t.Close(); return nil }
	if how == "release" {
		end = func() error {
			for _, l := range w.s.Status().Snapshots {
				if l.Owner == how {
					return w.s.Release(l.ID)
				}
			}
			return errors.New("there is no snapshot to release")
		}
	}
	return end, closeIt, nil
}

// measure has a snapshot hold its originals, then one writer change the same blocks one
// by one. Then the snapshot is released, or the writer goes on to others, whose originals
// have no room.
func (w *stall) measure(ctx context.Context, r *report, how string) (err error) {
	end, closeIt, err := w.hold(ctx, how)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	most := w.originals * 9 / 10
	w.among.Store(int64(most))
	for changed := 0; changed < most; changed += w.atOnce {
		if err := errors.Join(w.change(w.atOnce), ctx.Err()); err != nil {
			return err
		}
	}
	probe := startWriters(1, func(*rand.Rand) error { return w.change(1) })
	began := probe.since()
	time.Sleep(w.around)
	w.held = w.s.Status().Originals.Originals
	if end != nil {
		err = end()
	} else {
		w.among.Store(int64(len(w.ids)))
	}
	held := w.await(ctx)
	at := probe.since()
	time.Sleep(w.around)
	trace, stopErr := probe.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return err
	}
	w.print(r, how, held, trace, bench.Span{From: max(began, at-w.around-w.edge), To: at - w.edge}, bench.Span{From: at - w.edge, To: at + w.around - w.edge})
	return nil
}

// await waits for the end of a snapshot, and returns how many originals there were.
func (w *stall) await(ctx context.Context) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.ended:
			return w.held
		case <-ctx.Done():
			return w.held
		case <-tick.C:
			w.held = max(w.held, w.s.Status().Originals.Originals)
		}
	}
}

func (w *stall) print(r *report, how string, held int, t *bench.Trace, without, with bench.Span) {
	a, b := t.Latencies(without), t.Latencies(with)
	r.printf("%s\n", how)
	r.atLeast(float64(w.originals*9/10), float64(held), "", "originals that it held")
	r.say("commits before, then", "%s, %s", human.Count(len(a)), human.Count(len(b)))
	r.say("longest commit before, then", "%.2f ms, %.2f ms", ms(a.Max()), ms(b.Max()))
	r.atMost(20, ms(b.Max()-a.Max()), " ms", "longer by")
	r.say("99.9 % of commits before, then", "%.3f ms, %.3f ms", ms(a.Quantile(0.999)), ms(b.Quantile(0.999)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
