package mvcc

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/wal"
)

// # What repositories are known to have (R18)
//
// A repository's head is the newest state that it has of a timeline: an LSN and
// the checksum of the log record that ends it, which no other history has. Who
// pushes to a repository does, each time, in this order:
//
//  1. CheckHead with the head that the repository has now: it must lie in our
//     log with that checksum, or be one that we remember. A head that is neither
//     was written by someone else on our timeline: a copy of our directory, a
//     machine that was rolled back, a second restore. Then Fork.
//  2. RememberHead with the head that it is about to have. That is durable before
//     it returns, and so before the object that carries the head can be seen.
//  3. publish the object.
//
// A crash between 2 and 3 leaves the repository with the head from before, so
// that one is remembered as well. When CheckHead sees the new one it is enough.
//
// The log is the better witness: as far as it reaches back, a head that it has
// with another checksum is refused, remembered or not. A record's checksum of a
// standby is not its primary's; but a standby writes no history, so there is
// nothing to prove: both calls succeed, and its backups carry no checksum.
//
// The pairs are part of the superblock. Who writes one holds anchor.writing from
// reading the one in force to making the new one that: the cleaner for its
// checkpoint record, RememberHead, and a store that is quiet, so that nobody
// does.

// Head names a state in the history of a database (R18).
type Head struct {
	LSN block.LSN
	Sum uint32 // of the log record that ends LSN
}

// HistoryError refuses a repository's head. It matches ErrHistory, and ErrBehind
// if the head is above what this database has.
type HistoryError struct {
	Head   Head
	Newest block.LSN // durable here
	Reason string
}

func (e *HistoryError) Error() string {
	return fmt.Sprintf("%v: LSN %v with checksum %08x: %s", ErrHistory, e.Head.LSN, e.Head.Sum, e.Reason)
}

// Is matches ErrHistory and ErrBehind.
func (e *HistoryError) Is(target error) bool {
	return target == ErrHistory || target == ErrBehind && e.Head.LSN > e.Newest
}

// CheckHead proves that the newest state that repository repo has of this
// timeline lies in our history: in the log, or among the pairs that we remember.
// *HistoryError if not, ErrClosed if the store is closed.
func (s *Store) CheckHead(repo [16]byte, h Head) error {
	if err := s.state.enterUnlessClosed(); err != nil {
		return fmt.Errorf("check head of a repository: %w", err)
	}
	defer s.leave()
	if s.standby {
		return nil
	}
	v := s.log.Durable()
	if h.LSN > v {
		return &HistoryError{h, v, fmt.Sprintf("the newest durable commit here is %v", v)}
	}
	sum, err := s.log.Checksum(h.LSN)
	switch {
	case err == nil && sum == h.Sum:
		s.sawHead(repo, h)
		return nil
	case err == nil:
		return &HistoryError{h, v, fmt.Sprintf("the log has checksum %08x", sum)}
	case !errors.Is(err, wal.ErrReleased):
		return fmt.Errorf("check head of a repository: %w", err)
	case s.sawHead(repo, h):
		return nil
	}
	return &HistoryError{h, v, fmt.Sprintf("it is not remembered, and the log begins at %v", s.log.Oldest())}
}

// sawHead reports whether a repository's head is remembered. If it is the newer
// one the one before is not needed any more; if it is the one before, the newer
// one never got there, and will be the first to be forgotten. The next superblock
// says so.
func (s *Store) sawHead(repo [16]byte, h Head) bool {
	a := &s.anchor
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.now.heads {
		k := &a.now.heads[i]
		if k.repo != repo || repo == [16]byte{} {
			continue
		}
		if k.was == h && h != (Head{}) {
			k.now, k.was = k.was, k.now // so that another push that is cut off cannot make us forget it
		}
		if k.now != h {
			return false
		}
		if k.was.LSN < h.LSN {
			k.was = Head{}
		}
		return true
	}
	return false
}

// RememberHead makes it durable that repo is about to have the state h, which
// must be one of ours. The pair before it is kept as well, until CheckHead sees
// the new one. Of more than four repositories the one that was remembered
// longest ago is forgotten. It waits while the store is quiet.
func (s *Store) RememberHead(repo [16]byte, h Head) error {
	return s.RememberHeadContext(context.Background(), repo, h)
}

// RememberHeadContext is RememberHead, and waits until ctx ends: then nothing is
// remembered.
func (s *Store) RememberHeadContext(ctx context.Context, repo [16]byte, h Head) error {
	switch {
	case s.opts.ReadOnly:
		return fmt.Errorf("remember head of a repository: %w", ErrReadOnly)
	case s.standby:
		return nil
	}
	if err := s.state.enterUnlessClosed(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.rememberHead(ctx, repo, h); err != nil {
		return fmt.Errorf("remember head of a repository: %w", err)
	}
	return nil
}

func (s *Store) rememberHead(ctx context.Context, repo [16]byte, h Head) error {
	if repo == [16]byte{} {
		return optionError("the repository has no id")
	}
	v := s.log.Durable()
	if h.LSN > v {
		return &HistoryError{h, v, fmt.Sprintf("the newest durable commit here is %v", v)}
	}
	if sum, err := s.log.Checksum(h.LSN); err == nil && sum != h.Sum && h.Sum != 0 { // 0: it could not be read then
		return &HistoryError{h, v, fmt.Sprintf("the log has checksum %08x", sum)}
	}
	at := s.lastCommitTime() // of v, or later
	return s.amendSuperblock(ctx, func(sb *superblock) {
		sb.heads = remembered(sb.heads, repo, h)
		if v > sb.durable { // an opening that finds less is refused (R6)
			sb.durable, sb.durableTime = v, at
		}
	})
}

// remembered puts a repository first, with its new head and the one before.
func remembered(heads [headsMax]repositoryHead, repo [16]byte, h Head) (out [headsMax]repositoryHead) {
	out[0] = repositoryHead{repo: repo, now: h}
	n := 1
	for _, k := range heads {
		switch {
		case k.repo == repo && k.now != h:
			out[0].was = k.now
		case k.repo == repo:
			out[0].was = k.was
		case n < headsMax:
			out[n] = k
			n++
		}
	}
	return out
}

// history is the timelines that led to ours, the newest first.
func (s *Store) history() []block.Fork {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return s.anchor.now.forks.list()
}

// recordSum is the checksum of the record that ends a durable commit, 0 if the
// log no longer has it or the checksum would mean nothing to others.
func (s *Store) recordSum(lsn block.LSN) uint32 {
	if s.standby {
		return 0
	}
	sum, err := s.log.Checksum(lsn)
	if err != nil {
		if !errors.Is(err, wal.ErrReleased) { // a backup does without, or a log that cannot be read would forbid it
			s.logger.Warn("the record that ends a commit cannot be read: what is pushed has no name", "lsn", uint64(lsn), "cause", err)
		}
		return 0
	}
	return sum
}
