package spill

import "math/bits"

// extentSet is a set of extent numbers that finds its lowest and its highest
// member in a fixed number of steps: a tree of bitmaps, in which a bit of one
// level says whether a word of the level below has any bit.
type extentSet struct {
	levels [setLevels][]uint64
	count  int
}

const (
	wordBits = 64
	// setLevels words of 64 bits above each other reach 2^30 extents, which is
	// slotsMax slots.
	setLevels = (indexBits - 6) / 6
)

// resize makes room for the extents below n. There are no members at n or above.
func (s *extentSet) resize(n int) {
	for l := range s.levels {
		n = (n + wordBits - 1) / wordBits
		s.levels[l] = resized(s.levels[l], n)
	}
}

func (s *extentSet) add(extent int) {
	s.count++
	for l := range s.levels {
		word := &s.levels[l][extent/wordBits]
		before := *word
		*word |= 1 << (extent % wordBits)
		if before != 0 {
			return
		}
		extent /= wordBits
	}
}

func (s *extentSet) remove(extent int) {
	s.count--
	for l := range s.levels {
		word := &s.levels[l][extent/wordBits]
		*word &^= 1 << (extent % wordBits)
		if *word != 0 {
			return
		}
		extent /= wordBits
	}
}

// first is the lowest member.
func (s *extentSet) first() (extent int, ok bool) {
	if s.count == 0 {
		return 0, false
	}
	for l := setLevels - 1; l >= 0; l-- {
		extent = extent*wordBits + bits.TrailingZeros64(s.levels[l][extent])
	}
	return extent, true
}

// last is the highest member.
func (s *extentSet) last() (extent int, ok bool) {
	if s.count == 0 {
		return 0, false
	}
	for l := setLevels - 1; l >= 0; l-- {
		extent = extent*wordBits + bits.Len64(s.levels[l][extent]) - 1
	}
	return extent, true
}

func (s *extentSet) metaBytes() (n int64) {
	for _, level := range s.levels {
		n += int64(cap(level)) * 8
	}
	return n
}

// resized returns s with n elements, new ones zero. Memory follows the size
// both ways, with slack so that it is rarely moved.
func resized[E any](s []E, n int) []E {
	before := len(s)
	if n > cap(s) || n < cap(s)/4 {
		moved := make([]E, n, n+n/4)
		copy(moved, s)
		return moved
	}
	s = s[:n]
	if n > before {
		clear(s[before:])
	}
	return s
}
