// Package block is the vocabulary every layer of Spillway shares: the number of
// a block, the LSN of a commit, the identity of a database, the trailer that a
// block carries, and the one error that means "these bytes are not what was
// written".
//
// A block is a fixed-size unit of the store (4 KiB to 64 KiB, chosen when the
// database is created). Its payload starts at offset 0, so that a foreign page
// format fits unchanged; its metadata is a [Trailer] in the last [TrailerSize]
// bytes. format.go is the only description of those bytes.
//
// A trailer says which block this is, which commit wrote it and of which kind
// it is; its checksum is seeded with the database's id. A block of another
// database, a block written to the wrong place and a torn block are therefore
// all found by [Verify]. A stale block (an older version whose rewrite was
// lost) carries a good checksum: only who knows the expected LSN can tell.
//
// The package imports nothing of ours and does no I/O.
package block
