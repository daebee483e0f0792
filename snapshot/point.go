package snapshot

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/yield"
)

// point is an LSN at which someone reads: the horizon, or reader snapshots.
// Readers of one LSN share a point. Guarded by Set.mu.
type point struct {
	lsn     block.LSN
	opened  int64 // when it became the horizon
	horizon bool
	readers readerList
	born    *interval
	dead    []*sublist // originals that this point is the newest to want, by birth
	broken  atomic.Pointer[BrokenError]
	ended   bool

	// unnamed counts the readers that are in no list, and is sealedCount when
	// nobody may join any more. Not guarded by mu. What shares its cache line is hardly
	// ever looked at: every reader writes it when it comes and goes, and looks at broken
	// at each block.
	_       [cacheLine - 8]byte
	unnamed atomic.Int64
	passed  int64  // when it ceased to be the horizon
	id      uint64 // of its readers without a name, once somebody has listed them
	_       [cacheLine - 24]byte
}

// cacheLine is what processors of today take turns at, in bytes.
const cacheLine = 64

// sealedCount is far below what joining and leaving can move it.
const sealedCount = -1 << 40

// seal ends a point for those who come; false if someone reads there.
func (p *point) seal() bool {
	return p.readers.n == 0 && p.unnamed.CompareAndSwap(0, sealedCount)
}

// Reader is one reader snapshot: embed it in what reads. Its fields are the
// Set's until it is closed.
type Reader struct {
	Owner, Label string
	id           uint64
	point        *point
	unnamed      bool
	prev, next   *Reader
	*listed      // nil: it is only counted
}

// listed is what is known of a reader that is in a list of its point. It is apart
// because most readers are not, and come and go often.
type listed struct {
	opened int64                       // Unix nanoseconds, of the set's coarse clock
	lease  time.Duration               // it may be open for this long; 0: as all
	broken atomic.Pointer[BrokenError] // it alone
}

// LSN is the commit that the reader sees.
func (r *Reader) LSN() block.LSN { return r.point.lsn }

// SetLease says how long the reader may be open, before it is opened: then it is broken
// (ReasonExpired). It counts as one with a name.
func (r *Reader) SetLease(d time.Duration) { r.listed = &listed{lease: d} }

// Err is nil, or the *BrokenError that ended the snapshot (L10). Whoever reads
// asks before and after.
func (r *Reader) Err() error {
	if e := r.point.broken.Load(); e != nil {
		return e
	}
	if r.listed != nil {
		if e := r.broken.Load(); e != nil {
			return e
		}
	}
	return nil
}

// readerList is doubly linked, oldest first.
type readerList struct {
	first, last *Reader
	n           int
}

func (l *readerList) push(r *Reader) {
	r.prev, r.next = l.last, nil
	if l.last != nil {
		l.last.next = r
	} else {
		l.first = r
	}
	l.last = r
	l.n++
}

func (l *readerList) remove(r *Reader) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		l.last = r.prev
	}
	r.prev, r.next = nil, nil
	l.n--
}

// OpenReader opens a snapshot at the horizon. It cannot miss a version: the
// horizon is itself a point, so what it sees is kept already (R1, R2).
//
// A reader without a name is only counted, which takes no lock.
func (s *Set) OpenReader(r *Reader) {
	if r.Owner == "" && r.Label == "" && r.listed == nil && s.join(r) {
		s.watch.enter(r)
		return
	}
	if r.listed == nil {
		r.listed = new(listed)
	}
	if r.lease > 0 {
		s.leases.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	r.id = s.lastID
	r.opened = s.clock.Load()
	r.point = s.horizon
	r.point.readers.push(r)
	s.watch.enter(r)
}

// join counts an unnamed reader at the horizon, or at the one that was the
// horizon a moment ago: it is a point as long as it can be joined.
func (s *Set) join(r *Reader) bool {
	p := s.newest.Load()
	yield.At("horizon found, not joined")
	if p.unnamed.Add(1) <= 0 || p.broken.Load() != nil {
		s.part(p)
		return false
	}
	r.point, r.unnamed = p, true
	return true
}

// part ends what join began.
func (s *Set) part(p *point) {
	if p.unnamed.Add(-1) != 0 || s.newest.Load() == p {
		return // the horizon ends when it is moved on
	}
	s.mu.Lock()
	s.endIfUnread(p)
}

// endIfUnread ends p unless it is the horizon, or ended, or someone reads
// there. It releases mu, which the caller holds.
func (s *Set) endIfUnread(p *point) {
	if p.horizon || p.ended || !p.seal() {
		s.mu.Unlock()
		return
	}
	d := s.endPoint(p)
	s.mu.Unlock()
	if d != nil { // most points had nothing that is let go
		s.letGo(d)
	}
}

// CloseReader ends a snapshot and lets go of what only it wanted.
func (s *Set) CloseReader(r *Reader) {
	p := r.point
	s.watch.leave(r)
	yield.At("reader about to part")
	if r.unnamed {
		s.part(p)
		return
	}
	if r.lease > 0 {
		s.leases.Add(-1)
	}
	s.mu.Lock()
	if r.broken.Load() != nil { // it has left already
		s.mu.Unlock()
		return
	}
	p.readers.remove(r)
	s.endIfUnread(p)
}

// Advance moves the horizon to lsn: what the next reader will see. The old one
// lives on if someone reads there.
func (s *Set) Advance(lsn block.LSN) {
	s.mu.Lock()
	old := s.horizon
	if lsn <= old.lsn {
		s.mu.Unlock()
		return
	}
	p := &point{lsn: lsn, opened: s.clock.Load(), horizon: true}
	p.born = &interval{point: p}
	s.points = append(s.points, p)
	s.horizon = p
	s.newest.Store(p)
	old.horizon, old.passed = false, p.opened
	s.watchHorizon()
	s.endIfUnread(old)
}

// endPoint takes p, which is not the horizon, out of the points. The sublists that no
// point wants any more depart, nil if there are none; the rest goes to the point before.
func (s *Set) endPoint(p *point) *departure {
	at := s.search(p.lsn)
	var free []*sublist
	p.ended = true
	for _, sub := range p.dead {
		born := sub.born.find()
		if born == p.born {
			free = append(free, sub)
			s.lists--
			continue
		}
		s.adopt(s.points[at-1], sub, born) // born no later than the point before
	}
	p.dead = nil
	after := s.points[at+1] // the horizon is the last, and never ends
	p.born.into, p.born.point = after.born, nil
	s.points = slices.Delete(s.points, at, at+1)
	return s.depart(free)
}

// adopt puts sub among the sublists of p.
func (s *Set) adopt(p *point, sub *sublist, born *interval) {
	at, found := p.find(born)
	if found {
		s.merge(p.dead[at], sub)
		s.lists--
		return
	}
	sub.born = born
	p.dead = slices.Insert(p.dead, at, sub)
}

// list is p's sublist for the births in an interval.
func (s *Set) list(p *point, born *interval) *sublist {
	at, found := p.find(born)
	if !found {
		p.dead = slices.Insert(p.dead, at, &sublist{born: born})
		s.lists++
	}
	return p.dead[at]
}

// find is the place of the sublist for the births in an interval, which owns
// itself.
func (p *point) find(born *interval) (at int, found bool) {
	return slices.BinarySearchFunc(p.dead, born.point.lsn, func(sub *sublist, lsn block.LSN) int {
		return cmp.Compare(sub.born.find().point.lsn, lsn)
	})
}

// exclusive is how many bytes would come free if p ended.
func (p *point) exclusive() (n int64) {
	for _, sub := range p.dead {
		if sub.born.find() == p.born {
			n += sub.held
		}
	}
	return n
}

// search is the index of the first point with an LSN of at least lsn.
func (s *Set) search(lsn block.LSN) int {
	at, _ := slices.BinarySearchFunc(s.points, lsn, func(p *point, lsn block.LSN) int {
		return cmp.Compare(p.lsn, lsn)
	})
	return at
}

// unindex takes an original that nobody wants out of the index.
func (s *Set) unindex(h blockcache.Handle) bool {
	o := s.at(h)
	if o.Flags&(isGone|isInList) != 0 || o.Wants != 0 {
		return false
	}
	s.checkUnwanted(o.ID, o.LSN, o.Until)
	o.Flags |= isGone
	s.index.Delete(h)
	return true
}

// drop ends originals that are out of the index. The caller holds no latch.
func (s *Set) drop(list []blockcache.Handle) {
	for _, h := range list {
		l := s.cache.Latch(s.at(h).ID) // which never changes
		s.end(h)
		l.Unlock()
	}
}

// end gives an original back: its entry, and whatever places it has. Under the
// latch.
func (s *Set) end(h blockcache.Handle) {
	s.mu.Lock()
	o := s.at(h)
	var v *blockcache.Version
	slot := o.Slot
	if o.Flags&isAttached != 0 {
		v = s.detach(o)
	}
	s.cache.FreeEntry(h)
	s.mu.Unlock()
	if v != nil {
		s.cache.Kill(v)
	} else {
		s.cache.FreeSlot(slot)
	}
}

// readerCount is how many readers a point has.
func (p *point) readerCount() int { return p.readers.n + int(max(0, p.unnamed.Load())) }

// age is how long ago a reader was opened.
func (s *Set) age(opened int64) time.Duration {
	return time.Duration(s.clock.Load() - opened)
}
