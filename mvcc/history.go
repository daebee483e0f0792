package mvcc

import "github.com/spillwaydb/spillway/block"

// History is the forks that led to the store's timeline, the newest first (R18).
func (s *Store) History() []block.Fork {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return s.anchor.now.forks.list()
}
