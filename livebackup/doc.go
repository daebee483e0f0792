// Package livebackup makes full and incremental backups of a database while it is
// written, proves them, reads them in place, and restores them. It works on blocks,
// never on keys.
//
// # The types
//
// A [Source] is a live database: a store that this process has open
// ([NewSource]), or one that another process holds open and serves ([Serve],
// [Dial]). A [Repository] keeps the backups of one database in a directory.
// [Backup], [Archive], [Verify], [Restore], [Repair], [List], [LogSpaces] and [Sweep] work on
// these. An [Image] is a backup that is open to be read block by block.
//
// # How a backup is made, and what is durable when
//
//	sweep      what dead runs left
//	open       a snapshot at LSN S, for an incremental with its base; then the id
//	           is claimed (a locked file)
//	pull       blocks in the order that the store chooses; each is proven as it
//	           comes: trailer, LSN <= S, not twice. From here on its original
//	           is gone, so a loss later ends the backup (R10)
//	pack       groups of blocks are compressed, by one or two goroutines
//	write      into bounded objects; each is synced, then linked to its name,
//	           then the directory is synced
//	audit      an incremental only: a sample of what it leaves out is compared
//	           with the base
//	publish    the manifest, last, in the same way: now the backup is one (L12)
//	unclaim
//
// A session whose originals outgrow what the database grants falls forward (R12): the
// run goes on with blocks as they are, and with the redo behind F, and is exact at a
// later commit (runforward.go). Nobody who reads the backup need know.
//
// A run that is cut off leaves a record of what is durable of it, and the next one goes
// on with that: as of a snapshot of its own (rebase.go).
//
// Memory is a few groups, whatever the database's size; see Result.BufferBytes.
// Writing, waiting for the sink and pacing happen while nothing of the store is
// held but the snapshot. A run that fails removes the manifest first, and its
// objects only when that is durable; what a killed run leaves is claimed by
// nobody who lives, and no list shows it.
//
// # Chains
//
// An incremental holds the blocks whose LSN is above its base's. Its base may be any
// sound backup of the same history, full or incremental: so backups form trees, and
// the path from one to its full backup is its chain. The manifest names the base by id
// and by digest, which stands for the whole chain. There are no marks for blocks that
// were freed: the newest bitmaps say what there is, and what they do not name is not
// there, whoever holds an image of it. A list shows an incremental as damaged when one
// of those that it needs is.
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
// block that these name as in use, once, and no other. A chain is replayed from the
// newest member on, so that each block is written once, and what nobody wants is
// read and hashed, not expanded. Nothing a repository says is trusted: sizes
// are capped before memory is taken, names are made from numbers.
//
// A restore that is killed or cancelled goes on when it is started again: resume.go
// says how. An image in place proves what it reads, section by section, group by
// group, and block by block, but no whole object.
//
// [Repair] puts damaged blocks of a database back, block by block, from backups that are
// open in place and the log behind them; the database proves and writes them.
//
// # The archive of the log
//
//	attach     sweep; make durable what is there; is this the database's
//	           repository, history and present timeline (R18)? claim
//	follow     records of durable commits (R6), held back in the log until they are
//	           here (R14); compressed as they come
//	cut        some time after the oldest commit in hand, or at a size; whole
//	           commits only (R15)
//	remember   the store makes the head durable that the repository is to have
//	publish    the object, as those of backups are; its name is its LSN range
//	read back  uncached, whole; only then the log may go
//
// [Archive] does this until it is told to end; killed, it goes on behind the
// newest object. It merges small objects into bigger ones as it goes, and so does a
// prune: merge.go says how no moment is without a commit. Coverage, log spaces and holes are derived from names: absence is the
// record of a hole, so no record can contradict what is there. A log object
// proves itself (logformat.go); log is read along a history, a parent's up to
// the fork, and what is damaged or missing is said with the first commit that is
// lost.
//
// # What is kept, and whose it is
//
// A repository keeps the backups of one database, and knows its timelines: the one
// that came last is the present, and only it may push. What it left behind when it
// forked from an older state is disabled, and neither counts nor goes by itself
// (timeline.go). [PlanPrune] says what a [RetentionPolicy] keeps, and why; [Prune]
// removes the rest, in two phases, so that a listed backup is whole whenever the power
// goes. Whoever reads a backup, or makes one that adds to it, holds a lease, which a
// prune respects (lease.go). [Delete] removes one backup by its name.
//
// # The admin socket
//
// [Serve] listens on admin.sock in the database's directory. protocol.go has
// the protocol, serveconn.go the server's side of a connection. Data is pulled:
// a client that does not ask, or does not read, costs the store its snapshot
// and one batch of memory, no lock; one that follows the log, what log it holds.
// The snapshot ends with the connection, or
// when the client is silent for longer than its lease; so do a log that is followed
// and a quiet. Both sides ask the
// system who the other one is, on Linux, macOS and FreeBSD; elsewhere the
// access rights of directory and socket stand alone.
//
// # Caveats
//
// A repository needs a file system with hard links and with locks that end with
// the process; on a network file system all processes must be on one host.
// A repository that is made with age recipients is encrypted (crypt.go); without, it
// is not. A hostile hand that can write to the repository
// can replace a backup by another sound one of the same database: digests
// prove what the manifest says, and nobody signs the manifest yet. Who restores from
// a repository that he cannot write to, or that is full, has no lease there.
package livebackup
