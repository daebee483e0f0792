package kv_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

func TestErrorsOfOpening(t *testing.T) {
	_, err := kv.Open(t.TempDir(), kv.Options{BatchSizeMax: -1})
	wantErr(t, err, kv.ErrOptions)
	check := func(context.Context, *mvcc.ReadTx, func(block.ID) error) error { return nil }
	_, err = kv.Open(t.TempDir(), kv.Options{Store: mvcc.Options{CheckTrees: check}})
	wantErr(t, err, kv.ErrOptions)
}

// setRoot replaces the root of a database behind its back.
func setRoot(t testing.TB, db *kv.DB, r mvcc.Root) {
	t.Helper()
	w, err := db.Store().BeginWrite()
	must(t, err)
	w.SetRoot(r)
	_, err = w.Commit()
	must(t, err)
}

func TestForeignOrNewerRootIsRefused(t *testing.T) {
	db := openDB(t, kv.Options{})
	foreign := mvcc.Root{0: 'S', 1: 'Q', 2: 'L'}
	newer := mvcc.Root{0: 'S', 1: 'p', 2: 'K', 3: 'V', 4: 2, 16: 1}
	torn := mvcc.Root{0: 'S', 1: 'p', 2: 'K', 3: 'V', 4: 1, 6: 3, 16: 1}
	for want, root := range map[error]mvcc.Root{kv.ErrForeignRoot: foreign, kv.ErrVersion: newer, block.ErrCorrupt: torn} {
		setRoot(t, db, root)
		wantErr(t, db.View(func(*kv.Tx) error { return nil }), want)
		wantErr(t, db.Update(func(*kv.Tx) error { return nil }), want)
	}
	setRoot(t, db, mvcc.Root{})
}

func TestErrorsOfTransactions(t *testing.T) {
	db := openDB(t, kv.Options{})
	var tx *kv.Tx
	var b *kv.Bucket
	must(t, db.Update(func(w *kv.Tx) error {
		wantErr(t, w.Commit(), kv.ErrTxManaged)
		wantErr(t, w.Rollback(), kv.ErrTxManaged)
		tx, b = w, bucket(t, w, "b")
		return b.Put([]byte("k"), []byte("v"))
	}))
	c := b.Cursor()
	_, err := b.Get([]byte("k"))
	wantErr(t, err, kv.ErrTxClosed)
	wantErr(t, b.Put([]byte("k"), nil), kv.ErrTxClosed)
	wantErr(t, b.Put([]byte("k"), make([]byte, 9999)), kv.ErrTxClosed)
	wantErr(t, b.Delete([]byte("k")), kv.ErrTxClosed)
	wantErr(t, b.Scan(nil, nil, nil), kv.ErrTxClosed)
	wantErr(t, tx.Commit(), kv.ErrTxClosed)
	wantErr(t, tx.Rollback(), kv.ErrTxClosed)
	wantErr(t, tx.Check(context.Background(), nil), kv.ErrTxClosed)
	_, err = tx.CreateBucket([]byte("c"))
	wantErr(t, err, kv.ErrTxClosed)
	if k, _ := c.First(); k != nil {
		t.Error("a cursor of a closed transaction found something")
	}
	wantErr(t, c.Err(), kv.ErrTxClosed)
	for _, err := range b.All() {
		wantErr(t, err, kv.ErrTxClosed)
	}
	must(t, db.View(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		wantErr(t, b.Put([]byte("k"), nil), kv.ErrTxNotWritable)
		wantErr(t, b.PutReader([]byte("k"), nil, 9999), kv.ErrTxNotWritable)
		wantErr(t, b.Delete([]byte("k")), kv.ErrTxNotWritable)
		wantErr(t, b.SetSequence(1), kv.ErrTxNotWritable)
		_, err := b.NextSequence()
		wantErr(t, err, kv.ErrTxNotWritable)
		_, err = tx.CreateBucketIfNotExists([]byte("b"))
		wantErr(t, err, kv.ErrTxNotWritable)
		wantErr(t, tx.DeleteBucket([]byte("b")), kv.ErrTxNotWritable)
		return nil
	}))
	r, err := db.Begin(false)
	must(t, err)
	wantErr(t, r.Commit(), kv.ErrTxNotWritable)
	must(t, r.Rollback())
}

func TestErrorsOfEntries(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		wantErr(t, b.Put(nil, nil), kv.ErrKeyRequired)
		wantErr(t, b.Put(make([]byte, db.MaxKeySize()+1), nil), kv.ErrKeyTooLarge)
		must(t, b.Put(make([]byte, db.MaxKeySize()), nil))
		wantErr(t, b.PutReader([]byte("k"), nil, kv.MaxValueSize+1), kv.ErrValueTooLarge)
		_, err := b.CreateBucket(nil)
		wantErr(t, err, kv.ErrBucketNameRequired)
		_, err = b.CreateBucket(make([]byte, db.MaxKeySize()+1))
		wantErr(t, err, kv.ErrKeyTooLarge)
		_, err = b.CreateBucket([]byte("nested"))
		must(t, err)
		_, err = b.CreateBucket([]byte("nested"))
		wantErr(t, err, kv.ErrBucketExists)
		wantErr(t, b.Put([]byte("nested"), nil), kv.ErrIncompatibleValue)
		wantErr(t, b.Put([]byte("nested"), make([]byte, 99999)), kv.ErrIncompatibleValue)
		wantErr(t, b.Delete([]byte("nested")), kv.ErrIncompatibleValue)
		_, err = b.Get([]byte("nested"))
		wantErr(t, err, kv.ErrIncompatibleValue)
		_, err = b.Reader([]byte("nested"))
		wantErr(t, err, kv.ErrIncompatibleValue)
		must(t, b.Put([]byte("k"), nil))
		_, err = b.Bucket([]byte("k"))
		wantErr(t, err, kv.ErrIncompatibleValue)
		_, err = b.CreateBucketIfNotExists([]byte("k"))
		wantErr(t, err, kv.ErrIncompatibleValue)
		wantErr(t, b.DeleteBucket([]byte("k")), kv.ErrIncompatibleValue)
		wantErr(t, b.DeleteBucket([]byte("none")), kv.ErrBucketNotFound)
		_, err = b.Bucket(nil)
		wantErr(t, err, kv.ErrBucketNotFound)
		if v, err := b.Get([]byte("k")); v == nil || err != nil {
			t.Errorf("an empty value is %v, %v", v, err)
		}
		if v, err := b.Get([]byte("none")); v != nil || err != nil {
			t.Errorf("a missing value is %v, %v", v, err)
		}
		return nil
	}))
}

// A handle of a deleted bucket must not touch the bucket that came in its place.
func TestDeletedBucketIsNotFound(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		outer := bucket(t, tx, "outer")
		inner, err := outer.CreateBucket([]byte("inner"))
		must(t, err)
		other := bucket(t, tx, "other")
		must(t, inner.Put([]byte("k"), []byte("v")))
		must(t, tx.DeleteBucket([]byte("outer")))
		bucket(t, tx, "outer")
		for _, b := range []*kv.Bucket{outer, inner} {
			wantErr(t, b.Put([]byte("k"), nil), kv.ErrBucketNotFound)
			_, err := b.Get([]byte("k"))
			wantErr(t, err, kv.ErrBucketNotFound)
			_, err = b.NextSequence()
			wantErr(t, err, kv.ErrBucketNotFound)
			_, err = b.CreateBucket([]byte("x"))
			wantErr(t, err, kv.ErrBucketNotFound)
		}
		must(t, other.Put([]byte("k"), nil))
		return nil
	}))
}

func TestUpdateRollsBackOnPanic(t *testing.T) {
	db := openDB(t, kv.Options{})
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic was lost")
			}
		}()
		_ = db.Update(func(tx *kv.Tx) error {
			must(t, bucket(t, tx, "b").Put([]byte("k"), nil))
			panic("boom")
		})
	}()
	must(t, db.View(func(tx *kv.Tx) error {
		_, err := tx.Bucket([]byte("b"))
		wantErr(t, err, kv.ErrBucketNotFound)
		return nil
	}))
	if s := db.Stats(); s.Rollbacks != 1 || s.Commits != 0 {
		t.Errorf("stats are %+v", s)
	}
}

func TestOnCommit(t *testing.T) {
	db := openDB(t, kv.Options{})
	var calls []int
	must(t, db.Update(func(tx *kv.Tx) error {
		tx.OnCommit(func() { calls = append(calls, 1) })
		tx.OnCommit(func() { calls = append(calls, 2) })
		bucket(t, tx, "b")
		return nil
	}))
	wantErr(t, db.Update(func(tx *kv.Tx) error {
		tx.OnCommit(func() { calls = append(calls, 3) })
		return errRollback
	}), errRollback)
	if len(calls) != 2 || calls[0] != 1 || calls[1] != 2 {
		t.Errorf("calls are %v", calls)
	}
}

func TestDatabaseClosed(t *testing.T) {
	db, err := kv.Open(t.TempDir(), kv.Options{})
	must(t, err)
	must(t, db.Close())
	must(t, db.Close())
	wantErr(t, db.View(nil), kv.ErrDatabaseClosed)
	wantErr(t, db.Update(nil), kv.ErrDatabaseClosed)
	wantErr(t, db.Batch(nil), kv.ErrDatabaseClosed)
	wantErr(t, db.Check(context.Background()), kv.ErrDatabaseClosed)
	_, err = db.Begin(true)
	wantErr(t, err, kv.ErrDatabaseClosed)
}

// An error of the user's reader costs nothing: the transaction goes on.
func TestPutReaderThatFails(t *testing.T) {
	db := openDB(t, kv.Options{})
	boom := errors.New("boom")
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		must(t, b.Put([]byte("k"), []byte("old")))
		for _, n := range []int{10, 4000, 40_000, 2_500_000, 5_000_000} {
			r := &failingReader{n: n, err: boom}
			wantErr(t, b.PutReader([]byte("k"), r, 6_000_000), boom)
		}
		wantErr(t, b.PutReader([]byte("k"), bytes.NewReader(nil), 10_000), errUnexpectedEOF)
		wantErr(t, b.PutReader([]byte("k"), bytes.NewReader(nil), 10), errUnexpectedEOF)
		return nil
	}))
	must(t, db.View(func(tx *kv.Tx) error {
		v, err := bucket(t, tx, "b").Get([]byte("k"))
		if string(v) != "old" {
			t.Errorf("value is %q", v)
		}
		return err
	}))
}

// readerFunc is a reader that does what it likes.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A reader that panics half way through a value, changes the transaction, or ends
// it, and a user who goes on all the same: nothing of the value may be left behind,
// nor be put into a bucket that is gone. The first cause is told.
func TestPutReaderThatMisbehaves(t *testing.T) {
	db := openDB(t, kv.Options{})
	boom := errors.New("boom")
	for _, c := range []struct {
		what string
		read func(tx *kv.Tx) error
		want error
	}{
		{"panics", func(*kv.Tx) error { panic("boom") }, kv.ErrTxFailed},
		{"changes", func(tx *kv.Tx) error { return tx.DeleteBucket([]byte("b")) }, kv.ErrTxFailed},
		{"fails", func(tx *kv.Tx) error { kv.FailTx(tx, boom); return nil }, boom},
		{"fails and panics", func(tx *kv.Tx) error { kv.FailTx(tx, boom); panic("bang") }, boom},
		{"ends", (*kv.Tx).Rollback, kv.ErrTxClosed},
	} {
		for _, size := range []int64{20, 900, 5000, 100_000} {
			tx, err := db.Begin(true)
			must(t, err)
			b := bucket(t, tx, "b")
			left := size
			func() {
				defer func() { _ = recover() }()
				err := b.PutReader([]byte("k"), readerFunc(func(p []byte) (int, error) {
					p = p[:min(len(p), 10)]
					if left -= int64(len(p)); left == 0 {
						return len(p), c.read(tx)
					}
					return len(p), nil
				}), size)
				if err == nil {
					t.Errorf("a reader %s: PutReader of %d bytes says nothing", c.what, size)
				}
			}()
			wantErr(t, b.Put([]byte("k"), nil), c.want)
			wantErr(t, tx.Commit(), c.want)
		}
	}
	if left := allocated(t, db); len(left) != 0 {
		t.Errorf("%d blocks are left of nothing", len(left))
	}
}
