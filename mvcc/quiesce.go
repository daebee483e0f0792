package mvcc

import (
	"context"
	"fmt"
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// # A store at rest
//
// A quiet store changes no file of its directory: a copy of it that is taken by
// whatever means, a snapshot of the file system for one, is a database that was
// closed in all but name. It holds what everyone who writes has to hold, in the
// order in which others take it:
//
//	writer            commits, marks, Apply; and what the cleaner shrinks
//	cleaner.turn      rounds: second copies, blocks in place, checkpoint records
//	resting           the clock's syncs and idle marks of the log
//	anchor.writing    what is remembered of repositories
//
// and has waited for what the log prepares in the background. Readers and backups
// go on: all blocks are in place, so nothing that they make has to be written,
// but to temporary storage, whose files have no names.

// Quiet is a store at rest: all that was committed is in place and synced, nothing
// writes. Release it.
type Quiet struct {
	LSN block.LSN // the state that a copy has

	s    *Store
	once sync.Once
}

// Quiesce waits for the open write transaction, brings the files to rest and
// keeps writers waiting until Release. Readers go on. Close of the store waits
// Options.CloseWait for Release, then lets go by itself (R21).
func (s *Store) Quiesce() (*Quiet, error) { return s.QuiesceContext(context.Background()) }

// QuiesceContext is Quiesce, and waits for the open write transaction until ctx ends: then
// the files are left as they are.
func (s *Store) QuiesceContext(ctx context.Context) (*Quiet, error) {
	q, err := s.quiesce(ctx)
	if err != nil {
		return nil, fmt.Errorf("quiesce: %w", err)
	}
	return q, nil
}

func (s *Store) quiesce(ctx context.Context) (*Quiet, error) {
	if err := s.state.enterUnlessClosed(); err != nil {
		return nil, err
	}
	if s.opts.ReadOnly {
		return &Quiet{LSN: s.newestLSN(), s: s}, nil
	}
	if err := s.lockWriter(ctx); err != nil {
		s.leave()
		return nil, err
	}
	s.cleaner.turn.Lock()
	s.resting.Lock()
	q := &Quiet{LSN: s.newestLSN(), s: s}
	err := s.state.writable()
	if err == nil {
		err = s.cleaner.checkpoint()
	}
	if err == nil {
		err = s.log.Settle()
	}
	s.anchor.writing.Lock() // the round has written its record
	if err != nil {
		if s.state.writable() == nil { // it was not the failure that it found
			err = s.fail(err)
		}
		q.Release()
		return nil, err
	}
	s.quiet.Store(q)
	if s.state.closing.Load() { // Close may have looked before
		q.Release()
		return nil, ErrClosed
	}
	return q, nil
}

// Release lets writers go on. The second call does nothing.
func (q *Quiet) Release() {
	q.once.Do(func() {
		s := q.s
		if !s.opts.ReadOnly {
			s.quiet.Store(nil)
			s.anchor.writing.Unlock()
			s.resting.Unlock()
			s.cleaner.turn.Unlock()
			s.writer.Unlock()
		}
		s.leave()
	})
}

// endQuiet lets go for whoever did not in time.
func (s *Store) endQuiet() {
	if q := s.quiet.Load(); q != nil {
		q.Release()
	}
}
