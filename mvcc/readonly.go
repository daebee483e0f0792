package mvcc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/wal"
)

// # Read-only (R20)
//
// A store that is opened read-only writes to no file of the database and makes
// none in its directory; all it leaves is the lock on the data file, while it is
// open. Recovery is the same as ever, but what it would write stays in RAM: blocks
// that redo changes, and torn blocks that a second copy repairs, are heads that
// never get clean, and may take up to three quarters of the frames. A log that
// needs more is refused with ErrNeedsRecovery: open the database for writing once.
//
// So is a log that ends with commits of which nothing in it says that they were synced
// (L7, wal.ErrInDoubt): the last ones of a process that was killed while it wrote, or
// whose last sync failed. The system's cache may show them and the medium not have
// them, whatever a sync says now; only who writes them again knows.
//
// Nothing is replaced, so there are no originals, and no temporary storage
// unless Options.Temp names some. Backups and Check work.

// lockForReading opens and locks the data file of a database that must be there.
func lockForReading(dir string, o *Options) (vfs.File, error) {
	file, err := o.FS.OpenFile(filepath.Join(dir, nameData), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotDatabase, err)
	}
	if err != nil {
		return nil, err
	}
	return file, lockFile(file)
}

// openLogToRead opens the log without writing, or an empty one if all that was
// committed is in the data file.
func (s *Store) openLogToRead() (*wal.Log, error) {
	a := &s.anchor.now
	if s.sealed {
		return wal.Sealed(a.durable), nil
	}
	log, err := wal.OpenReadOnly(s.logOptions(), wal.Start{Redo: a.redo, Durable: a.durable, Keep: a.keep})
	if errors.Is(err, wal.ErrInDoubt) {
		err = fmt.Errorf("%w: %w", ErrNeedsRecovery, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return log, nil
}

// roomForRedo sees to it that one more block may become dirty during recovery.
func (r *recovery) roomForRedo() error {
	s := r.s
	dirty := s.cache.Frames(blockcache.ClassDirty)
	unread := s.unreadSecond()
	switch full := dirty >= s.cache.Room()*3/4; {
	case s.opts.ReadOnly && full:
		return fmt.Errorf("%w: its redo takes more than %d blocks of MaxRAM", ErrNeedsRecovery, dirty)
	case unread != nil && full: // they would be overwritten
		return fmt.Errorf("redo takes more than %d blocks of MaxRAM, and second copies were not read: %w", dirty, unread)
	case s.opts.ReadOnly || unread != nil || dirty <= s.dirtyMax()/2:
		return nil
	}
	return s.cleaner.clean(r.lsn) // also in the middle of a commit
}

// adoptSecond has a block read from its second copy instead of its place.
func (s *Store) adoptSecond(id block.ID, image []byte) error {
	t, reason := block.Verify(image, id, s.data.seed)
	if reason != "" {
		return s.data.corrupt(id, reason)
	}
	d, err := s.cache.NewFrame()
	if err != nil {
		return err
	}
	copy(d, image)
	l := s.cache.Latch(id)
	defer l.Unlock()
	if h := l.Head(id); h != nil { // an older second copy
		l.Remove(h)
		s.cache.Kill(h)
	}
	v := &blockcache.Version{ID: id, LSN: t.LSN, Type: t.Type, Role: blockcache.RoleHead, Dirty: true, Rec: t.LSN}
	s.published().Begin(id, shadow.Version{LSN: t.LSN, Type: t.Type, Image: d})
	l.Insert(v)
	s.cache.Adopt(v, d)
	return nil
}
