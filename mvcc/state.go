package mvcc

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// state is the store's life:
//
//	open --fail--> failed --Close--> closed
//	open --Close--> closing --(users gone or broken)--> closed
//
// A failed store still reads and serves backups of what is durable (L8).
type state struct {
	failed  atomic.Pointer[error]
	closing atomic.Bool
	users   atomic.Int64  // open transactions, snapshots, backups
	idle    chan struct{} // closed when the store is closing and has no users
	once    sync.Once     // closes idle
}

// failure is nil, or ErrPoisoned with the first cause.
func (t *state) failure() error {
	if e := t.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// writable is nil if a write transaction may begin.
func (t *state) writable() error {
	if t.closing.Load() {
		return ErrClosed
	}
	return t.failure()
}

// enter counts a user.
func (t *state) enter() { t.users.Add(1) }

// enterUnlessClosed counts a user if the store is open.
func (t *state) enterUnlessClosed() error {
	t.users.Add(1)
	if t.closing.Load() {
		t.leave()
		return ErrClosed
	}
	return nil
}

// leave ends what enter began.
func (t *state) leave() {
	if t.users.Add(-1) == 0 && t.closing.Load() {
		t.once.Do(func() { close(t.idle) })
	}
}

// shut lets nobody in any more; idle is closed when all have left. Only the
// first call succeeds.
func (t *state) shut() (first bool) {
	if !t.closing.CompareAndSwap(false, true) {
		return false
	}
	t.enter() // so that leave looks, also when there is nobody
	t.leave()
	return true
}

// fail poisons the store with its first failure (L8) and returns the error that
// users get.
func (s *Store) fail(cause error) error {
	e := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	if s.state.failed.CompareAndSwap(nil, &e) {
		s.emit(Event{Kind: EventFailed, Err: cause})
	}
	s.cleaner.kick() // it stops, and wakes those who wait for it
	return *s.state.failed.Load()
}
