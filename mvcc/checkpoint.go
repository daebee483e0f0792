package mvcc

import (
	"context"
	"fmt"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// anchor is the superblock in force, guarded by mu. Who writes another one holds
// writing from reading the one in force to making the new one that: the cleaner
// and Close for a checkpoint record, RememberHead. A quiet store holds it so that
// nobody writes. Open and startTimeline have the store for themselves. Nothing
// else is locked with writing held but mu, the log, and the set of snapshots.
type anchor struct {
	writing turn

	mu    sync.Mutex
	now   superblock
	slot  int       // the copy that holds it
	floor block.LSN // the map's floor from the next checkpoint on, if higher (R16)
}

// checkpoint is the number of the checkpoint in force, by which second copies
// count.
func (s *Store) checkpoint() uint64 {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return s.anchor.now.checkpoint()
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
	s.anchor.writing.Lock()
	defer s.anchor.writing.Unlock()
	next, slot := s.nextSuperblock()
	s.anchor.mu.Lock()
	next.mapFloor = max(next.mapFloor, s.anchor.floor)
	higher := next.mapFloor > s.anchor.now.mapFloor
	s.anchor.mu.Unlock()
	if redo == next.redo && s.log.Durable() == next.durable && next.amends < amendsMax/2 && !higher && !s.changesUnsaved() {
		return nil
	}
	next.amends = 0
	next.redo = redo
	next.durable = s.log.Durable()
	next.durableTime = s.lastCommitTime()
	next.keep = s.followedFrom(redo)
	if err := s.installSuperblock(next, slot); err != nil {
		return err
	}
	if err := s.log.Release(redo); err != nil {
		return fmt.Errorf("release log below %v: %w", redo, err)
	}
	return nil
}

// nextSuperblock is what will follow the one in force if nothing else is changed,
// and the copy that it will be. The caller holds anchor.writing.
func (s *Store) nextSuperblock() (next superblock, slot int) {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	next = s.anchor.now
	next.sequence++
	return next, 1 - s.anchor.slot
}

// amendsMax is how many superblocks may follow each other without a checkpoint.
const amendsMax = 200

// amendSuperblock changes what the superblock in force says besides the
// checkpoint. A round may be under way, with in-place writes that only second
// copies protect: they count by the checkpoint's number, which stays (R8).
func (s *Store) amendSuperblock(ctx context.Context, change func(*superblock)) error {
	for {
		round := s.cleaner.rounds()
		if err := s.anchor.writing.lock(ctx); err != nil {
			return err
		}
		if s.anchor.now.amends < amendsMax {
			break
		}
		s.anchor.writing.Unlock()
		if err := s.cleaner.awaitRoundFor(ctx, round); err != nil {
			return err
		}
	}
	defer s.anchor.writing.Unlock()
	if err := s.state.failure(); err != nil {
		return err
	}
	next, slot := s.nextSuperblock()
	next.amends++
	change(&next)
	if err := s.installSuperblock(next, slot); err != nil {
		return s.fail(err)
	}
	return nil
}

// installSuperblock makes a superblock durable and the one in force.
func (s *Store) installSuperblock(next superblock, slot int) error {
	if err := writeSuperblockBytes(s.data.file, s.withChanges(&next), slot, s.syncData); err != nil {
		return err
	}
	s.anchor.mu.Lock()
	s.anchor.now, s.anchor.slot = next, slot
	s.anchor.mu.Unlock()
	return nil
}

func (s *Store) writeSuperblock(sb *superblock, slot int) error {
	return writeSuperblock(s.data.file, sb, slot)
}

// writeSuperblock makes one copy durable, and leaves what is behind it.
func writeSuperblock(file vfs.File, sb *superblock, slot int) error {
	return writeSuperblockBytes(file, sb.encode(), slot, file.Sync)
}

func writeSuperblockBytes(file vfs.File, b []byte, slot int, settle func() error) error {
	if _, err := file.WriteAt(b, int64(slot)*superblockStride); err != nil {
		return fmt.Errorf("write superblock of %s: %w", file.Name(), err)
	}
	if err := settle(); err != nil {
		return fmt.Errorf("sync superblock of %s: %w", file.Name(), err)
	}
	return nil
}
