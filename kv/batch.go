package kv

import (
	"errors"
	"fmt"
	"sync"
)

// Batch is Update for many goroutines: calls that come while a batch is on its
// way to disk share the next transaction. A call that comes alone does not wait
// for others.
//
// fn may be called more than once, and its effects outside of the transaction
// should not depend on how often. If one of the calls fails, the others are run
// again without it, and it is run in a transaction of its own, whose outcome it
// gets. What was given to OnCommit runs in the goroutine of any of the calls.
func (db *DB) Batch(fn func(*Tx) error) error {
	c := &batchCall{fn: fn, lead: make(chan struct{}, 1), done: make(chan error, 1)}
	if db.batch.join(c) {
		db.lead()
	}
	select {
	case <-c.lead:
		db.lead()
	case err := <-c.done:
		return c.result(db, err)
	}
	return c.result(db, <-c.done)
}

// batcher gathers calls of Batch while one of them, the leader, runs those that
// came before.
type batcher struct {
	sizeMax int // set at Open, then constant

	mu      sync.Mutex
	led     bool // some call is the leader, or was told to be
	waiting []*batchCall
}

// batchCall is one call of Batch.
type batchCall struct {
	fn   func(*Tx) error
	lead chan struct{} // it is to be the leader
	done chan error    // it was run
}

// errAlone tells a call to run itself.
var errAlone = errors.New("run in a transaction of its own")

func (c *batchCall) result(db *DB, err error) error {
	if errors.Is(err, errAlone) {
		return db.Update(c.fn)
	}
	return err
}

// join adds a call and reports whether it is to be the leader.
func (b *batcher) join(c *batchCall) (leader bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, c)
	leader = !b.led
	b.led = true
	return leader
}

// take returns the calls for one transaction.
func (b *batcher) take() []*batchCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.waiting), b.sizeMax)
	calls := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	return calls
}

// handOn makes the first waiting call the leader, if there is one.
func (b *batcher) handOn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.led = len(b.waiting) > 0
	if b.led {
		b.waiting[0].lead <- struct{}{}
	}
}

// lead runs one batch, the leader's own call in it.
func (db *DB) lead() {
	defer db.batch.handOn()
	calls := db.batch.take()
	outcome := errAlone // if a call ends this goroutine, the others run alone
	defer func() {
		for _, c := range calls {
			c.done <- outcome
		}
	}()
	for len(calls) > 0 {
		failed, err := db.runBatch(calls, &outcome)
		if failed < 0 {
			outcome = err
			return
		}
		calls[failed].done <- errAlone
		calls = append(calls[:failed:failed], calls[failed+1:]...)
	}
}

// runBatch runs calls in one transaction. failed is the index of the call that
// spoiled it, or -1 if err is the outcome of them all. The outcome is set as soon
// as the transaction is committed: what the calls do OnCommit may end this
// goroutine, and they must not be run again for that.
func (db *DB) runBatch(calls []*batchCall, outcome *error) (failed int, err error) {
	failed = -1
	err = db.Update(func(tx *Tx) error {
		db.countBatch()
		tx.OnCommit(func() { *outcome = nil })
		for i, c := range calls {
			err := c.run(tx)
			if err == nil {
				err = tx.failed // fn passed over it; the next call must not be blamed
			}
			if err != nil {
				failed = i
				return err
			}
		}
		return nil
	})
	return failed, err
}

func (db *DB) countBatch() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.stats.Batches++
}

// run calls fn. A panic is an error here: fn will have it again when it is run
// alone, in the goroutine where it belongs.
func (c *batchCall) run(tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.fn(tx)
}
