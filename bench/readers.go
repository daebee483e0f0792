package bench

import (
	"context"
	"errors"
	"io"
	"time"
)

// openReaders measures commits while readers are open, each at a state of its own.
func (m *measurement) openReaders(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	readers, err := m.spreadReaders(ctx)
	defer func() {
		for _, r := range readers {
			_ = r.Close() // nothing is measured any more
		}
	}()
	if err != nil {
		return err
	}
	load, err := m.Load.Start(ctx, m.db)
	if err != nil {
		return err
	}
	window := Span{m.Warmup, m.Warmup + m.Duration}
	err = m.profiled(func() error { return m.churn(ctx, readers, load.start.Add(window.To)) })
	trace, stopErr := load.Stop()
	m.Metrics["commits_per_second"] = trace.PerSecond(window)
	trace.Latencies(window).metrics(m.Metrics, "")
	return errors.Join(err, stopErr)
}

// spreadReaders opens readers with a commit between each two, so that no two
// see the same state.
func (m *measurement) spreadReaders(ctx context.Context) (readers []io.Closer, err error) {
	var w writer
	if err := w.init(m.Load.filled(), m.db, 1<<32); err != nil {
		return nil, err
	}
	for len(readers) < m.Readers && ctx.Err() == nil {
		r, err := m.db.BeginRead()
		if err != nil {
			return readers, err
		}
		readers = append(readers, r)
		w.next()
		if err := m.db.Update(w.put); err != nil {
			return readers, err
		}
	}
	return readers, ctx.Err()
}

// churn closes the oldest reader and opens a new one, m.Churn times a second.
func (m *measurement) churn(ctx context.Context, readers []io.Closer, until time.Time) error {
	if m.Churn == 0 {
		sleepUntil(ctx, until)
		return ctx.Err()
	}
	every := time.Second / time.Duration(m.Churn)
	began := time.Now()
	for i := 0; time.Now().Before(until); i++ {
		if !sleepUntil(ctx, began.Add(time.Duration(i)*every)) {
			return ctx.Err()
		}
		oldest := i % len(readers)
		if err := readers[oldest].Close(); err != nil {
			return err
		}
		r, err := m.db.BeginRead()
		if err != nil {
			return err
		}
		readers[oldest] = r
	}
	return nil
}
