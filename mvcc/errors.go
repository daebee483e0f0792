package mvcc

import (
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/snapshot"
)

// Opening.
var (
	// ErrNotDatabase means that the directory holds no database of ours.
	ErrNotDatabase = errors.New("not a Spillway database")
	// ErrVersion matches every [VersionError].
	ErrVersion = errors.New("unknown format version")
	// ErrLocked means that the database is open already, in this process or in
	// another one.
	ErrLocked = errors.New("database is already open")
	// ErrOptions means that an option is out of its range.
	ErrOptions = errors.New("invalid option")
	// ErrNotPrivate refuses to write to a directory in which any user could put another
	// file in the place of one of ours: chmod o-w.
	ErrNotPrivate = errors.New("database directory is not private")
	// ErrBehind means that the log ends before a commit that was declared
	// durable: part of it was lost or replaced (R6).
	ErrBehind = errors.New("log ends before a commit known to be durable")
)

// Working.
var (
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrPoisoned means that a write or sync of the store's own files failed
	// (L8): no commit is taken until the store is opened again. Reads and
	// backups of what is durable go on. Wraps the first cause.
	ErrPoisoned = errors.New("store has failed and must be reopened")
	// ErrTxDone means that the transaction was committed or rolled back.
	ErrTxDone = errors.New("transaction has ended")
	// ErrTxTooLarge means that the transaction's private blocks fit neither in
	// its share of MaxRAM nor in temporary storage, or that knowing where they are
	// takes more than half of MaxRAM.
	ErrTxTooLarge = errors.New("transaction too large for memory and temporary storage")
	// ErrNoSpace means that the disk has no room for the commit. Nothing is
	// lost; the store goes on when there is room again (R7).
	ErrNoSpace = errors.New("no space for the commit")
	// ErrStandby refuses a write transaction: the database is a standby, which
	// only rolls forward (R20). Promote it.
	ErrStandby = errors.New("database is a standby")
	// ErrNotStandby refuses to roll forward, or to promote, what is no standby.
	ErrNotStandby = errors.New("database is not a standby")
	// ErrOrder matches every [OrderError].
	ErrOrder = errors.New("log record out of order")
	// ErrNeedsRecovery refuses to open read-only what was not closed in good order
	// and cannot be redone in memory, or ends with commits that are not known to be
	// durable: open it for writing once (R20).
	ErrNeedsRecovery = errors.New("database needs recovery, which writes")
	// ErrReadOnly refuses a write transaction on what was opened read-only.
	ErrReadOnly = errors.New("database is open read-only")
	// ErrHistory means that a repository's head is not in the history of this
	// database: it is a copy, or was rolled back, or another copy has written (R18).
	ErrHistory = errors.New("not in this database's history")
	// ErrLogGone means that the log no longer reaches back to the commit that was
	// asked for, or was recycled because its limit was reached (R14).
	ErrLogGone = errors.New("log is gone")
	// ErrNotInUse means that a block was asked for that is not allocated.
	ErrNotInUse = errors.New("block is not in use")
)

// What ends snapshots and backups.
var (
	// ErrBroken matches every [BrokenError].
	ErrBroken = snapshot.ErrBroken
	// ErrBase refuses an incremental whose base lies below what the changed-block
	// map knows (R16), or above the newest commit.
	ErrBase = errors.New("no incremental from this base")
	// ErrMapBehind ends an incremental that found a changed block where the changed-block
	// map has none: no base so far can be used any more (R16). Take a full backup.
	ErrMapBehind = errors.New("changed-block map is behind its blocks")
	// ErrTooManyBackups refuses a backup while too many are live.
	ErrTooManyBackups = snapshot.ErrTooManyBackups
)

// BrokenError is what every use of a broken snapshot or backup returns (L10).
type BrokenError = snapshot.BrokenError

// VersionError refuses a file of a format that this code does not know.
type VersionError struct{ Found, Known uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v %d (this program knows %d)", ErrVersion, e.Found, e.Known)
}

// Is matches ErrVersion.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }
