package simfs

import "hash/maphash"

// Summer works out checksums of whole file systems: equal for equal names, sizes
// and bytes, within one process. It remembers the parts that states of one disk
// share, so that a state costs what it has of its own. Not safe for concurrent use.
type Summer struct {
	chunks map[*chunk]uint64
	pages  map[*[pageBytes]byte]uint64
	names  map[string]uint64
}

// summerSeed is the same for all, so that their sums can be compared.
var summerSeed = maphash.MakeSeed()

// summerKept is how many parts are remembered, at most.
const summerKept = 1 << 16

// Sum returns the checksum of what reads of f show.
func (s *Summer) Sum(f *FS) uint64 {
	s.forget()
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.directory(f.root.dir)
}

// Parts returns the checksum of each name in f's root, and of what is below it. All of
// them together are what Sum is of.
func (s *Summer) Parts(f *FS) map[string]uint64 {
	s.forget()
	f.mu.Lock()
	defer f.mu.Unlock()
	parts := make(map[string]uint64, len(f.root.dir.live))
	for name, n := range f.root.dir.live {
		parts[name] = s.node(n)
	}
	return parts
}

// forget makes room.
func (s *Summer) forget() {
	if len(s.chunks) > summerKept/chunkPages || len(s.pages) > summerKept || len(s.names) > summerKept || s.chunks == nil {
		s.chunks, s.pages, s.names = make(map[*chunk]uint64), make(map[*[pageBytes]byte]uint64), make(map[string]uint64)
	}
}

// directory adds up its names: a sum has no order.
func (s *Summer) directory(d *directory) (sum uint64) {
	for name, n := range d.live {
		h, known := s.names[name]
		if !known {
			h = maphash.String(summerSeed, name)
			s.names[name] = h
		}
		sum += mix(h, s.node(n))
	}
	return sum
}

func (s *Summer) node(n *node) uint64 {
	if n.isDir() {
		return mix(1, s.directory(n.dir))
	}
	return mix(mix(2, uint64(n.live.size)), s.content(&n.live))
}

// content adds up its chunks: a sum has no order. Zeros count as nothing, whether
// they take space or not.
func (s *Summer) content(c *content) (sum uint64) {
	for number, ch := range c.chunks {
		h, known := s.chunks[ch]
		if !known {
			for i, page := range ch.pages {
				if page != nil {
					h += place(s.page(page, ch.own>>i&1 == 0), uint64(i))
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

// page is the hash of a page. One that another chunk has, too, stays as it is and is
// remembered; those that a state has of its own are too many.
func (s *Summer) page(p *[pageBytes]byte, inherited bool) uint64 {
	h, known := s.pages[p]
	if known && inherited {
		return h
	}
	h = 0
	if *p != zeroPage {
		h = maphash.Bytes(summerSeed, p[:])
	}
	if inherited {
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
