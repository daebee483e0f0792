package mvcc

import (
	"errors"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Standby reports whether the store only rolls forward (R20).
func (s *Store) Standby() bool { return false }

// Apply rolls a standby forward by one record of its primary's log. Records come
// in order; the commit is published with its last record, under the primary's
// LSN and time, and logged in the standby's own log (R20). After an error the store
// is closed and opened again, and goes on behind its newest commit.
func (s *Store) Apply(r LogRecord) error { return errors.ErrUnsupported }

// Promote makes the standby in dir, which nobody has open, a database that can be
// written: on a new timeline, whose LSNs go on (L14).
func Promote(dir string, o Options) error { return errors.ErrUnsupported }

// Fork puts the database in dir, which nobody has open, on a new timeline (R18).
func Fork(dir string, o Options) error { return errors.ErrUnsupported }

// BuildOptions of a Builder.
type BuildOptions struct {
	FS      vfs.FS
	Standby bool // keep the backup's timeline; the database is a standby
	Resume  bool // dir holds what an earlier Builder of the same backup wrote
}

// Head names a state in the history of a database (R18).
type Head struct {
	LSN block.LSN
	Sum uint32 // of the log record that ends LSN
}

// CheckHead proves that the newest state that repository repo has of this
// timeline lies in our history: in the log, or among the pairs that we remember;
// ErrHistory.
func (s *Store) CheckHead(repo [16]byte, h Head) error { return errors.ErrUnsupported }

// RememberHead makes it durable that repo is about to have the state h. The pair
// before it is kept as well.
func (s *Store) RememberHead(repo [16]byte, h Head) error { return errors.ErrUnsupported }

// Quiet is a store at rest: all that was committed is in place and synced, nothing writes.
type Quiet struct{ LSN block.LSN }

// Quiesce waits for the open write transaction, brings the files to rest and
// keeps writers waiting until Release. Readers go on.
func (s *Store) Quiesce() (*Quiet, error) { return nil, errors.ErrUnsupported }

// Release lets writers go on. The second call does nothing.
func (q *Quiet) Release() {}

// Image is a state of a database that blocks can be read of, a backup for
// example. Safe for concurrent use.
type Image interface {
	// Info says what the image is of.
	Info() BackupInfo
	// ReadBlock fills dst with the whole image of a block; ErrNotInUse.
	ReadBlock(id block.ID, dst []byte) error
}

// OpenImage opens an image read-only, as if it were a database. It is the caller's to
// close, after the store.
func OpenImage(img Image, o Options) (*Store, error) { return nil, errors.ErrUnsupported }
