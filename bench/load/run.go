package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/latency"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
)

// bucketName is the bucket of all records.
const bucketName = "load"

// errOver ends the writers when the time is over.
var errOver = errors.New("time is over")

// run is one call of Run.
type run struct {
	o       Options
	db      *kv.DB
	summary Summary
	latency latency.Histogram
	total   latency.Counts
	next    atomic.Uint64 // record of the sequential distribution
	ticket  atomic.Uint64 // transaction of the rate
	bytes   atomic.Int64
}

// Run opens, fills, serves and loads a database until the time is over or ctx
// ends; neither is an error. What it returns is there also if something failed.
func Run(ctx context.Context, o Options) (s *Summary, err error) {
	r := &run{o: o}
	s = &r.summary
	if err = r.o.validate(); err != nil {
		return s, err
	}
	if r.db, err = kv.Open(o.Dir, kv.Options{Store: o.Store}); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.db.Close()) }()
	server, err := livebackup.Serve(r.db.Store(), livebackup.ServeOptions{})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	r.o.Serving()
	if err = r.fill(ctx); err == nil {
		err = r.write(ctx)
	}
	r.summary.take(&r.total, r.db.Store().Status())
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil
	}
	return s, err
}

// fillTxBytes is about how much one transaction of the filling puts.
const fillTxBytes = 2 << 20

// fill puts the records that are not there yet.
func (r *run) fill(ctx context.Context) error {
	began := time.Now()
	last := began
	c := newChooser(&r.o, -1, nil)
	perTx := max(1, fillTxBytes/(r.o.ValueBytes+32))
	value := make([]byte, r.o.ValueBytes)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		there, put := 0, 0
		err := r.db.Update(func(tx *kv.Tx) (err error) {
			there, put, err = r.fillSome(tx, c, value, perTx)
			return err
		})
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		r.summary.Records = there
		r.summary.Filled += put
		r.summary.FillTook = time.Since(began)
		if there >= r.o.Records {
			return nil
		}
		if now := time.Now(); now.Sub(last) >= time.Second {
			r.o.Tick(Tick{Filling: true, At: now.Sub(began), Took: now.Sub(last), Records: there, Status: r.db.Store().Status()})
			last = now
		}
	}
}

// fillSome puts up to n records and returns how many there are now.
func (r *run) fillSome(tx *kv.Tx, c *chooser, value []byte, n int) (there, put int, err error) {
	b, err := tx.CreateBucketIfNotExists([]byte(bucketName))
	if err != nil {
		return 0, 0, err
	}
	first, err := b.Sequence()
	if err != nil {
		return 0, 0, err
	}
	for ; put < n && int(first)+put < r.o.Records; put++ {
		c.fillValue(value)
		if err := b.Put(keyOf(first+uint64(put)), value); err != nil {
			return 0, 0, err
		}
	}
	there = int(first) + put
	if put == 0 {
		return there, 0, nil
	}
	return there, put, b.SetSequence(uint64(there))
}

// write has the writers at work until the time is over.
func (r *run) write(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.o.Duration > 0 {
		timer := time.AfterFunc(r.o.Duration, func() { cancel(errOver) })
		defer timer.Stop()
	}
	began := time.Now()
	var writers sync.WaitGroup
	for i := range r.o.Writers {
		writers.Go(func() {
			if err := r.writer(ctx, i, began); ctx.Err() == nil {
				cancel(fmt.Errorf("writer %d: %w", i, err))
			}
		})
	}
	r.watch(ctx, began)
	writers.Wait()
	r.total.Merge(r.latency.Take())
	r.summary.Took, r.summary.Bytes = time.Since(began), r.bytes.Load()
	if err := context.Cause(ctx); !errors.Is(err, errOver) {
		return err
	}
	return nil
}

// watch tells a tick a second until ctx ends.
func (r *run) watch(ctx context.Context, began time.Time) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := began
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		counts := r.latency.Take()
		r.total.Merge(counts)
		now := time.Now()
		r.o.Tick(Tick{At: now.Sub(began), Took: now.Sub(last), Records: r.summary.Records, Latency: counts.Summary(), Status: r.db.Store().Status()})
		last = now
	}
}

// writer writes until something ends it, and returns what.
func (r *run) writer(ctx context.Context, number int, began time.Time) error {
	c := newChooser(&r.o, number, &r.next)
	value := make([]byte, r.o.ValueBytes)
	for {
		if err := r.await(ctx, began); err != nil {
			return err
		}
		start := time.Now()
		err := r.db.Update(func(tx *kv.Tx) error {
			b, err := tx.Bucket([]byte(bucketName))
			for n := 0; n < r.o.PerTx && err == nil; n++ {
				c.fillValue(value)
				err = b.Put(keyOf(c.record()), value)
			}
			return err
		})
		if err != nil {
			return err
		}
		r.latency.Add(time.Since(start))
		r.bytes.Add(int64(r.o.PerTx) * int64(r.o.ValueBytes))
	}
}

// await waits for the moment of the next transaction at the rate.
func (r *run) await(ctx context.Context, began time.Time) error {
	if r.o.PerSecond == 0 {
		return context.Cause(ctx)
	}
	n := r.ticket.Add(1) - 1
	due := began.Add(time.Duration(float64(n) / r.o.PerSecond * float64(time.Second)))
	r.skip(began, n)
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// skip drops the tickets of more than a second ago, so that a stall is not
// followed by a burst.
func (r *run) skip(began time.Time, n uint64) {
	if oldest := uint64(max(0, time.Since(began).Seconds()-1) * r.o.PerSecond); n < oldest {
		r.ticket.CompareAndSwap(n+1, oldest)
	}
}
