package kv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	store   *mvcc.Store // set at Open, then constant
	payload int
	batch   batcher
	names   names
	root    atomic.Pointer[rootCopy]
	closed  atomic.Bool
	ended   chan struct{} // closed when Close is done

	// w belongs to the write transaction, of which the store allows one.
	w *workspace

	rollbacks atomic.Uint64
	mu        sync.Mutex
	stats     Stats // guarded by mu; without rollbacks
}

// Open opens the database in directory dir, or makes one if dir is empty or does
// not exist; the directory above it must exist. mvcc.ErrLocked if it is open
// already: Open does not wait. Close it, or its lock and its log stay as they are.
//
// A standby can be read while its store is rolled forward; what it reads moves on
// from one transaction to the next. There and with Options.Store.ReadOnly write
// transactions fail with mvcc.ErrStandby or mvcc.ErrReadOnly.
func Open(dir string, o Options) (*DB, error) {
	return open(o, dir, func(so mvcc.Options) (*mvcc.Store, error) { return mvcc.Open(dir, so) })
}

// OpenImage opens a state of a database that blocks can be read of, a backup for
// example, to be read as if it were one. It is the caller's to close, after the
// database.
func OpenImage(img mvcc.Image, o Options) (*DB, error) {
	return open(o, "image", func(so mvcc.Options) (*mvcc.Store, error) { return mvcc.OpenImage(img, so) })
}

// open makes a DB of a store; name is for errors.
func open(o Options, name string, openStore func(mvcc.Options) (*mvcc.Store, error)) (*DB, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	o.Store.CheckTrees = checkStore
	store, err := openStore(o.Store)
	if err != nil {
		return nil, err
	}
	payload := store.BlockSize() - block.TrailerSize
	db := &DB{
		store:   store,
		payload: payload,
		batch:   batcher{sizeMax: o.BatchSizeMax},
		w:       &workspace{scratch: make(node, payload)},
		ended:   make(chan struct{}),
	}
	if err := db.View(func(*Tx) error { return nil }); err != nil {
		return nil, withCleanup(fmt.Errorf("open %s: %w", name, err), store.Close())
	}
	return db, nil
}

// Close closes the database. It waits for open transactions: for read
// transactions mvcc.Options.CloseWait, then it breaks them (R21); for a write
// transaction until it ends. Further calls return nil, when the first is done.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		<-db.ended
		return nil
	}
	defer close(db.ended)
	return db.store.Close()
}

// Store returns the store, for livebackup.Serve and for looking at its status.
// Writing to it by other ways than this package destroys the database.
func (db *DB) Store() *mvcc.Store { return db.store }

// MaxKeySize is the size of the longest key, or bucket name, in bytes: a quarter
// of the block size, less 64.
func (db *DB) MaxKeySize() int { return maxKeySize(db.payload) }

// Begin begins a transaction, which the caller must end. A write transaction
// waits for the one before it. Prefer Update and View, which cannot forget.
func (db *DB) Begin(writable bool) (*Tx, error) {
	return db.begin(writable, nil)
}

// BeginSnapshot is Begin(false) for a reader that takes long, a report say: with a
// name, by which operators find it in the status and can end it, and an age at which
// it is broken. Every read of it returns mvcc.ErrBroken from then on.
func (db *DB) BeginSnapshot(o mvcc.SnapshotOptions) (*Tx, error) { return db.begin(false, &o) }

// begin is Begin; o, if not nil, is for a reader.
func (db *DB) begin(writable bool, o *mvcc.SnapshotOptions) (*Tx, error) {
	tx := new(Tx)
	if err := db.beginIn(tx, writable, o); err != nil {
		return nil, err
	}
	return tx, nil
}

func (db *DB) beginIn(tx *Tx, writable bool, o *mvcc.SnapshotOptions) (err error) {
	if db.closed.Load() {
		return ErrDatabaseClosed
	}
	tx.db = db
	tx.tree.payload = db.payload
	var root mvcc.Root
	if writable {
		if tx.tree.write, err = db.store.BeginWrite(); err != nil {
			return db.beginError(err)
		}
		root = tx.tree.write.Root()
		tx.base = tx.tree.write.Base()
		tx.tree.w = db.w
		tx.tree.w.counts = Counts{}
	} else {
		var named mvcc.SnapshotOptions
		if o != nil {
			named = *o
		}
		if err = db.store.BeginReadIn(&tx.read, named); err != nil {
			return db.beginError(err)
		}
		tx.tree.read = &tx.read
		root = tx.tree.read.Root()
		tx.base = tx.tree.read.LSN()
	}
	if tx.tree.rootFields, err = decodeRoot(&root); err != nil {
		return withCleanup(err, tx.rollback())
	}
	tx.top.init(tx, 0, nil)
	return nil
}

func (db *DB) beginError(err error) error {
	if errors.Is(err, mvcc.ErrClosed) {
		return ErrDatabaseClosed
	}
	return fmt.Errorf("begin: %w", err)
}

// View calls fn with a read transaction, which ends when fn returns.
func (db *DB) View(fn func(*Tx) error) error {
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	tx.managed = true
	defer tx.rollback() // also if fn panics
	tx.tree.top = db.top(tx)
	return fn(tx)
}

// Update calls fn with a write transaction and commits it when fn returns nil.
// If fn returns an error it is rolled back, and that error is returned; if fn
// panics it is rolled back and the panic goes on. When Update returns nil the
// changes are durable.
func (db *DB) Update(fn func(*Tx) error) error {
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	tx.managed = true
	defer func() {
		if !tx.done { // fn did not return
			_ = tx.rollback() // the panic matters more
		}
	}()
	if err := fn(tx); err != nil {
		return withCleanup(err, tx.rollback())
	}
	tx.managed = false
	return tx.Commit()
}

// Mark gives the newest state a name, to restore to later, and returns its LSN
// when it is durable. Names are 1 to 255 bytes of UTF-8 and need not be unique.
func (db *DB) Mark(name string) (block.LSN, error) {
	if db.closed.Load() {
		return 0, ErrDatabaseClosed
	}
	lsn, err := db.store.Mark(name)
	if errors.Is(err, mvcc.ErrClosed) {
		return 0, ErrDatabaseClosed
	}
	return lsn, err
}

// withCleanup is err, as it is unless cleaning up failed too.
func withCleanup(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return errors.Join(err, cleanup)
}

// Check reads every block and proves the database, as of now, while others go on
// reading and writing. Problems are returned as a *CheckError.
func (db *DB) Check(ctx context.Context) error {
	if db.closed.Load() {
		return ErrDatabaseClosed
	}
	result, err := db.store.Check(ctx, nil)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if len(result.Problems) > 0 {
		return &CheckError{LSN: result.LSN, Problems: result.Problems}
	}
	return nil
}

// CheckError says what Check found. It is block.ErrCorrupt.
type CheckError struct {
	LSN      block.LSN // of the state that was checked
	Problems []string
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("check of LSN %v: %d problems: %s", e.LSN, len(e.Problems), strings.Join(e.Problems, "; "))
}

// Unwrap yields block.ErrCorrupt.
func (e *CheckError) Unwrap() error { return block.ErrCorrupt }
