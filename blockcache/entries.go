package blockcache

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/spill"
)

// Slot is a place in temporary storage.
type Slot = spill.Slot

// Entry is what is kept of a version that has no frame: an original in temporary
// storage or in place, a head or a private version in temporary storage, a block
// that a commit freed. It holds no pointers, so it lives off the Go heap, in
// pages that are frames of class index (L9).
//
// Who took an entry owns it and says what guards it.
type Entry struct {
	ID     block.ID
	LSN    block.LSN
	Until  block.LSN // of a head: Version.Rec
	Slot   Slot      // or zero
	Next   Handle    // for the owner; of a head: what is pending behind it
	Type   block.Type
	Flags  EntryFlags
	Wants  uint8 // for the owner
	Images uint8 // for the owner
}

// EntryFlags are what an entry says beside its numbers. The low bits are the
// cache's, the others the owner's.
type EntryFlags uint8

// The cache's flags.
const (
	EntryInPlace EntryFlags = 1 << iota // Version.InPlace
	EntryDirty                          // Version.Dirty
	EntryFreed                          // Version.Freed
	EntryImage                          // Version.Image is the LSN
	entryOver                           // see overwrites
	EntryOwn                            // the first that is the owner's
)

// EntryBytes is what an entry takes.
const EntryBytes = 40

const (
	_ = uint(EntryBytes - unsafe.Sizeof(Entry{}))
	_ = uint(unsafe.Sizeof(Entry{}) - EntryBytes)
)

// Handle names an entry: the number of its page, and in the low bits its place
// there. Zero is none.
type Handle uint32

// entries are the pages of entries. One that came empty is given back, all but
// one while there are others.
type entries struct {
	frames    *frames
	perPage   int
	placeBits int // of a handle
	placeMask Handle
	live      atomic.Int64 // entries
	inPages   atomic.Int64 // frames

	// directory is where each page begins; who has a handle reads it without mu.
	directory atomic.Pointer[[]unsafe.Pointer]

	mu     sync.Mutex
	pages  []entryPage // by number; the first is none
	open   uint32      // first page with a free entry
	unused []uint32    // numbers of pages that were given back
}

// entryPage is the bookkeeping of a page. Those with a free entry are a list.
type entryPage struct {
	frame      []byte
	free       Handle // its free entries, linked by Next
	live       int
	prev, next uint32
}

func (e *entries) init(f *frames) {
	e.frames, e.perPage = f, f.size/EntryBytes
	e.placeBits = bits.Len(uint(e.perPage - 1))
	e.placeMask = 1<<e.placeBits - 1
	e.pages = make([]entryPage, 1)
	e.directory.Store(&[]unsafe.Pointer{nil})
}

// NewEntry takes a zeroed entry. It always gets one, beyond MaxRAM if need be:
// whoever lets entries grow has asked for room before (R7), and the next one who
// needs a frame makes it.
func (c *Cache) NewEntry() Handle {
	e := &c.entries
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == 0 {
		e.addPage()
	}
	p := &e.pages[e.open]
	h := p.free
	at := c.Entry(h)
	p.free = at.Next
	*at = Entry{}
	p.live++
	if p.free == 0 {
		e.unlink(e.open)
	}
	e.live.Add(1)
	return h
}

// Entry is the entry that a handle names. It stays where it is until FreeEntry.
func (c *Cache) Entry(h Handle) *Entry {
	e := &c.entries
	d := *e.directory.Load()
	return (*Entry)(unsafe.Add(d[h>>e.placeBits], uintptr(h&e.placeMask)*EntryBytes))
}

// FreeEntry gives an entry back. Nobody may use its handle any more.
func (c *Cache) FreeEntry(h Handle) {
	e := &c.entries
	e.mu.Lock()
	defer e.mu.Unlock()
	number := uint32(h >> e.placeBits)
	p := &e.pages[number]
	c.Entry(h).Next = p.free
	if p.free == 0 {
		e.link(number)
	}
	p.free = h
	p.live--
	if p.live == 0 && (p.prev != 0 || p.next != 0) {
		e.dropPage(number)
	}
	if e.live.Add(-1) == 0 {
		for e.open != 0 {
			e.dropPage(e.open)
		}
	}
}

// areScarce reports whether handles run out: at some 100 GiB of entries.
func (e *entries) areScarce() bool {
	return e.inPages.Load() > int64(1)<<(32-e.placeBits)*7/8
}

func (e *entries) addPage() {
	number := uint32(len(e.pages))
	d := *e.directory.Load()
	if n := len(e.unused); n > 0 {
		number, e.unused = e.unused[n-1], e.unused[:n-1]
	} else {
		e.pages = append(e.pages, entryPage{})
		d = append(d, nil)
	}
	p := &e.pages[number]
	*p = entryPage{frame: e.frames.force()}
	d[number] = unsafe.Pointer(unsafe.SliceData(p.frame))
	e.directory.Store(&d)
	e.inPages.Add(1)
	for i := e.perPage - 1; i >= 0; i-- {
		h := Handle(number<<e.placeBits | uint32(i))
		(*Entry)(unsafe.Add(d[number], i*EntryBytes)).Next = p.free
		p.free = h
	}
	e.link(number)
}

func (e *entries) dropPage(number uint32) {
	e.unlink(number)
	e.frames.give(e.pages[number].frame)
	e.pages[number] = entryPage{}
	(*e.directory.Load())[number] = nil
	e.unused = append(e.unused, number)
	e.inPages.Add(-1)
}

// link puts a page among those with a free entry: in front, so that few pages
// are in the middle of being filled.
func (e *entries) link(number uint32) {
	p := &e.pages[number]
	p.prev, p.next = 0, e.open
	if e.open != 0 {
		e.pages[e.open].prev = number
	}
	e.open = number
}

func (e *entries) unlink(number uint32) {
	p := &e.pages[number]
	if p.prev != 0 {
		e.pages[p.prev].next = p.next
	} else {
		e.open = p.next
	}
	if p.next != 0 {
		e.pages[p.next].prev = p.prev
	}
	p.prev, p.next = 0, 0
}
