package mvcc

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// # Leaving a timeline (L14, R18)
//
// Promote and Fork open the database as its user would, with recovery and all,
// and bring it to rest: every commit is in place and synced, the log holds
// nothing that is needed. Then
//
//  1. a superblock with the new timeline, the old one among its forks, and the
//     flag "the log is to be made anew" is written over the older copy, and synced.
//     Until then the database is what it was; from then on it is the new one.
//  2. the log is removed and made again, empty, for the new timeline, from the
//     durable LSN on, and synced.
//  3. a superblock without the flag follows.
//
// An opening that finds the flag does 2 and 3 first. So a power cut at any point
// leaves the one or the other, and never a log that belongs to neither.
//
// The fork's LSN is up to where the new timeline is known to have what others have of
// the old one: bases and logs at or below it stay usable. A standby has nothing
// but what it was sent, so that is its newest commit. Who forks because a
// repository refused it (a copy, a rolled back machine) may have gone another
// way than the owner of the repository long before: there it is the lowest of
// the heads that the repositories were last seen to share, or where the timeline
// began.

// Promote makes the standby in dir, which nobody has open, a database that can be
// written: on a new timeline, whose LSNs go on (L14). A power cut leaves the
// standby or the new database. ErrNotStandby, or as [Open].
func Promote(dir string, o Options) error {
	err := leaveTimeline(dir, o, func(s *Store) (block.LSN, error) {
		if !s.standby {
			return 0, ErrNotStandby
		}
		return s.newestLSN(), nil
	})
	if err != nil {
		return fmt.Errorf("promote %s: %w", dir, err)
	}
	return nil
}

// ClosePromoted is [Store.Close], and [Promote] in the same go: who has rolled a standby
// forward need not open it again. ErrNotStandby, and then the store stays open, or as
// Close: an error leaves the standby, or the new database.
func (s *Store) ClosePromoted() error {
	if !s.standby {
		return ErrNotStandby
	}
	return s.close(func() error { return s.startTimeline(s.newestLSN()) })
}

// Fork puts the database in dir, which nobody has open, on a new timeline (R18):
// a copy, or one that was rolled back, goes its own way. It shares with the old
// timeline what repositories were seen to have of it, see RememberHead. A power
// cut leaves it on the one or the other. ErrStandby, or as [Open].
func Fork(dir string, o Options) error {
	err := leaveTimeline(dir, o, func(s *Store) (block.LSN, error) {
		if s.standby {
			return 0, ErrStandby
		}
		return s.anchor.now.sharedLSN(), nil
	})
	if err != nil {
		return fmt.Errorf("fork %s: %w", dir, err)
	}
	return nil
}

// leaveTimeline opens the database, asks at which LSN it forks, and leaves it
// closed on a new timeline.
func leaveTimeline(dir string, o Options, at func(*Store) (block.LSN, error)) error {
	if err := o.validate(); err != nil {
		return err
	}
	if o.ReadOnly {
		return ErrReadOnly
	}
	if _, err := o.FS.Lstat(filepath.Join(dir, nameData)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotDatabase, err) // opening would make one
	}
	s, err := open(dir, o)
	if err != nil {
		return err
	}
	lsn, err := at(s)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return s.close(func() error { return s.startTimeline(lsn) })
}

// sharedLSN is up to where the timeline is known to be the same elsewhere.
func (sb *superblock) sharedLSN() block.LSN {
	lowest, any := block.LSN(0), false
	for _, h := range sb.heads {
		if h.repo == [16]byte{} {
			continue
		}
		lsn := h.now.LSN
		if h.was != (Head{}) { // it is not known which of the two the repository has
			lsn = min(lsn, h.was.LSN)
		}
		if !any || lsn < lowest {
			lowest, any = lsn, true
		}
	}
	if !any {
		return sb.forks[0].LSN
	}
	return lowest
}

// startTimeline forks a store at rest, which is about to be let go.
func (s *Store) startTimeline(lsn block.LSN) error {
	if err := s.log.Close(); err != nil {
		return err
	}
	next, slot := s.anchor.now, 1-s.anchor.slot
	if v := s.log.Durable(); next.durable != v || next.redo != v+1 {
		return fmt.Errorf("not at rest: redo begins at %v, LSN %v is durable", next.redo, v)
	}
	next.fork(lsn)
	next.sequence++
	next.amends, next.standby, next.newLog, next.keep = 0, false, true, 0
	_, _, err := renewLog(s.dir, s.opts.FS, s.data.file, next, slot)
	return err
}

// renewLog makes the log that the superblock in force asks for, and a superblock
// that does not ask for it. Who wrote the one in force may have been killed before
// the sync: the old log goes only when it is sure that nobody needs it.
func renewLog(dir string, fsys vfs.FS, file vfs.File, sb superblock, slot int) (superblock, int, error) {
	if err := writeSuperblock(file, &sb, slot); err != nil {
		return sb, slot, err
	}
	if err := makeLog(dir, fsys, sb, sb.durable); err != nil {
		return sb, slot, fmt.Errorf("make log anew: %w", err)
	}
	sb.newLog = false
	sb.sequence++
	slot = 1 - slot
	return sb, slot, writeSuperblock(file, &sb, slot)
}
