package kv_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/kv"
)

// Every call gets its own outcome: those that fail or panic spoil no other one.
func TestBatchOutcomes(t *testing.T) {
	db := openDB(t, kv.Options{BatchSizeMax: 7})
	must(t, db.Update(func(tx *kv.Tx) error {
		bucket(t, tx, "b")
		return nil
	}))
	boom := errors.New("boom")
	var calls sync.WaitGroup
	for i := range 100 {
		calls.Go(func() {
			defer func() {
				if p := recover(); (p != nil) != (i%10 == 7) {
					t.Errorf("call %d: panic is %v", i, p)
				}
			}()
			err := db.Batch(func(tx *kv.Tx) error {
				b, err := tx.Bucket([]byte("b"))
				if err != nil {
					return err
				}
				if err := b.Put(fmt.Appendf(nil, "%d", i), nil); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return boom
				case 7:
					panic(boom)
				}
				return nil
			})
			if errors.Is(err, boom) != (i%10 == 3) {
				t.Errorf("call %d: error is %v", i, err)
			}
		})
	}
	calls.Wait()
	must(t, db.View(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		for i := range 100 {
			v, err := b.Get(fmt.Appendf(nil, "%d", i))
			must(t, err)
			if ok := i%10 != 3 && i%10 != 7; (v != nil) != ok {
				t.Errorf("call %d: committed is %v", i, v != nil)
			}
		}
		return nil
	}))
}

// Calls that come while a batch runs share the next transaction.
func TestBatchCoalesces(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		bucket(t, tx, "b")
		return nil
	}))
	var calls sync.WaitGroup
	put := func(tx *kv.Tx) error {
		b, err := tx.Bucket([]byte("b"))
		if err != nil {
			return err
		}
		_, err = b.NextSequence()
		return err
	}
	release := make(chan struct{})
	running := make(chan struct{})
	calls.Go(func() {
		must(t, db.Batch(func(tx *kv.Tx) error {
			close(running)
			<-release
			return put(tx)
		}))
	})
	<-running
	for range 50 {
		calls.Go(func() { must(t, db.Batch(put)) })
	}
	for kv.BatchWaiting(db) < 50 {
		runtime.Gosched()
	}
	close(release)
	calls.Wait()
	if s := db.Stats(); s.Batches != 2 {
		t.Errorf("%d transactions for 51 calls, want 2", s.Batches)
	}
	must(t, db.View(func(tx *kv.Tx) error {
		n, err := bucket(t, tx, "b").Sequence()
		if n != 51 {
			t.Errorf("sequence is %d", n)
		}
		return err
	}))
}

// A call that ends the goroutine of the leader leaves no other one waiting.
func TestBatchSurvivesGoexit(t *testing.T) {
	db := openDB(t, kv.Options{})
	var calls sync.WaitGroup
	for i := range 20 {
		calls.Go(func() {
			_ = db.Batch(func(tx *kv.Tx) error {
				if i == 5 {
					runtime.Goexit()
				}
				_, err := tx.CreateBucketIfNotExists(fmt.Appendf(nil, "%d", i))
				return err
			})
		})
	}
	calls.Wait()
	must(t, db.Batch(func(tx *kv.Tx) error { return nil }))
}

// What one call does when the commit is made does not undo it: the others of its
// batch are not run again.
func TestBatchThatPanicsBehindTheCommit(t *testing.T) {
	for name, spoil := range map[string]func(){
		"panic":  func() { panic("boom") },
		"goexit": runtime.Goexit,
	} {
		db := openDB(t, kv.Options{})
		var calls sync.WaitGroup
		release, running := make(chan struct{}), make(chan struct{})
		calls.Go(func() {
			must(t, db.Batch(func(tx *kv.Tx) error {
				close(running)
				<-release
				return nil
			}))
		})
		<-running
		const n = 8
		for i := range n {
			calls.Go(func() {
				defer func() { _ = recover() }()
				err := db.Batch(func(tx *kv.Tx) error {
					if i == 3 {
						tx.OnCommit(spoil)
					}
					b, err := tx.CreateBucketIfNotExists([]byte("b"))
					if err != nil {
						return err
					}
					_, err = b.NextSequence()
					return err
				})
				if err != nil {
					t.Errorf("%s: a call gets %v", name, err)
				}
			})
		}
		for kv.BatchWaiting(db) < n {
			runtime.Gosched()
		}
		close(release)
		calls.Wait()
		must(t, db.View(func(tx *kv.Tx) error {
			if v, err := bucket(t, tx, "b").Sequence(); v != n || err != nil {
				t.Errorf("%s: %d calls took effect %d times (%v)", name, n, v, err)
			}
			return nil
		}))
	}
}

// A call that goes on though a change of it failed, and says nothing, spoils no
// other one: neither those before it, which would fail at the commit, nor those
// behind it, which find the transaction failed.
func TestBatchCallThatPassesOverItsFailure(t *testing.T) {
	db := openDB(t, kv.Options{})
	boom := errors.New("boom")
	var calls sync.WaitGroup
	release, running := make(chan struct{}), make(chan struct{})
	calls.Go(func() {
		must(t, db.Batch(func(*kv.Tx) error {
			close(running)
			<-release
			return nil
		}))
	})
	<-running
	for i := range 9 {
		calls.Go(func() {
			runs := 0
			err := db.Batch(func(tx *kv.Tx) error {
				runs++
				b, err := tx.CreateBucketIfNotExists([]byte("b"))
				if err != nil {
					return err
				}
				if i == 4 {
					kv.FailTx(tx, boom)
					return nil
				}
				return b.Put([]byte{byte(i)}, nil)
			})
			if errors.Is(err, boom) != (i == 4) {
				t.Errorf("call %d: error is %v", i, err)
			}
			if runs > 2 {
				t.Errorf("call %d ran %d times", i, runs)
			}
		})
		for kv.BatchWaiting(db) <= i {
			runtime.Gosched()
		}
	}
	close(release)
	calls.Wait()
	must(t, db.View(func(tx *kv.Tx) error {
		n := 0
		err := bucket(t, tx, "b").Scan(nil, nil, func(_, _ []byte) error { n++; return nil })
		if n != 8 {
			t.Errorf("%d calls took effect", n)
		}
		return err
	}))
}
