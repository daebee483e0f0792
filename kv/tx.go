package kv

import (
	"errors"
	"fmt"
	"iter"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Tx is a transaction: a read transaction sees the database as of its LSN for as
// long as it lives (L1), a write transaction sees what was committed before it
// and its own changes. It belongs to one goroutine. A transaction that Begin
// returned must be ended by Commit or Rollback: a read transaction that is not
// makes the store keep originals, a write transaction stops all later ones.
type Tx struct {
	db       *DB
	tree     tree
	base     block.LSN
	managed  bool  // by Update, View or Batch
	done     bool  // committed or rolled back
	failed   error // why only Rollback is left
	onCommit []func()

	// deletions counts deleted buckets: a Bucket that knows another number must
	// look whether it still exists.
	deletions uint64
	top       Bucket // bucket 0

	read mvcc.ReadTx // of a read transaction: here it is one allocation with it
}

// DB returns the database.
func (tx *Tx) DB() *DB { return tx.db }

// LSN is the number of the commit that a read transaction sees, or on which a
// write transaction is based.
func (tx *Tx) LSN() block.LSN { return tx.base }

// Writable reports whether the transaction may change the database.
func (tx *Tx) Writable() bool { return tx.tree.write != nil }

// usable reports why the transaction cannot be used: what a tree in pieces does
// not find is not for that reason missing.
func (tx *Tx) usable() error {
	if tx.done {
		return ErrTxClosed
	}
	return tx.failed
}

// after sees the error of every change. All but one may have left the tree in
// pieces.
func (tx *Tx) after(err error) error {
	if err == nil || errors.Is(err, ErrIncompatibleValue) {
		return err
	}
	if tx.failed == nil { // the first cause is what a user wants to know
		tx.failed = fmt.Errorf("%w: %w", ErrTxFailed, err)
	}
	return err
}

// Bucket returns a top-level bucket, or ErrBucketNotFound.
func (tx *Tx) Bucket(name []byte) (*Bucket, error) { return tx.top.Bucket(name) }

// CreateBucket makes a top-level bucket, or returns ErrBucketExists.
func (tx *Tx) CreateBucket(name []byte) (*Bucket, error) { return tx.top.CreateBucket(name) }

// CreateBucketIfNotExists returns a top-level bucket and makes it if it does not
// exist.
func (tx *Tx) CreateBucketIfNotExists(name []byte) (*Bucket, error) {
	return tx.top.CreateBucketIfNotExists(name)
}

// DeleteBucket deletes a top-level bucket with all that it contains, or returns
// ErrBucketNotFound.
func (tx *Tx) DeleteBucket(name []byte) error { return tx.top.DeleteBucket(name) }

// Buckets yields the names of the top-level buckets in order.
func (tx *Tx) Buckets() iter.Seq2[[]byte, error] { return tx.top.Buckets() }

// Cursor returns a cursor over the top-level buckets: the keys are their names,
// the values nil. It deletes none: use DeleteBucket.
func (tx *Tx) Cursor() *Cursor { return tx.top.Cursor() }

// OnCommit has fn called after the transaction was committed, durably and in the
// order of the calls, before Commit returns. The next write transaction may have
// begun by then, and fn may begin one. It is not called after Rollback, nor in a
// read transaction.
func (tx *Tx) OnCommit(fn func()) { tx.onCommit = append(tx.onCommit, fn) }

// Commit makes the changes durable and visible, and returns then. It ends the
// transaction whatever it returns. The commit of a read transaction is
// ErrTxNotWritable and does not end it. After an error that is ErrTxFailed,
// mvcc.ErrNoSpace or mvcc.ErrTxTooLarge nothing was changed, and the database goes
// on; after another one the outcome is unknown until it was opened again (L8).
func (tx *Tx) Commit() error {
	switch {
	case tx.done:
		return ErrTxClosed
	case tx.managed:
		return ErrTxManaged
	case tx.tree.write == nil:
		return ErrTxNotWritable
	case tx.failed != nil:
		return withCleanup(tx.failed, tx.rollback())
	}
	return tx.commit()
}

func (tx *Tx) commit() error {
	tx.done = true
	was := tx.tree.write.Root()
	if f, err := decodeRoot(&was); err != nil || f != tx.tree.rootFields {
		tx.tree.write.SetRoot(tx.tree.rootFields.encode())
	}
	counts := tx.tree.w.counts
	tx.tree.w = nil // the next writer's, from here on
	if _, err := tx.tree.write.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	tx.db.committed(counts)
	for _, fn := range tx.onCommit {
		fn()
	}
	return nil
}

// Rollback ends the transaction and forgets its changes. It returns ErrTxClosed
// if the transaction has ended. That of a write transaction returns when what it
// saw is durable (R3); another error says that this is not certain.
func (tx *Tx) Rollback() error {
	switch {
	case tx.done:
		return ErrTxClosed
	case tx.managed:
		return ErrTxManaged
	}
	return tx.rollback()
}

func (tx *Tx) rollback() error {
	tx.done = true
	if tx.tree.read != nil {
		tx.tree.read.Close()
		return nil
	}
	tx.tree.w = nil
	tx.db.rollbacks.Add(1)
	if err := tx.tree.write.Rollback(); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}
