package mvcc

import (
	"fmt"
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// anchor is the superblock in force. Guarded by mu; written by the cleaner, by
// Open and by Close, one at a time.
type anchor struct {
	mu    sync.Mutex
	now   superblock
	slot  int       // the copy that holds it
	floor block.LSN // the map's floor from the next checkpoint on, if higher (R16)
}

func (s *Store) sequence() uint64 {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return s.anchor.now.sequence
}

// redoStart is where redo begins by the checkpoint record in force.
func (s *Store) redoStart() block.LSN {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return s.anchor.now.redo
}

// recordCheckpoint makes it durable that redo starts at redo: every commit
// below is in place and synced. Then the log below may go.
func (s *Store) recordCheckpoint(redo block.LSN) error {
	s.anchor.mu.Lock()
	next := s.anchor.now
	slot := 1 - s.anchor.slot
	floor := s.anchor.floor
	s.anchor.mu.Unlock()
	if redo == next.redo && s.log.Durable() == next.durable && floor <= next.mapFloor {
		return nil
	}
	next.mapFloor = max(next.mapFloor, floor)
	next.sequence++
	next.redo = redo
	next.durable = s.log.Durable()
	next.durableTime = s.lastCommitTime()
	next.keep = s.followedFrom(redo)
	if err := s.writeSuperblock(&next, slot); err != nil {
		return err
	}
	s.anchor.mu.Lock()
	s.anchor.now, s.anchor.slot = next, slot
	s.anchor.mu.Unlock()
	if err := s.log.Release(redo); err != nil {
		return fmt.Errorf("release log below %v: %w", redo, err)
	}
	return nil
}

func (s *Store) writeSuperblock(sb *superblock, slot int) error {
	if _, err := s.data.file.WriteAt(sb.encode(), int64(slot)*superblockStride); err != nil {
		return fmt.Errorf("write superblock of %s: %w", s.data.path, err)
	}
	if err := s.data.file.Sync(); err != nil {
		return fmt.Errorf("sync superblock of %s: %w", s.data.path, err)
	}
	return nil
}
