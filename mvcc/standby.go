package mvcc

import (
	"errors"

	"github.com/spillwaydb/spillway/block"
)

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
