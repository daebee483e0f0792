package vfs

import (
	"io/fs"
	"math"
	"os"
	"sync"
)

// osFile is an open file. os.File brings what is easy to get wrong: retries
// after a signal, whole writes, reads that end in io.EOF, and a Close that
// cannot pull the descriptor away from an operation in flight.
type osFile struct {
	f    *os.File
	name string

	mu   sync.Mutex // guards held
	held *heldLock  // nil while this file holds no lock
}

// adopt takes f over, or closes it if it is nothing to keep a database in.
func adopt(f *os.File, name string) (*osFile, error) {
	if err := checkOpened(f); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &osFile{f: f, name: name}, nil
}

func checkOpened(f *os.File) error {
	if err := checkDescriptor(f.Fd()); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return ErrNotRegular
	}
	return nil
}

func (f *osFile) Name() string                             { return f.name }
func (f *osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *osFile) Truncate(size int64) error                { return f.f.Truncate(size) }

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Allocate(off, n int64) error {
	if err := checkRange(off, n); err != nil {
		return f.pathError("allocate", err)
	}
	if n == 0 {
		return nil
	}
	return f.pathError("allocate", allocate(f.f, off, n))
}

func (f *osFile) PunchHole(off, n int64) error {
	if err := checkRange(off, n); err != nil {
		return f.pathError("punch hole", err)
	}
	if n == 0 {
		return nil
	}
	return f.pathError("punch hole", punchHole(f.f, off, n))
}

func (f *osFile) Sync() error { return f.pathError("sync", syncData(f.f)) }

func (f *osFile) DropCache(off, n int64) {
	if checkRange(off, n) == nil && n > 0 {
		dropCache(f.f, off, n)
	}
}

func (f *osFile) NoReadAhead() { noReadAhead(f.f) }

func (f *osFile) WillRead(off, n int64) {
	if checkRange(off, n) == nil && n > 0 {
		willRead(f.f, off, n)
	}
}

func (f *osFile) WriteOut(off, n int64) {
	if checkRange(off, n) == nil && n > 0 {
		writeOut(f.f, off, n)
	}
}

// Lock enters the file in the list of this process first: some file systems
// would grant one process the same lock twice.
func (f *osFile) Lock() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held != nil {
		return f.pathError("lock", ErrLocked)
	}
	held, err := holdLock(f.f)
	if err != nil {
		return f.pathError("lock", err)
	}
	f.held = held
	return nil
}

// Close closes before it leaves the list of this process, so that whoever
// finds the list free finds the system's lock free too. That lock would outlive our
// descriptor while this process starts a program, which has copies of all descriptors
// until it has begun; so it is given up first, for all copies.
func (f *osFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held != nil {
		systemUnlock(f.f)
	}
	err := f.f.Close()
	if f.held != nil {
		f.held.release()
		f.held = nil
	}
	return err
}

// pathError names the file in an error that does not yet.
func (f *osFile) pathError(op string, err error) error {
	switch err.(type) {
	case nil:
		return nil
	case *fs.PathError:
		return err
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// checkRange refuses what no system can do, in the same way on each.
func checkRange(off, n int64) error {
	if off < 0 || n < 0 || off > math.MaxInt64-n {
		return fs.ErrInvalid
	}
	return nil
}

// control runs fn with f's descriptor, which stays open meanwhile.
func control(f *os.File, fn func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := conn.Control(func(fd uintptr) { fnErr = fn(fd) }); err != nil {
		return fs.ErrClosed // the one reason there is; the error itself has no exported name
	}
	return fnErr
}
