//go:build invariants

package shadow

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
)

// On says that the program is built with the tag invariants.
const On = true

// Blocks is what was published of each block. The zero value knows nothing. Safe for
// concurrent use; what its methods are told has to be told as the package's comment says.
type Blocks struct {
	shards [shardCount]shard
	floor  atomic.Uint64
}

const shardCount = 64

type shard struct {
	mu     sync.Mutex
	blocks map[block.ID]*history
}

// history is what is known of a block.
type history struct {
	events []event // oldest first

	place   block.LSN // the version that is in place
	placed  bool      // place is known
	written block.LSN // the newest that was written in place
}

// event is a version that was published, or, freed, a commit that ended one.
type event struct {
	lsn    block.LSN
	freed  bool
	found  bool // not published: what the block was when it was first seen
	summed bool // sum is known
	sum    uint32
	typ    block.Type
}

func (e event) String() string {
	s := fmt.Sprint(e.lsn)
	if e.freed {
		s = "free since " + s
	}
	if e.found {
		s += " (found)"
	}
	return s
}

func (v *Version) sum() uint32 { return block.Checksum(0, block.Payload(v.Image)) }

func (v *Version) event(found bool) event {
	e := event{lsn: v.LSN, typ: v.Type, found: found}
	if v.Image != nil {
		e.sum, e.summed = v.sum(), true
	}
	return e
}

// with calls f with what is known of a block, which f may change.
func (b *Blocks) with(id block.ID, f func(h *history)) {
	s := &b.shards[uint64(id)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.blocks[id]
	if h == nil {
		if s.blocks == nil {
			s.blocks = map[block.ID]*history{}
		}
		h = &history{}
		s.blocks[id] = h
	}
	f(h)
}

// known is with for blocks of which something is known.
func (b *Blocks) known(id block.ID, f func(h *history)) {
	s := &b.shards[uint64(id)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.blocks[id]; h != nil && len(h.events) > 0 {
		f(h)
	}
}

func (h *history) top() *event { return &h.events[len(h.events)-1] }

// at is what the block was at a commit; nil: not known.
func (h *history) at(lsn block.LSN) *event {
	for i := len(h.events) - 1; i >= 0; i-- {
		if h.events[i].lsn <= lsn {
			return &h.events[i]
		}
	}
	return nil
}

// version is the version that a commit made; nil: not known.
func (h *history) version(lsn block.LSN) *event {
	if e := h.at(lsn); e != nil && e.lsn == lsn && !e.freed {
		return e
	}
	return nil
}

// Publish says that a commit makes v the newest version. It replaces one since that LSN,
// if the block existed.
func (b *Blocks) Publish(id block.ID, v Version, since block.LSN, existed bool) {
	b.with(id, func(h *history) {
		h.replace(b, id, v.LSN, since, existed)
		h.events = append(h.events, v.event(false))
	})
}

// Free says that a commit frees the block, whose version was since that LSN.
func (b *Blocks) Free(id block.ID, lsn, since block.LSN) {
	b.with(id, func(h *history) {
		h.replace(b, id, lsn, since, true)
		h.events = append(h.events, event{lsn: lsn, freed: true})
	})
}

// replace proves that a commit replaces what is the newest, and forgets what nobody
// needs.
func (h *history) replace(b *Blocks, id block.ID, lsn, since block.LSN, existed bool) {
	if len(h.events) == 0 {
		h.events = append(h.events, event{lsn: since, found: true, freed: !existed})
	}
	top := h.top()
	if !existed && top.found && !top.freed { // its place was looked at while it was free
		h.events = append(h.events[:0], event{found: true, freed: true})
		top = h.top()
	}
	switch {
	case top.lsn >= lsn:
		h.fail(id, "commit %v publishes it behind a newer one", lsn)
	case existed && (top.freed || top.lsn != since):
		h.fail(id, "commit %v replaces version %v", lsn, since)
	case !existed && !top.freed:
		h.fail(id, "commit %v allocates it, and it is in use", lsn)
	}
	top.found = false // it was in use, or free: the commit says so
	floor, n := block.LSN(b.floor.Load()), 0
	for n+1 < len(h.events) && h.events[n+1].lsn <= floor {
		n++
	}
	h.events = append(h.events[:0], h.events[n:]...)
}

// Begin says that recovery makes v the version of a block, whatever it was.
func (b *Blocks) Begin(id block.ID, v Version) {
	b.with(id, func(h *history) { h.events = append(h.events[:0], v.event(true)) })
}

// BeginFree says that recovery finds a block freed.
func (b *Blocks) BeginFree(id block.ID, lsn block.LSN) {
	b.with(id, func(h *history) { h.events = append(h.events[:0], event{lsn: lsn, freed: true, found: true}) })
}

// Found says that v was read from the place of a block that has no head, to become it. It
// has to be the newest. free reports that the block is free: then v is nothing that
// anyone may be given instead of a version that he sees.
func (b *Blocks) Found(id block.ID, v Version) (free bool) {
	b.with(id, func(h *history) {
		h.inPlace(id, v.LSN, "what was read")
		h.place, h.placed = v.LSN, true
		switch {
		case len(h.events) == 0:
			h.events = append(h.events, v.event(true))
		case h.top().freed:
			free = true
		case h.top().lsn != v.LSN:
			h.fail(id, "version %v, which is in place, becomes its head", v.LSN)
		default:
			h.same(id, &v, "what is in place")
		}
	})
	return free
}

// Mended says that a repair puts v in the place of what was found there: an image of the
// newest version, or of one that the place had lost before it was first seen.
func (b *Blocks) Mended(id block.ID, v Version) {
	b.with(id, func(h *history) {
		if n := len(h.events); n == 0 || n == 1 && h.events[0].found && h.events[0].lsn != v.LSN {
			h.events = append(h.events[:0], v.event(true))
		}
		h.placed = false
		if h.top().lsn != v.LSN || h.top().freed {
			h.fail(id, "it is repaired with version %v", v.LSN)
		}
		h.same(id, &v, "the image that repairs it")
	})
}

// Head says that a version becomes the head of its block in the table, or, freed, what
// says that the block is free.
func (b *Blocks) Head(id block.ID, lsn block.LSN, freed bool) {
	b.known(id, func(h *history) {
		top := h.top()
		if (top.lsn != lsn || top.freed != freed) && !(top.freed && !freed && h.place == lsn) {
			h.fail(id, "version %v (freed: %v) becomes its head", lsn, freed)
		}
	})
}

// Given says that a view at a commit is given v; of the newest commit, at is the highest
// LSN and nobody commits meanwhile.
func (b *Blocks) Given(id block.ID, at block.LSN, v Version, who string) {
	b.known(id, func(h *history) {
		e := h.at(at)
		switch {
		case e == nil:
		case e.freed:
			h.fail(id, "%s at %v is given version %v, but it is free then", who, at, v.LSN)
		case e.lsn != v.LSN:
			h.fail(id, "%s at %v is given version %v, not %v", who, at, v.LSN, e.lsn)
		default:
			h.same(id, &v, who)
		}
	})
}

// Denied says that a view at a commit is told that the block is not in use.
func (b *Blocks) Denied(id block.ID, at block.LSN, who string) {
	b.known(id, func(h *history) {
		if e := h.at(at); e != nil && !e.freed && !e.found {
			h.fail(id, "%s at %v is told that it is not in use", who, at)
		}
	})
}

// LeftOut says that an incremental from base at a commit does not carry the block.
func (b *Blocks) LeftOut(id block.ID, at, base block.LSN) {
	b.known(id, func(h *history) {
		if e := h.at(at); e != nil && !e.freed && !e.found && e.lsn > base {
			h.fail(id, "an incremental from %v at %v leaves it out", base, at)
		}
	})
}

// Caught says that a backup that fell forward at a commit takes v as the newest version.
func (b *Blocks) Caught(id block.ID, from block.LSN, v Version) {
	b.known(id, func(h *history) {
		e := h.at(from)
		for i := len(h.events) - 1; i >= 0 && h.events[i].lsn > from; i-- {
			if h.events[i].freed { // the redo makes void what was taken before
				return
			}
		}
		switch {
		case e == nil || e.freed:
		case v.LSN < e.lsn || h.version(v.LSN) == nil:
			h.fail(id, "a backup that fell forward at %v takes version %v", from, v.LSN)
		default:
			h.same(id, &v, "a backup that fell forward")
		}
	})
}

// Same says that the image of a version is used: it is what was published.
func (b *Blocks) Same(id block.ID, v Version, who string) {
	if v.Image == nil {
		return
	}
	b.known(id, func(h *history) { h.same(id, &v, who) })
}

func (h *history) same(id block.ID, v *Version, who string) {
	e := h.version(v.LSN)
	if e == nil || v.Image == nil {
		return
	}
	sum := v.sum()
	switch {
	case !e.summed:
		e.sum, e.summed = sum, true
	case e.sum != sum:
		h.fail(id, "%s: version %v is not what was published", who, v.LSN)
	}
	switch {
	case e.typ == block.TypeFree:
		e.typ = v.Type
	case v.Type != block.TypeFree && e.typ != v.Type:
		h.fail(id, "%s: version %v is of type %v, not %v", who, v.LSN, v.Type, e.typ)
	}
}

// Interval says that a version that was replaced is kept as one from lsn to until.
func (b *Blocks) Interval(id block.ID, lsn, until block.LSN, who string) {
	b.known(id, func(h *history) {
		if h.version(lsn) == nil {
			if e := h.at(lsn); e != nil && !e.found {
				h.fail(id, "%s: there is no version %v", who, lsn)
			}
			return
		}
		if next := h.after(lsn); next != until {
			h.fail(id, "%s: version %v is kept as one until %v, not %v", who, lsn, until, next)
		}
	})
}

// after is the commit that ended a version; 0: none.
func (h *history) after(lsn block.LSN) block.LSN {
	for i := range h.events {
		if h.events[i].lsn > lsn {
			return h.events[i].lsn
		}
	}
	return 0
}

// At is what the block was at a commit: the LSN of its version, and whether that is
// known, and was one in use.
func (b *Blocks) At(id block.ID, at block.LSN) (lsn block.LSN, inUse bool) {
	b.known(id, func(h *history) {
		if e := h.at(at); e != nil && !e.freed {
			lsn, inUse = e.lsn, true
		}
	})
	return lsn, inUse
}

// Overwrite says that v is about to be written in place. It is durable (L6), and never
// older than what is there.
func (b *Blocks) Overwrite(id block.ID, v Version, durable block.LSN) {
	b.with(id, func(h *history) {
		switch {
		case v.LSN > durable:
			h.fail(id, "version %v is written in place, and the log is durable up to %v", v.LSN, durable)
		case v.LSN < h.written || h.placed && v.LSN < h.place:
			h.fail(id, "version %v is written in place, over %v", v.LSN, max(h.written, h.place))
		case len(h.events) > 0 && h.events[0].lsn <= v.LSN && h.version(v.LSN) == nil:
			h.fail(id, "version %v is written in place, and nobody published it", v.LSN)
		}
		h.same(id, &v, "what is written in place")
		h.placed = false
	})
}

// Placed says that what was written is in place now.
func (b *Blocks) Placed(id block.ID, lsn block.LSN) {
	b.with(id, func(h *history) { h.place, h.written, h.placed = lsn, lsn, true })
}

// InPlace says that a version is taken for being in place.
func (b *Blocks) InPlace(id block.ID, lsn block.LSN, who string) {
	b.known(id, func(h *history) { h.inPlace(id, lsn, who) })
}

func (h *history) inPlace(id block.ID, lsn block.LSN, who string) {
	if h.placed && h.place != lsn {
		h.fail(id, "%s: version %v counts as in place, where %v is", who, lsn, h.place)
	}
}

// Unplaced says that it is not known any more what is in place of a block.
func (b *Blocks) Unplaced(id block.ID) {
	b.known(id, func(h *history) { h.placed = false })
}

// Cut says that the data file was cut off before a block.
func (b *Blocks) Cut(first block.ID) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		for id, h := range s.blocks {
			if id >= first {
				h.placed = false
			}
		}
		s.mu.Unlock()
	}
}

// Floor says that nobody will look at a commit below lsn.
func (b *Blocks) Floor(lsn block.LSN) { b.floor.Store(uint64(lsn)) }

func (h *history) fail(id block.ID, format string, args ...any) {
	Fail("block %v: %s; published: %v; in place: %v (known: %v)", id, fmt.Sprintf(format, args...), h.events, h.place, h.placed)
}
