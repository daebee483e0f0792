package simfs

import (
	"bytes"
	"maps"
	"math/bits"
	"slices"
)

const (
	sectorBytes = 512
	pageBytes   = 4096 // the unit of allocation
	chunkPages  = 64
	chunkBytes  = chunkPages * pageBytes
)

// content is what a file holds: sparse, and cheap to clone, since clones share
// what neither of them changes. Bytes beyond size may be kept in the last page
// while a crash is worked out; trim drops them.
type content struct {
	size   int64
	chunks map[int64]*chunk // by offset / chunkBytes
	pages  int64            // allocated ones
	shared bool             // chunks is another content's, too, and all of them are shared
}

// chunk is a run of pages. One that is shared is never changed again, so that
// file systems that share it need no common lock.
type chunk struct {
	shared    bool
	allocated uint64 // pages that take space; those without bytes read as zeros
	own       uint64 // pages whose bytes no other chunk refers to
	pages     [chunkPages]*[pageBytes]byte
}

func newContent() content { return content{chunks: make(map[int64]*chunk)} }

// clone costs nothing of what there is, but for the first one.
func (c *content) clone() content {
	if !c.shared { // reading only, once it is shared: others may be reading too
		for _, ch := range c.chunks {
			if !ch.shared {
				ch.shared = true
			}
		}
		c.shared = true
	}
	return *c
}

// change makes the map of chunks the content's own.
func (c *content) change() {
	if c.shared {
		c.chunks, c.shared = maps.Clone(c.chunks), false
	}
}

// writable returns the chunk with the given number, ready to be changed.
func (c *content) writable(number int64) *chunk {
	ch := c.chunks[number]
	switch {
	case ch == nil:
		ch = &chunk{}
	case ch.shared:
		ch = &chunk{allocated: ch.allocated, pages: ch.pages}
	default:
		return ch
	}
	c.change()
	c.chunks[number] = ch
	return ch
}

// page returns the bytes of page i, ready to be changed.
func (ch *chunk) page(i int64) *[pageBytes]byte {
	bit := uint64(1) << i
	if ch.own&bit == 0 {
		if old := ch.pages[i]; old != nil {
			ch.pages[i] = (*[pageBytes]byte)(slices.Clone(old[:])) // which clears nothing before
		} else {
			ch.pages[i] = new([pageBytes]byte)
		}
		ch.own |= bit
	}
	return ch.pages[i]
}

// pageAt returns the bytes of the page that off is in, nil if they are zeros.
func (c *content) pageAt(off int64) *[pageBytes]byte {
	if ch := c.chunks[off/chunkBytes]; ch != nil {
		return ch.pages[off%chunkBytes/pageBytes]
	}
	return nil
}

// read fills p from off on, whatever the size.
func (c *content) read(p []byte, off int64) {
	for len(p) > 0 {
		in := off % pageBytes
		n := min(int64(len(p)), pageBytes-in)
		if page := c.pageAt(off); page != nil {
			copy(p[:n], page[in:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// write stores p at off and leaves the size alone.
func (c *content) write(p []byte, off int64) {
	for len(p) > 0 {
		in := off % pageBytes
		n := min(int64(len(p)), pageBytes-in)
		ch, i := c.writable(off/chunkBytes), off%chunkBytes/pageBytes
		copy(ch.page(i)[in:], p[:n])
		c.allocate(ch, 1<<i)
		p, off = p[n:], off+n
	}
}

func (c *content) allocate(ch *chunk, mask uint64) {
	c.pages += int64(bits.OnesCount64(mask &^ ch.allocated))
	ch.allocated |= mask
}

// missing counts the pages that [off, off+n) touches and that take no space yet.
func (c *content) missing(off, n int64) int64 {
	var count int64
	c.eachChunk(off, n, func(number int64, mask uint64) {
		if ch := c.chunks[number]; ch != nil {
			mask &^= ch.allocated
		}
		count += int64(bits.OnesCount64(mask))
	})
	return count
}

// reserve makes the pages that [off, off+n) touches take space.
func (c *content) reserve(off, n int64) {
	c.eachChunk(off, n, func(number int64, mask uint64) {
		if ch := c.chunks[number]; ch == nil || mask&^ch.allocated != 0 {
			c.allocate(c.writable(number), mask)
		}
	})
}

// eachChunk tells for each chunk which of its pages [off, off+n) touches.
func (c *content) eachChunk(off, n int64, fn func(number int64, mask uint64)) {
	if n <= 0 {
		return
	}
	first, last := off/pageBytes, (off+n-1)/pageBytes
	for number := first / chunkPages; number <= last/chunkPages; number++ {
		low := max(first-number*chunkPages, 0)
		high := min(last-number*chunkPages, chunkPages-1)
		fn(number, ^uint64(0)<<low&(^uint64(0)>>(chunkPages-1-high)))
	}
}

// free makes [off, end) read as zeros and gives back the pages that lie in it
// entirely.
func (c *content) free(off, end int64) {
	for number, ch := range c.chunks {
		start := number * chunkBytes
		low, high := max(off-start, 0), min(end-start, chunkBytes)
		switch {
		case low >= high:
		case low == 0 && high == chunkBytes:
			c.pages -= int64(bits.OnesCount64(ch.allocated))
			c.change()
			delete(c.chunks, number)
		case ch.has(low, high):
			c.freeWithin(number, low, high)
		}
	}
}

// has reports whether any page that [low, high) touches takes space.
func (ch *chunk) has(low, high int64) bool {
	first, last := low/pageBytes, (high-1)/pageBytes
	return ch.allocated>>first<<(chunkPages-1-(last-first)) != 0
}

// freeWithin is free for a part of one chunk, from low to high within it.
func (c *content) freeWithin(number, low, high int64) {
	for i := low / pageBytes; i <= (high-1)/pageBytes; i++ {
		from, to := max(low-i*pageBytes, 0), min(high-i*pageBytes, pageBytes)
		ch, bit := c.chunks[number], uint64(1)<<i
		switch {
		case ch.allocated&bit == 0:
		case from == 0 && to == pageBytes:
			ch = c.writable(number)
			c.pages--
			ch.allocated &^= bit
			ch.own &^= bit
			ch.pages[i] = nil
		case ch.pages[i] != nil && !isZero(ch.pages[i][from:to]):
			clear(c.writable(number).page(i)[from:to])
		}
	}
}

func isZero(b []byte) bool { return bytes.Equal(b, zeroPage[:len(b)]) }

// resize is truncation, in both directions.
func (c *content) resize(size int64) {
	if size < c.size {
		c.free(size, c.size+chunkBytes) // what was reserved behind the end goes too
	}
	c.size = size
}

// trim drops what lies beyond the size.
func (c *content) trim() {
	var end int64
	for number := range c.chunks {
		end = max(end, (number+1)*chunkBytes)
	}
	c.free(c.size, end)
}
