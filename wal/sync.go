package wal

import (
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// waiter is one Sync that sleeps.
type waiter struct {
	upto block.LSN
	wake chan bool // true: you own the syncing role now
}

// Sync returns once every commit up to LSN upto is durable and OnDurable has
// been told. Whoever finds the syncing role free takes it and syncs what all
// have appended; the others sleep.
//
// When the log has failed, the error is ErrFailed with the cause, and also
// ErrUnknownOutcome if upto was appended and is not known durable.
func (l *Log) Sync(upto block.LSN) error {
	if block.LSN(l.announced.Load()) >= upto {
		return nil
	}
	l.mu.Lock()
	for {
		if done, err := l.synced(upto); done {
			l.mu.Unlock()
			return err
		}
		if !l.syncing {
			l.syncing = true
			l.lead()
			continue
		}
		w := l.waiterPool.Get().(*waiter)
		w.upto = upto
		l.waiters = append(l.waiters, w)
		l.mu.Unlock()
		owner := <-w.wake
		l.waiterPool.Put(w)
		if !owner && block.LSN(l.announced.Load()) >= upto {
			return nil
		}
		l.mu.Lock()
		if owner {
			l.lead()
		}
	}
}

// synced reports whether a Sync is over, and how. mu is held.
func (l *Log) synced(upto block.LSN) (done bool, err error) {
	switch {
	case block.LSN(l.announced.Load()) >= upto:
		return true, nil
	case upto > l.end:
		if err := l.usable(); err != nil {
			return true, err
		}
		return true, fmt.Errorf("sync log up to LSN %v: it ends at %v: %w", upto, l.end, ErrOrder)
	case l.failed != nil:
		return true, fmt.Errorf("LSN %v: %w: %w", upto, ErrUnknownOutcome, l.failed)
	}
	return false, nil // also while Close waits: it makes durable what was appended
}

// MarkIdle writes a sync mark if nothing is in flight and the last commits are
// durable without a record that says so: later damage to them is then told from
// a torn tail (R5). For an idle log, once; call it every few seconds. It never
// waits for room.
func (l *Log) MarkIdle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.syncing || l.open || len(l.active.buf) > 0 || l.claimed >= l.end {
		return nil
	}
	if l.cur == nil || !l.mark() {
		if len(l.ready) == 0 {
			l.prepareAhead()
			return nil
		}
		if err := l.turn(); err != nil {
			return err
		}
		l.mark()
	}
	return l.flushAll()
}

// Settle waits until nothing that the log does in the background is under way: no
// file of it changes then until the next call that may write.
func (l *Log) Settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.syncing || l.preparing {
		l.changed.Wait()
	}
	return l.usable()
}

// mark adds a sync mark if the current segment has room. mu is held.
func (l *Log) mark() bool {
	if l.pos+recordHeaderBytes > l.cur.limit() {
		return false
	}
	l.put(flagMark, l.lsn, nil)
	return true
}

// flushAll makes everything appended durable. mu is held, and the syncing role
// is free.
func (l *Log) flushAll() error {
	if len(l.active.runs) == 0 {
		return l.failed
	}
	l.syncing = true
	l.lead()
	return l.failed
}

// lead is the turn of the owner of the syncing role: it writes and syncs the
// active group while others append to the next one, and passes the role on. mu
// is held, and released during I/O.
func (l *Log) lead() {
	g := l.take()
	for i := range g.runs {
		if l.failed != nil {
			break
		}
		r := &g.runs[i]
		l.mu.Unlock()
		start := time.Now()
		err := l.flush(g, r)
		took := time.Since(start)
		if err == nil {
			l.announce(r.last)
		}
		l.mu.Lock()
		if err != nil {
			l.fail(err)
			break
		}
		l.count(r, took)
		if i < len(g.runs)-1 {
			l.wakeCovered()
		}
	}
	g.reset()
	l.passRole()
	l.wakeCovered()
}

// take ends the active group and starts the next one. A group that does not say
// what the sync before it achieved gets a mark: so whatever is lost, only the
// last group's loss can be taken for a torn tail.
func (l *Log) take() *group {
	if len(l.active.runs) > 0 && l.claimed < l.Durable() {
		l.mark()
	}
	l.active.pad()
	l.active, l.flushing = l.flushing, l.active
	return l.flushing
}

// flush makes one run durable. The syncing role is held, mu is not. Header
// before records, each synced (R5); segments one after the other, so that the
// header's claim covers all before it.
func (l *Log) flush(g *group, r *run) error {
	if r.head {
		if r.retire != nil {
			r.retire.file.Close() // its last sync covered all of it
			r.retire.file = nil
		}
		if err := r.seg.writeHeaders(l.Durable()); err != nil {
			return err
		}
	}
	if r.from == r.to {
		return nil
	}
	if _, err := r.seg.file.WriteAt(g.buf[r.from:r.to], r.off); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if err := r.seg.file.Sync(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

// announce moves the horizon to v and tells OnDurable before any waiter is let
// go (L7). The syncing role is held, mu is not.
func (l *Log) announce(v block.LSN) {
	if v <= l.Durable() {
		return
	}
	l.durable.Store(uint64(v))
	if l.o.OnDurable != nil {
		l.o.OnDurable(v)
	}
	l.announced.Store(uint64(v))
}

// wakeCovered lets go the waiters whose answer is known. mu is held.
func (l *Log) wakeCovered() {
	v := block.LSN(l.announced.Load())
	kept := l.waiters[:0]
	for _, w := range l.waiters {
		if w.upto <= v || l.failed != nil {
			w.wake <- false
		} else {
			kept = append(kept, w)
		}
	}
	clear(l.waiters[len(kept):])
	l.waiters = kept
	l.changed.Broadcast()
}

// passRole gives the syncing role to the first waiter that is not covered, or
// frees it. mu is held.
func (l *Log) passRole() {
	v := block.LSN(l.announced.Load())
	for i, w := range l.waiters {
		if w.upto > v && l.failed == nil {
			l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
			w.wake <- true
			return
		}
	}
	l.syncing = false
}
