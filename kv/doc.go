// Package kv is the embedded database: ordered, nestable buckets of keys and
// values, in a B+tree over the blocks of package mvcc. Its shape is that of bolt;
// what is different is said below.
//
// # Types
//
// A [DB] is an open database. [DB.View] and [DB.Update] run a function in a
// transaction, a [Tx]; [DB.Batch] lets concurrent calls share one. A transaction
// has top-level buckets. A [Bucket] has entries and nested buckets, gets, puts and
// deletes, and iterates in the order of keys: with range-over-func sequences
// ([Bucket.All], [Bucket.Range], [Bucket.Prefix]), with a [Cursor] that can be
// moved and deletes, or with [Bucket.Scan], the fastest, which lends memory
// instead of copying it. [Bucket.Reader] and [Bucket.PutReader] stream values of
// up to 1 GiB.
//
// # Lifecycle
//
// [Open], then transactions from any goroutine, then [DB.Close]. There is one
// write transaction at a time and any number of read transactions, which wait for
// nobody and for which nobody waits. A read transaction sees the commits up to
// its LSN and no later one (L1). Update returns when its changes are durable (L7),
// and a write transaction that changes nothing, or is rolled back, returns when
// what it saw is (R3). A backup of a running database is taken from [DB.Store],
// by package livebackup.
//
// # What is different from bolt
//
//   - A database is a directory. Open does not wait for its lock.
//   - A hot copy is a backup, by package livebackup: there is no Tx.WriteTo.
//   - NoSync and the like are [mvcc.Durability]; what may be taken of memory and
//     temporary storage, and who is told of events, are options of the store, too.
//   - A reader that takes long has a name: [DB.BeginSnapshot].
//   - Every read returns an error: damage and failed I/O are never "not found".
//     A missing key is a nil value without an error, a missing bucket is
//     ErrBucketNotFound.
//   - ForEach is [Bucket.Scan] or a loop over [Bucket.All]; that of a transaction
//     is a loop over [Tx.Buckets]. Both may change what they walk through.
//   - Keys and values are copies and stay valid for ever, also those of a cursor.
//     Only Scan lends, until its function returns.
//   - A cursor stands on a key. It may be used while its transaction changes the
//     bucket, and after Delete its Next is the entry behind the deleted one.
//   - A bucket costs an entry, not a block: a million small ones are no trouble.
//     Deleting one frees blocks without looking at its entries.
//   - A transaction may be larger than memory.
//   - A change that fails half-way (I/O, damage, no space) closes the transaction
//     for all but Rollback: ErrTxFailed.
//
// # Caveats
//
// Transactions, buckets, cursors and readers belong to one goroutine. Keys have at
// most [DB.MaxKeySize] bytes: 960 with blocks of 4 KiB. A read transaction that
// lives for long makes the store keep originals; a write transaction that waits
// for a user makes all others wait. Do not begin a write transaction inside of
// another: it waits for itself.
//
// # How it is stored
//
// All buckets share one tree, described in format.go; what [DB.Check] proves of it
// is K1 to K8 in check.go. No block stays pinned between two calls.
package kv
