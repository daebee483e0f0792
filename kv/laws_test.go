package kv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestL1_ReadersKeepTheirView: every commit moves an amount between accounts and
// writes its number into all of them; a reader sees one commit, however often and
// in whatever way it looks, while the writer goes on.
func TestL1_ReadersKeepTheirView(t *testing.T) {
	db := openDB(t, kv.Options{})
	const accounts = 500
	write := func(round uint64) {
		must(t, db.Update(func(tx *kv.Tx) error {
			b := bucket(t, tx, "accounts")
			for i := range accounts {
				v := binary.LittleEndian.AppendUint64(nil, round)
				v = append(v, make([]byte, (round*7+uint64(i))%300)...)
				if err := b.Put(fmt.Appendf(nil, "%04d", i), v); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	write(0)
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				if err := db.View(oneRound); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for round := uint64(1); round < 60; round++ {
		write(round)
	}
	stop.Store(true)
	readers.Wait()
}

// oneRound proves that all accounts are of one round, twice.
func oneRound(tx *kv.Tx) error {
	b, err := tx.Bucket([]byte("accounts"))
	if err != nil {
		return err
	}
	rounds := map[uint64]bool{}
	n := 0
	for e, err := range b.All() {
		if err != nil {
			return err
		}
		rounds[binary.LittleEndian.Uint64(e.Value)] = true
		n++
	}
	err = b.Scan(nil, nil, func(k, v []byte) error {
		rounds[binary.LittleEndian.Uint64(v)] = true
		n++
		return nil
	})
	if err == nil && (len(rounds) != 1 || n != 1000) {
		err = fmt.Errorf("%d entries are of %d rounds", n, len(rounds))
	}
	return err
}

// What was returned stays as it was after its block was changed and the
// transaction has ended.
func TestReturnedSlicesStayValid(t *testing.T) {
	db := openDB(t, kv.Options{})
	fill := func(with byte) {
		must(t, db.Update(func(tx *kv.Tx) error {
			b := bucket(t, tx, "b")
			for i := range 300 {
				must(t, b.Put(fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte{with}, 50)))
			}
			return nil
		}))
	}
	fill('a')
	var kept [][]byte
	collect := func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			kept = append(kept, v)
		}
		for e := range b.Backward() {
			kept = append(kept, e.Value)
		}
		v, err := b.Get([]byte("0007"))
		kept = append(kept, v)
		return err
	}
	must(t, db.View(collect))
	must(t, db.Update(func(tx *kv.Tx) error {
		must(t, collect(tx))
		for i := range 300 {
			must(t, bucket(t, tx, "b").Delete(fmt.Appendf(nil, "%04d", i)))
		}
		return nil
	}))
	fill('b')
	for _, v := range kept {
		if !bytes.Equal(v, bytes.Repeat([]byte{'a'}, 50)) {
			t.Fatalf("a kept value is %q", v)
		}
		if cap(v) > 64 {
			t.Fatalf("a value of 50 bytes has room for %d: appending would write over its neighbours", cap(v))
		}
	}
}

// A change that could not be finished leaves nothing but Rollback: what is not
// found in a tree that is in pieces may well be there.
func TestFailedChangeFailsTheTransaction(t *testing.T) {
	db := openDB(t, kv.Options{})
	err := db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		must(t, b.Put([]byte("k"), []byte("v")))
		kv.FailTx(tx, errors.New("boom"))
		wantErr(t, b.Put([]byte("k"), nil), kv.ErrTxFailed)
		wantErr(t, b.Delete([]byte("k")), kv.ErrTxFailed)
		_, err := b.Get([]byte("k"))
		wantErr(t, err, kv.ErrTxFailed)
		_, err = tx.Bucket([]byte("none"))
		wantErr(t, err, kv.ErrTxFailed)
		_, err = b.Stats()
		wantErr(t, err, kv.ErrTxFailed)
		c := b.Cursor()
		if k, _ := c.First(); k != nil {
			t.Errorf("a cursor found %q", k)
		}
		wantErr(t, c.Err(), kv.ErrTxFailed)
		wantErr(t, b.Scan(nil, nil, func(k, v []byte) error { return nil }), kv.ErrTxFailed)
		wantErr(t, tx.Check(context.Background(), nil), kv.ErrTxFailed)
		return nil
	})
	wantErr(t, err, kv.ErrTxFailed)
	must(t, db.View(func(tx *kv.Tx) error {
		_, err := tx.Bucket([]byte("b"))
		wantErr(t, err, kv.ErrBucketNotFound)
		return nil
	}))
}

var manyBuckets = flag.Int("buckets", 100_000, "number of buckets in TestManyBuckets")

// A bucket costs an entry: -buckets 1000000 is a matter of seconds.
func TestManyBuckets(t *testing.T) {
	n := *manyBuckets
	if testing.Short() || raceEnabled {
		n = min(n, 20_000)
	}
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		top := bucket(t, tx, "top")
		for i := range n {
			b, err := top.CreateBucket(binary.BigEndian.AppendUint32(nil, uint32(i)))
			if err != nil {
				return err
			}
			if i%8 == 0 {
				must(t, b.Put([]byte("k"), []byte("v")))
			}
		}
		return nil
	}))
	if blocks := len(allocated(t, db)); blocks > n/40 {
		t.Errorf("%d small buckets take %d blocks", n, blocks)
	}
	mustCheck(t, db)
	must(t, db.Update(func(tx *kv.Tx) error { return tx.DeleteBucket([]byte("top")) }))
	if left := allocated(t, db); len(left) != 0 {
		t.Errorf("%d blocks are left of nothing", len(left))
	}
}

// Deleting a bucket of inline values does not read its leaves: with all of them
// made unreadable it still works.
func TestDeleteBucketDoesNotReadLeaves(t *testing.T) {
	db := openDB(t, kv.Options{})
	load(t, db, 0, 20_000, benchKey)
	must(t, db.Update(func(tx *kv.Tx) error {
		before := bucket(t, tx, "before") // keeps its own leaves to the side
		must(t, before.Put([]byte("k"), []byte("v")))
		return nil
	}))
	damaged := damageLeaves(t, db, 2)
	if damaged < 100 {
		t.Fatalf("only %d leaves were damaged", damaged)
	}
	must(t, db.Update(func(tx *kv.Tx) error { return tx.DeleteBucket(benchName) }))
}

// Top-level buckets are walked like any others, and keys without their values.
func TestNamesAndKeys(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		bucket(t, tx, "two")
		one := bucket(t, tx, "one")
		must(t, one.Put([]byte("long"), make([]byte, 100_000)))
		_, err := one.CreateBucket([]byte("nested"))
		return err
	}))
	must(t, db.View(func(tx *kv.Tx) error {
		c := tx.Cursor()
		var names, keys []string
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			if v != nil {
				t.Errorf("bucket %q has a value", k)
			}
			names = append(names, string(k))
		}
		for k, err := range bucket(t, tx, "one").Keys() {
			must(t, err)
			keys = append(keys, string(k))
		}
		if got := fmt.Sprint(names, keys); got != "[two one] [long nested]" {
			t.Error(got)
		}
		wantErr(t, c.Delete(), kv.ErrCursorUnset)
		if tx.LSN() == 0 || tx.DB() != db || tx.Writable() {
			t.Errorf("transaction is at %v of %p", tx.LSN(), tx.DB())
		}
		return c.Err()
	}))
}

// K4 outlives merging: a leaf of inline values takes in a neighbour that holds a
// bucket, from the left and from the right.
func TestMergeKeepsMark(t *testing.T) {
	for _, fromLeft := range []bool{true, false} {
		db := openDB(t, kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever}})
		must(t, db.Update(func(tx *kv.Tx) error {
			b := bucket(t, tx, "b")
			for i := range 300 {
				must(t, b.Put(fmt.Appendf(nil, "%0100d", i), nil))
			}
			_, err := b.CreateBucket(fmt.Appendf(nil, "%0100dx", 150))
			return err
		}))
		for i := range 300 {
			must(t, db.Update(func(tx *kv.Tx) error {
				k := i
				if !fromLeft {
					k = 299 - i
				}
				must(t, bucket(t, tx, "b").Delete(fmt.Appendf(nil, "%0100d", k)))
				if i%8 == 0 {
					checkTx(t, tx)
				}
				return nil
			}))
		}
	}
}
