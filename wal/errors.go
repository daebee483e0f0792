package wal

import "errors"

// Errors of opening. Damage is always a *[block.CorruptError]; these say, by
// errors.Is, which kind of refusal it is.
var (
	// ErrVersion: the segment was written by a newer release.
	ErrVersion = errors.New("log format version is not known")
	// ErrForeign: the segment belongs to another database or timeline (B18).
	ErrForeign = errors.New("segment of another database or timeline")
	// ErrEndsEarly: the proven end is below an LSN that was once declared
	// durable (R6). The owner may offer to fork a timeline there.
	ErrEndsEarly = errors.New("log ends below an LSN that was declared durable")
	// ErrInDoubt: the log ends with commits of which nothing says that they were
	// synced. Open makes them durable; OpenReadOnly cannot (L7).
	ErrInDoubt = errors.New("not known to be durable")
)

// Errors of reserving. Nothing is poisoned; the same call may succeed later.
var (
	// ErrFull: the log would pass Options.LimitBytes. Checkpoint, Release, try
	// again.
	ErrFull = errors.New("log limit is reached")
	// ErrNoSpace: the file system has no room for another segment.
	ErrNoSpace = errors.New("no space for a log segment")
)

// Errors of appending and syncing.
var (
	// ErrFailed: a write or sync of the log failed; the error wraps the first
	// cause. It stays until the log is opened again (L8).
	ErrFailed = errors.New("log has failed")
	// ErrUnknownOutcome: the log failed while this commit was on its way; only
	// the next opening can tell whether it is there.
	ErrUnknownOutcome = errors.New("outcome of the commit is unknown")
	// ErrReadOnly: the log was opened to be read only.
	ErrReadOnly = errors.New("log is open read-only")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
	// ErrOrder: a call out of turn (an LSN that is not the next one, a sync of
	// what was never appended, a release of what is not durable): an error in
	// the caller, nothing was done.
	ErrOrder = errors.New("call out of order")
)

// ErrReleased: the log no longer reaches back to the LSN that a reader asked
// for. Keep a [Holder] while reading.
var ErrReleased = errors.New("log of this LSN was released")
