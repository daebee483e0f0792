package kv_test

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestFault_AnyReadOfAChange: whichever read of the data file fails while a
// transaction changes the tree, the transaction says so from then on in whatever
// way it is asked, and the next one finds what was there before it.
func TestFault_AnyReadOfAChange(t *testing.T) {
	s := chance.Seed(t)
	fsys := simfs.New()
	db, err := kv.Open("/db", kv.Options{Store: mvcc.Options{
		FS: fsys, MaxRAM: 2 << 20, Durability: mvcc.DurableNever, CloseWait: -1,
	}})
	must(t, err)
	big := newModel()
	must(t, db.Update(func(tx *kv.Tx) error {
		fillBig(t, tx, big)
		return nil
	}))
	rounds := 60
	if testing.Short() || raceEnabled {
		rounds = 15
	}
	failed := 0
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(s, uint64(round)))
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: "data", Skip: rnd.IntN(200)})
		next := big.clone()
		err := db.Update(func(tx *kv.Tx) error { return changeUntilItFails(t, tx, next, rnd) })
		fault.Disarm()
		switch {
		case err == nil:
			big = next
		case errors.Is(err, syscall.EIO) && !errors.Is(err, kv.ErrIncompatibleValue):
			failed++
		default:
			t.Fatal(err)
		}
		if round%10 == 0 {
			mustCheck(t, db)
		}
	}
	if failed == 0 {
		t.Error("no read of a change ever failed")
	}
	must(t, db.View(func(tx *kv.Tx) error {
		compareTx(t, tx, big)
		return nil
	}))
	mustCheck(t, db)
	must(t, db.Close())
}

// fillBig makes buckets that are larger than memory, one of them nested.
func fillBig(t *testing.T, tx *kv.Tx, top *model) {
	t.Helper()
	m := newModel()
	top.buckets["b"] = m
	b := bucket(t, tx, "b")
	fill := func(b *kv.Bucket, m *model, n int) {
		for i := range n {
			k, v := benchKey(nil, uint64(i)), make([]byte, 300+i%500)
			if i%97 == 0 {
				v = make([]byte, 9000)
			}
			must(t, b.Put(k, v))
			m.values[string(k)] = v
		}
	}
	fill(b, m, 4000)
	nested, err := b.CreateBucket([]byte("nested"))
	must(t, err)
	m.buckets["nested"] = newModel()
	fill(nested, m.buckets["nested"], 2000)
}

// changeUntilItFails puts and deletes. After the first failure everything must be
// ErrTxFailed.
func changeUntilItFails(t *testing.T, tx *kv.Tx, top *model, rnd *rand.Rand) error {
	b, err := tx.Bucket([]byte("b"))
	if err != nil {
		return err
	}
	m := top.buckets["b"]
	mayBeSearch := false
	for range 150 {
		k := benchKey(nil, rnd.Uint64N(5000))
		change := rnd.IntN(40)
		switch {
		case change == 0 && m.buckets["nested"] != nil:
			mayBeSearch = true
			err = b.DeleteBucket([]byte("nested"))
			delete(m.buckets, "nested")
		case change < 20:
			v := make([]byte, rnd.IntN(1500))
			mayBeSearch = len(v) > 900
			err = b.Put(k, v)
			m.values[string(k)] = v
		default:
			mayBeSearch = false
			err = b.Delete(k)
			delete(m.values, string(k))
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	_, again := b.Get([]byte("k"))
	if again != nil || !mayBeSearch { // a search that failed left the tree whole
		wantErr(t, again, kv.ErrTxFailed)
		wantErr(t, b.Put([]byte("k"), nil), kv.ErrTxFailed)
		wantErr(t, tx.DeleteBucket([]byte("b")), kv.ErrTxFailed)
	}
	return err
}

// A read that fails before a long value is stored says nothing about the key: it
// is not ErrIncompatibleValue, on which a user may decide that it has a bucket.
func TestFault_SearchBeforeALongValue(t *testing.T) {
	fsys := simfs.New()
	o := kv.Options{Store: mvcc.Options{FS: fsys, MaxRAM: 2 << 20, Durability: mvcc.DurableNever, CloseWait: -1}}
	db, err := kv.Open("/db", o)
	must(t, err)
	must(t, db.Update(func(tx *kv.Tx) error {
		fillBig(t, tx, newModel())
		return nil
	}))
	must(t, db.Close())
	db, err = kv.Open("/db", o)
	must(t, err)
	wantErr(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: "data", Sticky: true})
		err := b.Put(benchKey(nil, 3000), make([]byte, 9000))
		fault.Disarm()
		wantErr(t, err, syscall.EIO)
		if errors.Is(err, kv.ErrIncompatibleValue) {
			t.Errorf("a failed read says %v", err)
		}
		must(t, b.Put(benchKey(nil, 3000), make([]byte, 9000))) // it was only a search
		return errRollback
	}), errRollback)
	mustCheck(t, db)
	must(t, db.Close())
}
