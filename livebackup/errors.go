package livebackup

import (
	"errors"

	"github.com/spillwaydb/spillway/block"
)

// Damage, in a repository or in what a source hands out, is always a
// [*block.CorruptError] and matches [block.ErrCorrupt].

// Errors of opening and reading a repository.
var (
	// ErrRepositoryNotFound: there is no directory at the path given.
	ErrRepositoryNotFound = errors.New("repository not found")
	// ErrNotRepository: the directory is not empty and has no repository
	// header, or the header is something else.
	ErrNotRepository = errors.New("not a backup repository")
	// ErrVersion: a newer Spillway wrote this. Use that one to read it.
	ErrVersion = errors.New("unsupported format version")
	// ErrForeignDatabase: the repository keeps the backups of another
	// database. Each database has a repository of its own.
	ErrForeignDatabase = errors.New("repository belongs to another database")
	// ErrBackupNotFound: the repository lists no such backup (or none at all).
	ErrBackupNotFound = errors.New("backup not found")
	// ErrBackupDamaged: the newest backup is damaged and none was named. An
	// older one is never taken unasked: name it.
	ErrBackupDamaged = errors.New("newest backup is damaged")
)

// Errors of backups that need others.
var (
	// ErrChain: an incremental's base is missing, damaged, or not the one that it
	// was made on. It comes as damage, with [block.ErrCorrupt].
	ErrChain = errors.New("chain of backups is broken")
	// ErrNoBase: an incremental was asked for, and there is no backup that it could
	// add to. The reason is in the text; a full backup needs none.
	ErrNoBase = errors.New("no base for an incremental backup")
	// ErrAuditMismatch: a block that did not change since the base, by what the
	// database says, is another one in the base. The database, its changed-block map
	// or the base is wrong. A full backup does not depend on either.
	ErrAuditMismatch = errors.New("audit found a difference between the database and the base")
)

// Errors of making a backup.
var (
	// ErrOptions: an option has a value that makes no sense.
	ErrOptions = errors.New("invalid options")
	// ErrRepositoryWrite: an object could not be written, made durable or
	// published. The repository is as it was; the cause is wrapped.
	ErrRepositoryWrite = errors.New("cannot write to repository")
	// ErrRepositoryFull: like ErrRepositoryWrite, which it comes with, because
	// no space or quota is left.
	ErrRepositoryFull = errors.New("repository is full")
	// ErrRepositoryAhead: the repository has a later state of this timeline
	// than the database itself. The database was rolled back or is a copy (R18).
	ErrRepositoryAhead = errors.New("repository is ahead of the database")
	// ErrObjectExists: an object of that name is there. Objects never change.
	ErrObjectExists = errors.New("object exists")
	// ErrClaimed: somebody who lives holds the claim.
	ErrClaimed = errors.New("claimed by a running backup")
)

// Errors of the archive of the log.
var (
	// ErrArchiving: another archive of this timeline into this repository is at work.
	ErrArchiving = errors.New("the log is being archived by another process")
	// ErrLogOverlap: the repository has archived log of commits that are about to
	// be archived. Somebody else archives this timeline, perhaps from a copy.
	ErrLogOverlap = errors.New("archived log overlaps")
	// ErrLogForeign: an object of archived log is of another database or timeline
	// than its place says.
	ErrLogForeign = errors.New("archived log belongs to another database or timeline")
	// ErrLogGap: archived log is missing. States behind the gap need a backup that
	// lies behind it.
	ErrLogGap = errors.New("archived log has a gap")
	// ErrMarkNotFound: no archived commit has that name.
	ErrMarkNotFound = errors.New("mark not found")
	// ErrNotArchived: the archive has no commit at or before that moment.
	ErrNotArchived = errors.New("not in the archived log")
)

// Errors of a restore. None of them leaves anything at the target.
var (
	// ErrTargetNotEmpty: the target exists and is not an empty directory.
	ErrTargetNotEmpty = errors.New("restore target is not empty")
	// ErrTargetIsDatabase: the target is a database, or lies inside one.
	ErrTargetIsDatabase = errors.New("restore target is a database or lies inside one")
	// ErrTargetIsRepository: the target is a repository, or lies inside one.
	ErrTargetIsRepository = errors.New("restore target is a repository or lies inside one")
	// ErrTargetMountPoint: the target is where another file system is mounted.
	// What is built beside it cannot be renamed to it: name a directory in it.
	ErrTargetMountPoint = errors.New("restore target is a mount point: restore to a directory inside it")
	// ErrTargetFull: the file system of the target has too little space.
	ErrTargetFull = errors.New("too little space for the restore")
	// ErrRestoreRunning: another restore to the same target is at work.
	ErrRestoreRunning = errors.New("another restore to this target is running")
)

// Errors of the admin socket.
var (
	// ErrNotServed: nobody answers on the database's admin socket. If a process
	// has the database open, it must call [Serve]; if none has, open the
	// database directly.
	ErrNotServed = errors.New("database is not served: " +
		"no process has it open, or the one that has it open does not call livebackup.Serve")
	// ErrAlreadyServed: somebody answers on the admin socket already.
	ErrAlreadyServed = errors.New("database is served already")
	// ErrPeerNotAllowed: the process at the other end of the socket runs as a
	// user that has no business with this database.
	ErrPeerNotAllowed = errors.New("peer is not allowed")
	// ErrProtocol: the other end said something that is not in the protocol.
	ErrProtocol = errors.New("protocol violation")
	// ErrLeaseExpired: the client was silent for longer than its lease, so its
	// snapshot was closed.
	ErrLeaseExpired = errors.New("lease expired")
	// ErrDisconnected: the connection to the serving process was lost.
	ErrDisconnected = errors.New("connection to the database was lost")
	// ErrServerClosed: the server was closed, most likely with its database.
	ErrServerClosed = errors.New("server closed")
	// ErrBusy: the server has as many connections as it may have.
	ErrBusy = errors.New("too many connections")
	// ErrNoQuiet: the database did not come to rest in the time that was given: a
	// write transaction was open all the while.
	ErrNoQuiet = errors.New("database did not come to rest in time")
	// ErrQuietOver: the quiet ended before it was released: its time ran out.
	// Writers go on.
	ErrQuietOver = errors.New("time of the quiet ran out")
	// ErrSessionClosed: the session was closed by its owner.
	ErrSessionClosed = errors.New("session is closed")
)

// damaged says that object name is not what was written. off is -1 where no
// single place is to blame.
func damaged(name string, off int64, reason string, cause error) error {
	return &block.CorruptError{Path: name, Offset: off, Block: block.NoBlock, Reason: reason, Cause: cause}
}
