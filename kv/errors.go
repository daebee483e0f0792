package kv

import "errors"

// Errors of opening and of the database as a whole.
var (
	// ErrDatabaseClosed is returned by every call of a DB that comes after
	// DB.Close. A read transaction that was open then and did not end in time is
	// broken: its reads return mvcc.ErrBroken.
	ErrDatabaseClosed = errors.New("database is closed")

	// ErrForeignRoot means that the store is used by another front door: what
	// it keeps in its blocks is not a tree of this package.
	ErrForeignRoot = errors.New("store does not hold a key-value tree")

	// ErrVersion means that the tree was written by a newer, unknown version of
	// this package.
	ErrVersion = errors.New("unknown version of the key-value tree")

	// ErrOptions means that an option has a value that it may not have.
	ErrOptions = errors.New("invalid option")
)

// Errors of transactions.
var (
	// ErrTxClosed is returned when a transaction, or a bucket, cursor or reader
	// of it, is used after Commit or Rollback.
	ErrTxClosed = errors.New("transaction is closed")

	// ErrTxNotWritable is returned when something is changed in a read
	// transaction.
	ErrTxNotWritable = errors.New("transaction is not writable")

	// ErrTxManaged is returned by Commit and Rollback inside of Update, View and
	// Batch, which end their transaction themselves.
	ErrTxManaged = errors.New("transaction is ended by the function that began it")

	// ErrTxFailed is returned by every read and change, and by Commit, after a
	// change could not be finished (I/O, damage, no space): the tree of the
	// transaction is in pieces and only Rollback is left. It wraps the first cause.
	ErrTxFailed = errors.New("transaction has failed and can only be rolled back")
)

// Errors of buckets and entries.
var (
	// ErrBucketNotFound is returned when a bucket does not exist, or exists no
	// longer.
	ErrBucketNotFound = errors.New("bucket not found")

	// ErrBucketExists is returned by CreateBucket when the bucket exists.
	ErrBucketExists = errors.New("bucket already exists")

	// ErrBucketNameRequired is returned for a bucket without a name.
	ErrBucketNameRequired = errors.New("bucket name required")

	// ErrIncompatibleValue is returned when a bucket is used as a key or a key
	// as a bucket.
	ErrIncompatibleValue = errors.New("incompatible value")

	// ErrKeyRequired is returned for a key of no bytes.
	ErrKeyRequired = errors.New("key required")

	// ErrKeyTooLarge is returned for a key or bucket name longer than
	// DB.MaxKeySize.
	ErrKeyTooLarge = errors.New("key too large")

	// ErrValueTooLarge is returned for a value longer than MaxValueSize.
	ErrValueTooLarge = errors.New("value too large")

	// ErrCursorUnset is returned by Cursor.Delete when the cursor stands on no
	// entry.
	ErrCursorUnset = errors.New("cursor stands on no entry")

	// ErrValueChanged is returned by a ValueReader whose value was replaced or
	// deleted by its own transaction.
	ErrValueChanged = errors.New("value was changed while it was being read")
)

// ErrStop is no error: a function given to Bucket.Scan returns it to end the
// scan, and Scan then returns nil.
var ErrStop = errors.New("stop scan")
