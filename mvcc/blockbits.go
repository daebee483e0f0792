package mvcc

import "github.com/spillwaydb/spillway/block"

// blockBits is a set of blocks: a bit each, in the groups that have any.
type blockBits struct {
	geo    geometry
	groups map[uint64][]uint64
	count  uint64
}

func newBlockBits(geo geometry) blockBits {
	return blockBits{geo: geo, groups: map[uint64][]uint64{}}
}

// add puts a block into the set; false if it was there.
func (s *blockBits) add(id block.ID) bool {
	g, bit := s.geo.groupOf(id), s.geo.bitOf(id)
	set := s.groups[g]
	if set == nil {
		set = make([]uint64, (s.geo.group+63)/64)
		s.groups[g] = set
	}
	if set[bit/64]>>(bit%64)&1 != 0 {
		return false
	}
	set[bit/64] |= 1 << (bit % 64)
	s.count++
	return true
}

func (s *blockBits) has(id block.ID) bool {
	set, bit := s.groups[s.geo.groupOf(id)], s.geo.bitOf(id)
	return set != nil && set[bit/64]>>(bit%64)&1 != 0
}
