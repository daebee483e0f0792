package vfs

import (
	"io"
	"io/fs"
)

// FS is a file system. Errors are *fs.PathError (or *os.LinkError) that match
// fs.ErrExist, fs.ErrNotExist and the like. Safe for concurrent use.
type FS interface {
	// OpenFile opens name with flags of package os (O_RDONLY, O_RDWR,
	// O_CREATE, O_EXCL, O_TRUNC). The mode of a created file is exactly perm,
	// whatever the umask says.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// OpenTemp opens a new 0600 file in dir that has no name, or loses it
	// before OpenTemp returns where the system can do that: it is gone when it
	// is closed or the process dies.
	OpenTemp(dir string) (File, error)
	// Mkdir makes a directory whose mode is exactly perm.
	Mkdir(name string, perm fs.FileMode) error
	Remove(name string) error
	// Rename replaces newname if it exists.
	Rename(oldname, newname string) error
	// Link gives a file a second name and fails with fs.ErrExist if that name
	// is taken: the exclusive publish.
	Link(oldname, newname string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Lstat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// FreeBytes is the space in bytes that an unprivileged process may still
	// fill on the file system of dir.
	FreeBytes(dir string) (int64, error)
}

// File is an open file. ReadAt and WriteAt are safe for concurrent use on
// ranges that do not overlap.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate reserves space for n bytes from off on and extends the file's
	// size to off+n if it is smaller. The bytes read as zeros.
	Allocate(off, n int64) error
	// PunchHole gives the space of a range back; it then reads as zeros and
	// the size stays. errors.ErrUnsupported where the system cannot.
	PunchHole(off, n int64) error
	// Sync makes data and size durable.
	Sync() error
	// Lock takes an exclusive lock on the file without waiting; ErrLocked if
	// someone has it. It ends when the file is closed.
	Lock() error
	// DropCache asks the system to forget its cached copy of a range. Only
	// advice: it has no error.
	DropCache(off, n int64)
	// NoReadAhead asks the system to read, for this File, what is asked for
	// and nothing ahead of it. Only advice: it has no error.
	NoReadAhead()
	// WillRead asks the system to begin with reading a range, so that what is asked for
	// in many places is fetched at once and not one by one. Only advice: it has no error.
	WillRead(off, n int64)
	// WriteOut asks the system to begin with writing what was written to a range, so
	// that Sync finds less to do. Only advice: it has no error.
	WriteOut(off, n int64)
}
