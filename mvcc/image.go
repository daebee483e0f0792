package mvcc

import (
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Image is a state of a database that blocks can be read of, a backup for
// example. Safe for concurrent use.
type Image interface {
	// Info says what the image is of.
	Info() BackupInfo
	// ReadBlock fills dst with the whole image of a block; ErrNotInUse.
	ReadBlock(id block.ID, dst []byte) error
}

// OpenImage opens an image read-only, as if it were a database. Of the options
// those of memory, temporary storage and events count. The image is the caller's
// to close, after the store.
func OpenImage(img Image, o Options) (*Store, error) {
	s, err := openImage(img, o)
	if err != nil {
		return nil, fmt.Errorf("open image of LSN %v: %w", img.Info().LSN, err)
	}
	return s, nil
}

func openImage(img Image, o Options) (*Store, error) {
	o.ReadOnly = true
	if err := o.validate(); err != nil {
		return nil, err
	}
	info := img.Info()
	if !block.ValidSize(info.BlockSize) {
		return nil, optionError("block size %d", info.BlockSize)
	}
	sb := superblock{
		blockSize: info.BlockSize, database: info.Database, timeline: info.Timeline, forks: makeForks(info.History...),
		sequence: 1, redo: info.LSN + 1, durable: info.LSN, durableTime: info.Time, mapFloor: info.LSN, created: info.Time,
	}
	s := newStore("", o, sb, 0)
	s.sealed = true
	if err := s.build(imageFile{img, s.geo, info}); err != nil {
		return nil, errors.Join(append([]error{err}, s.undo()...)...)
	}
	return s, nil
}

// imageFile is an image as the data file of a store that is only read.
type imageFile struct {
	img  Image
	geo  geometry
	info BackupInfo
}

// Name is what errors call it.
func (f imageFile) Name() string {
	return fmt.Sprintf("image of database %v at LSN %v", f.info.Database, f.info.LSN)
}

// ReadAt reads whole blocks. It ends at the first one that is not in use.
func (f imageFile) ReadAt(p []byte, off int64) (n int, err error) {
	size := int64(f.geo.size)
	if off%size != 0 || int64(len(p))%size != 0 {
		return 0, fmt.Errorf("read %d bytes at offset %d of %s: no whole blocks", len(p), off, f.Name())
	}
	for n < len(p) {
		id := block.ID(off/size) + block.ID(n/f.geo.size)
		if id >= f.info.HighWater {
			return n, io.EOF
		}
		if err := f.img.ReadBlock(id, p[n:n+f.geo.size]); err != nil {
			return n, err
		}
		n += f.geo.size
	}
	return n, nil
}

// Size is that of a file that ends with the last block in use.
func (f imageFile) Size() (int64, error) { return f.geo.offset(f.info.HighWater), nil }

// Close leaves the image to its owner.
func (f imageFile) Close() error { return nil }

// Lock does nothing: an image does not change.
func (f imageFile) Lock() error { return nil }

// DropCache does nothing.
func (f imageFile) DropCache(int64, int64) {}

// NoReadAhead does nothing.
func (f imageFile) NoReadAhead() {}

// WillRead does nothing.
func (f imageFile) WillRead(int64, int64) {}

// WriteOut does nothing.
func (f imageFile) WriteOut(int64, int64) {}

// WriteAt fails, as everything below.
func (f imageFile) WriteAt([]byte, int64) (int, error) { return 0, ErrReadOnly }

// Truncate fails.
func (f imageFile) Truncate(int64) error { return ErrReadOnly }

// Allocate fails.
func (f imageFile) Allocate(int64, int64) error { return ErrReadOnly }

// PunchHole fails.
func (f imageFile) PunchHole(int64, int64) error { return ErrReadOnly }

// Sync fails.
func (f imageFile) Sync() error { return ErrReadOnly }

var _ vfs.File = imageFile{}
