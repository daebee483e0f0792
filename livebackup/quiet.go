package livebackup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Quiet is a database at rest. Safe for concurrent use.
type Quiet interface {
	// LSN is the newest commit: all of it is in place and durable.
	LSN() block.LSN
	// Over is closed when the quiet has ended before it was released.
	Over() <-chan struct{}
	// Release lets writers go on. An error says that they may have done so before, and
	// what was copied meanwhile is of no use: ErrQuietOver when time ran out.
	Release() error
}

// quietMax is how long a quiet may last.
const quietMax = time.Hour

func checkQuietTimeout(d time.Duration) error {
	if d < time.Millisecond || d > quietMax {
		return optionError("the timeout of a quiet must be 1 ms to %v", quietMax)
	}
	return nil
}

// Quiesce waits for the store on a goroutine of its own: one that gives up while the
// files are being brought to rest leaves it behind, to release what it gets.
func (s storeSource) Quiesce(ctx context.Context, timeout time.Duration) (Quiet, error) {
	if err := checkQuietTimeout(timeout); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrNoQuiet)
	defer cancel()
	type result struct {
		quiet *mvcc.Quiet
		err   error
	}
	got := make(chan result)
	go func() {
		q, err := s.store.QuiesceContext(ctx)
		select {
		case got <- result{q, err}:
		case <-ctx.Done():
			if err == nil {
				q.Release()
			}
		}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, r.err
		}
		return newStoreQuiet(r.quiet, timeout), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("quiesce: %w", context.Cause(ctx))
	}
}

// storeQuiet is a quiet of a store that this process has open.
type storeQuiet struct {
	quiet *mvcc.Quiet
	timer *time.Timer
	over  chan struct{}

	mu    sync.Mutex
	ended error // guarded by mu; nil while writers wait
}

func newStoreQuiet(q *mvcc.Quiet, timeout time.Duration) *storeQuiet {
	s := &storeQuiet{quiet: q, over: make(chan struct{})}
	s.timer = time.AfterFunc(timeout, func() {
		if s.end(ErrQuietOver) == nil {
			close(s.over)
		}
	})
	return s
}

// end lets writers go on, or says why they do already.
func (s *storeQuiet) end(why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	s.ended = why
	s.quiet.Release()
	return nil
}

// LSN is the newest commit.
func (s *storeQuiet) LSN() block.LSN { return s.quiet.LSN }

// Over is closed when time ran out.
func (s *storeQuiet) Over() <-chan struct{} { return s.over }

// Release lets writers go on.
func (s *storeQuiet) Release() error {
	s.timer.Stop()
	if err := s.end(errReleased); err != nil && !errors.Is(err, errReleased) {
		return err
	}
	return nil
}

// errReleased is why a quiet that was released is over.
var errReleased = errors.New("released")
