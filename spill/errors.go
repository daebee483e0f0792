package spill

import (
	"errors"
	"fmt"
)

var (
	// ErrFull means that no directory has room now. It ends when slots are
	// freed, or when a full file system has space again.
	ErrFull = errors.New("temporary storage is full")

	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("temporary storage is closed")

	// ErrMemoryFS is returned by Open for a directory on tmpfs or ramfs: what
	// is written there is RAM (R17).
	ErrMemoryFS = errors.New("temporary directory is in memory")

	// ErrNotPrivate is returned by Open for a directory in which others could
	// replace files.
	ErrNotPrivate = errors.New("temporary directory is not private")
)

// IOError is trouble with one directory other than lack of space. From the
// first one on the directory takes no more writes.
type IOError struct {
	Dir   string // as given in Options
	Op    string // "write", "read", "reserve", "punch" or "truncate"
	Cause error
}

func (e *IOError) Error() string {
	return fmt.Sprintf("temporary storage in %s: %s: %v", e.Dir, e.Op, e.Cause)
}

// Unwrap yields the cause.
func (e *IOError) Unwrap() error { return e.Cause }
