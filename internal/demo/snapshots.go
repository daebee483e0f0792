package demo

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// reader is a snapshot that reads everything, twice.
type reader struct {
	tx    *kv.Tx
	first chan struct{} // closed when the first reading is over
	once  *digest
	err   error // of the first reading
}

// openReader opens a snapshot; read starts its first reading.
func openReader(db *kv.DB) (*reader, error) {
	tx, err := db.Begin(false)
	if err != nil {
		return nil, err
	}
	return &reader{tx: tx, first: make(chan struct{})}, nil
}

func (r *reader) read(ctx context.Context) {
	go func() {
		defer close(r.first)
		r.once, r.err = readAll(ctx, r.tx)
	}()
}

// again waits for the first reading and reads once more.
func (r *reader) again(ctx context.Context) (first, second *digest, err error) {
	<-r.first
	if r.err != nil {
		return nil, nil, r.err
	}
	second, err = readAll(ctx, r.tx)
	return r.once, second, err
}

// close ends the snapshot. The first reading, if it still runs, ends first.
func (r *reader) close() {
	<-r.first
	if err := r.tx.Rollback(); err != nil && !errors.Is(err, kv.ErrTxClosed) {
		panic(err) // nobody else ends it
	}
}

// pairedSource opens the auditor's snapshot and the backup's at the same commit:
// it holds the writers while it does.
type pairedSource struct {
	livebackup.Source
	d       *demo
	auditor *reader
}

// Open implements livebackup.Source.
func (s *pairedSource) Open(ctx context.Context, o livebackup.SessionOptions) (livebackup.Session, error) {
	w := s.d.writers
	w.hold.Lock()
	began := time.Now()
	auditor, err := openReader(s.d.db)
	var session livebackup.Session
	if err == nil {
		session, err = s.Source.Open(ctx, o)
	}
	s.d.report.WritersHeld = time.Since(began)
	w.hold.Unlock()
	if err != nil {
		if auditor != nil {
			close(auditor.first)
			auditor.close()
		}
		return nil, err
	}
	s.auditor = auditor
	auditor.read(ctx)
	s.d.opened(auditor.tx.LSN(), session.Info())
	return &patientSession{Session: session, d: s.d}, nil
}

// patientSession does not hand out its last tenth before originals have
// overflowed: a machine may be slow, or the sink too fast for it.
type patientSession struct {
	livebackup.Session
	d      *demo
	handed uint64
	waited bool
}

// patience is how long originals are waited for.
const patience = 30 * time.Second

// Next implements livebackup.Session.
func (s *patientSession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if !s.waited && s.handed >= s.Info().Blocks*9/10 {
		s.waited = true
		began := time.Now()
		if err := s.d.awaitOverflow(ctx, patience); err != nil {
			return 0, err
		}
		s.d.report.SinkWaited = time.Since(began)
	}
	n, err := s.Session.Next(ctx, buf, ids)
	if err == nil || err == io.EOF {
		s.handed += uint64(n)
	}
	return n, err
}

// awaitOverflow waits until originals have overflowed, but not for ever.
func (d *demo) awaitOverflow(ctx context.Context, atMost time.Duration) error {
	tick := time.NewTicker(sampleTime)
	defer tick.Stop()
	for end := time.Now().Add(atMost); !overflowed(d.db.Store().Status()) && time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func overflowed(s mvcc.Status) bool {
	for _, l := range s.Levels {
		if l.Name == mvcc.LevelOverflow {
			return l.Peak > 0
		}
	}
	return false
}
