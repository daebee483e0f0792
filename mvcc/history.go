package mvcc

import (
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// History is the forks that led to the timeline, the newest first (R18).
func (s *Store) History() []block.Fork { return slices.Clone(s.history) }
