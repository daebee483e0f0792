package simfs

import "hash/maphash"

// Summer works out checksums of whole file systems: equal for equal names, sizes
// and bytes, within one process. It remembers the parts that states of one disk
// share, so that a state costs what it has of its own. Not safe for concurrent use.
type Summer struct {
	chunks map[*chunk]uint64
	pages  map[*[pageBytes]byte]uint64
}

// summerSeed is the same for all, so that their sums can be compared.
var summerSeed = maphash.MakeSeed()

// summerKept is how many parts are remembered, at most.
const summerKept = 1 << 16

// Sum returns the checksum of what reads of f show.
func (s *Summer) Sum(f *FS) uint64 {
	if len(s.chunks) > summerKept/chunkPages || len(s.pages) > summerKept || s.chunks == nil {
		s.chunks, s.pages = make(map[*chunk]uint64), make(map[*[pageBytes]byte]uint64)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum uint64
	f.walk(func(name string, n *node) {
		sum = mix(sum, maphash.String(summerSeed, name))
		if !n.isDir() {
			sum = mix(mix(sum, uint64(n.live.size)), s.content(&n.live))
		}
	})
	return sum
}

// content adds up its chunks: a sum has no order. Zeros count as nothing, whether
// they take space or not.
func (s *Summer) content(c *content) (sum uint64) {
	for number, ch := range c.chunks {
		h, known := s.chunks[ch]
		if !known {
			for i, page := range ch.pages {
				if page != nil {
					h += place(s.page(page, ch.shared), uint64(i))
				}
			}
			if ch.shared { // it stays as it is
				s.chunks[ch] = h
			}
		}
		sum += place(h, uint64(number))
	}
	return sum
}

// page is the hash of a page; of a chunk that is shared it is remembered, since
// pages of it stay as they are.
func (s *Summer) page(p *[pageBytes]byte, shared bool) uint64 {
	h, known := s.pages[p]
	if known && shared {
		return h
	}
	h = 0
	if *p != zeroPage {
		h = maphash.Bytes(summerSeed, p[:])
	}
	if shared {
		s.pages[p] = h
	}
	return h
}

var zeroPage [pageBytes]byte

// place makes a hash depend on where its bytes are. Of zeros it stays 0.
func place(h, at uint64) uint64 {
	if h == 0 {
		return 0
	}
	return mix(h, at+1)
}

func mix(a, b uint64) uint64 {
	h := (a ^ b*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	return h ^ h>>32
}
