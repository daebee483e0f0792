// Command blocksize measures what the size of blocks does to a database: it is
// how docs/block-size.md was made, and how to make it again.
//
//	go run ./bench/blocksize > result.txt
//
// Each size gets a new database of its own, in turn up and down (4, 8, ..., 64,
// 64, ..., 4 KiB), so that a machine that gets slower is fair to all; the table
// shows the mean of both. What is measured, in this order:
//
//	load      records in random order, many in a transaction, as fast as possible
//	update    one random record in a transaction, durable each, four writers
//	read      random records, from a cache that is smaller than the database
//	scan      all records in order, borrowed
//	backup    a full backup, uncompressed
//
// Bytes written are what the store asks the file system to write (log, second
// copies, data file), divided by the bytes of keys and values. The prewriting of
// the log is left out. Opening and closing the database, which writes what is
// left, belong to each phase's bytes, not to its time.
package main
