// Package livebackup makes full backups of a database while it is written,
// proves them, and restores them. It works on blocks, never on keys.
//
// # The types
//
// A [Source] is a live database: a store that this process has open
// ([NewSource]), or one that another process holds open and serves ([Serve],
// [Dial]). A [Repository] keeps the backups of one database in a directory.
// [Backup], [Verify], [Restore], [List] and [Sweep] work on these.
//
// # How a backup is made, and what is durable when
//
//	sweep      what dead runs left
//	open       a snapshot at LSN S; then the id is claimed (a locked file)
//	pull       blocks in the order that the store chooses; each is proven as it
//	           comes: trailer, LSN <= S, not twice. From here on its original
//	           is gone, so a loss later ends the backup (R10)
//	pack       groups of blocks are compressed, by one or two goroutines
//	write      into bounded objects; each is synced, then linked to its name,
//	           then the directory is synced
//	publish    the manifest, last, in the same way: now the backup is one (L12)
//	unclaim
//
// Memory is a few groups, whatever the database's size; see Result.BufferBytes.
// Writing, waiting for the sink and pacing happen while nothing of the store is
// held but the snapshot. A run that fails removes the manifest first, and its
// objects only when that is durable; what a killed run leaves is claimed by
// nobody who lives, and no list shows it.
//
// # How it is read
//
// There is one way to read a backup, the replay: index and blocks from first to
// last, uncached, checking sizes, SHA-256 of objects, CRC of groups, trailers of
// blocks, and that each block comes once. [Restore] gives what comes out to a
// builder beside the target and renames when all is proven and durable.
// [Verify] gives it to a prover and records what it found: a backup is "proven"
// when the newest such record says so. Builder and prover ask the same at the
// end, on every system: are the meta block and the bitmaps there, and is each
// block that these name as in use, once, and no other. Nothing a repository says is trusted: sizes
// are capped before memory is taken, names are made from numbers.
//
// # The admin socket
//
// [Serve] listens on admin.sock in the database's directory. protocol.go has
// the protocol, serveconn.go the server's side of a connection. Data is pulled:
// a client that does not ask, or does not read, costs the store its snapshot
// and one batch of memory, no lock. The snapshot ends with the connection, or
// when the client is silent for longer than its lease. Both sides ask the
// system who the other one is, on Linux, macOS and FreeBSD; elsewhere the
// access rights of directory and socket stand alone.
//
// # Caveats
//
// A repository needs a file system with hard links and with locks that end with
// the process; on a network file system all processes must be on one host.
// Backups are not encrypted. A hostile hand that can write to the repository
// can replace a backup by another sound one of the same database: digests
// prove what the manifest says, and nobody signs the manifest yet. There is no
// retention: objects of backups are never removed.
package livebackup
