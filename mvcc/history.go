package mvcc

import "github.com/spillwaydb/spillway/block"

// History is the forks that led to the timeline, the newest first (R18).
func (s *Store) History() []block.Fork { return s.history() }
