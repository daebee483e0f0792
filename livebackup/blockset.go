package livebackup

import (
	"math/bits"

	"github.com/spillwaydb/spillway/block"
)

// setPageBlocks is how many blocks a page of a blockSet stands for.
const setPageBlocks = 4096

// What a page and its entry in the map take, in bytes.
const (
	setPageBytes  = setPageBlocks/8 + 8
	setEntryBytes = 32
)

// blockSet is a set of block numbers. A page that is full shrinks to a mark,
// so a set filled more or less in order needs a few pages and eight bytes per
// 4096 blocks, whatever high-water mark a manifest claims.
type blockSet struct {
	pages     map[uint64]*setPage // a nil page is full
	count     uint64
	bytes     int64 // that the set takes in memory, about
	bytesPeak int64
}

type setPage struct {
	words [setPageBlocks / 64]uint64
	count int
}

func newBlockSet() *blockSet { return &blockSet{pages: make(map[uint64]*setPage)} }

// add puts id into the set and returns false if it was there.
func (s *blockSet) add(id block.ID) bool {
	number, slot := uint64(id)/setPageBlocks, uint64(id)%setPageBlocks
	page, found := s.pages[number]
	if !found {
		page = new(setPage)
		s.pages[number] = page
		s.bytes += setEntryBytes + setPageBytes
		s.bytesPeak = max(s.bytesPeak, s.bytes)
	}
	if page == nil || page.words[slot/64]&(1<<(slot%64)) != 0 {
		return false
	}
	page.words[slot/64] |= 1 << (slot % 64)
	page.count++
	if page.count == setPageBlocks {
		s.pages[number] = nil
		s.bytes -= setPageBytes
	}
	s.count++
	return true
}

func (s *blockSet) has(id block.ID) bool {
	number, slot := uint64(id)/setPageBlocks, uint64(id)%setPageBlocks
	page, found := s.pages[number]
	return found && (page == nil || page.words[slot/64]&(1<<(slot%64)) != 0)
}

// merge adds what is in other, which is used up.
func (s *blockSet) merge(other *blockSet) {
	for number, page := range other.pages {
		mine, found := s.pages[number]
		if !found {
			s.pages[number] = page
			s.bytes += setEntryBytes
			if page != nil {
				s.bytes += setPageBytes
			}
			s.count += page.blocks()
			continue
		}
		before := mine.blocks()
		if mine != nil && page != nil {
			mine.count = 0
			for i := range mine.words {
				mine.words[i] |= page.words[i]
				mine.count += bits.OnesCount64(mine.words[i])
			}
		}
		if mine != nil && (page == nil || mine.count == setPageBlocks) {
			s.pages[number] = nil
			s.bytes -= setPageBytes
		}
		s.count += s.pages[number].blocks() - before
	}
	s.bytesPeak = max(s.bytesPeak, s.bytes)
}

// blocks is how many blocks a page in the map stands for.
func (p *setPage) blocks() uint64 {
	if p == nil {
		return setPageBlocks
	}
	return uint64(p.count)
}
