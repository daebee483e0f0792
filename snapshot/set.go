package snapshot

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// BackupsMax is how many live backups a set takes: every commit asks each of
// them what it wants (R11).
const BackupsMax = 4

// Set is the live snapshots of one store and the index of their originals.
// Safe for concurrent use. Lock order: a block's latch, then mu.
type Set struct {
	cache   *blockcache.Cache
	onBreak func(*BrokenError)
	clock   atomic.Int64          // Unix nanoseconds, coarse: [Set.Tick]
	newest  atomic.Pointer[point] // the horizon, for who comes without mu
	leases  atomic.Int64          // readers that have a lease of their own
	watch   watch                 // empty without the tag invariants

	mu      sync.Mutex
	points  []*point // by LSN; the last one is the horizon
	horizon *point
	index   *tree
	backups [BackupsMax]*Backup
	lists   int      // sublists
	key     original // what trees are searched for: see probe
	charged int64    // heap bytes asked of the budget
	leaving leaving
	slice   int // releaseSlice; tests make it smaller

	attached []*blockcache.Version // of originals that have a frame
	detached []uint32              // free places in attached
	lastID   uint64
	made     uint64
	shared   uint64
	broken   uint64
}

// tree is an ordered set of originals.
type tree = btree.BTreeG[blockcache.Handle]

func (s *Set) newTree() *tree { return btree.NewG(32, s.less) }

// New makes a set whose horizon is at lsn. onBreak, if not nil, is called
// without locks for every snapshot that is broken. Close it before the cache.
func New(cache *blockcache.Cache, lsn block.LSN, onBreak func(*BrokenError)) *Set {
	s := &Set{cache: cache, onBreak: onBreak, slice: releaseSlice}
	s.index = s.newTree()
	s.leaving.moved.L = &s.mu
	cache.SetOwner(s)
	s.Tick(time.Now())
	p := &point{lsn: lsn, opened: s.clock.Load(), horizon: true}
	p.born = &interval{point: p}
	s.points, s.horizon = []*point{p}, p
	s.newest.Store(p)
	return s
}

// Tick sets the clock that ages are told by.
func (s *Set) Tick(now time.Time) { s.clock.Store(now.UnixNano()) }

// Horizon is the LSN that the next reader will see.
func (s *Set) Horizon() block.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.horizon.lsn
}

// Replaced decides about v, a version that the commit v.Until replaced or
// freed, now that the horizon is at or past that commit: it becomes an original
// if a snapshot wants it, and the answer is whether it did. Under the latch.
//
// One comparison asks all readers (R11): the newest point below v.Until wants
// v, or no point does.
func (s *Set) Replaced(v *blockcache.Version) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkInterval(v.ID, v.LSN, v.Until, "replaced")
	at := s.search(v.Until) - 1
	byReader := at >= 0 && s.points[at].lsn >= v.LSN
	wants := uint8(0)
	if s.backups != ([BackupsMax]*Backup{}) {
		wants = s.countReplaced(v)
	}
	if !byReader && wants == 0 {
		s.checkUnwanted(v.ID, v.LSN, v.Until)
		return false
	}
	h := s.cache.NewEntry()
	o := s.at(h)
	o.ID, o.LSN, o.Until, o.Wants = v.ID, v.LSN, v.Until, wants
	if v.Data() != nil {
		o.Images++
	}
	if v.Slot() != 0 {
		o.Images++
	}
	if byReader {
		o.Flags |= isInList
		s.addTo(s.list(s.points[at], s.points[s.search(v.LSN)].born), h)
	}
	s.addExclusive(o, s.bytes(o))
	s.count(h, byReader)
	s.attach(h, v)
	s.cache.Settle(v)
	v.Role = blockcache.RoleOriginal
	s.index.ReplaceOrInsert(h)
	s.account()
	return true
}

func (s *Set) count(h blockcache.Handle, byReader bool) {
	o := s.at(h)
	s.made++
	sharers := 0
	for i, b := range s.backups {
		if b != nil && o.Wants&(1<<i) != 0 {
			sharers++
			b.made++
			b.held += s.bytes(o)
			b.heldPeak = max(b.heldPeak, b.held)
			b.queue.ReplaceOrInsert(h)
			b.tally.keep(o)
		}
	}
	if byReader {
		sharers++
	}
	if sharers > 1 {
		s.shared++
		for i, b := range s.backups {
			if b != nil && o.Wants&(1<<i) != 0 {
				b.shared++
			}
		}
	}
}

// Find returns the original of a block that a snapshot at lsn sees, or nil.
// Under the latch of the block. One without a frame is good only until the latch
// is let go, unless it is Loading then.
func (s *Set) Find(id block.ID, lsn block.LSN) *blockcache.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *blockcache.Version
	s.index.DescendLessOrEqual(s.probe(id, lsn), func(h blockcache.Handle) bool {
		if o := s.at(h); o.ID == id && o.Until > lsn {
			s.checkInterval(id, o.LSN, o.Until, "found as an original")
			found = s.version(h)
		}
		return false
	})
	return found
}

// EndedAfter reports whether a block has an original that ended after lsn. A block without
// a head of which the data file has a version of lsn is then free. Under the latch of the
// block.
func (s *Set) EndedAfter(id block.ID, lsn block.LSN) (after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.DescendLessOrEqual(s.probe(id, ^block.LSN(0)), func(h blockcache.Handle) bool {
		o := s.at(h)
		after = o.ID == id && o.Until > lsn // the newest original ended last
		return false
	})
	return after
}

// InPlace returns the original of a block that the data file still holds, or
// nil, as Find does. Under the latch of the block.
func (s *Set) InPlace(id block.ID) *blockcache.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *blockcache.Version
	s.index.DescendLessOrEqual(s.probe(id, ^block.LSN(0)), func(h blockcache.Handle) bool {
		o := s.at(h)
		if o.ID == id && s.isInPlace(o) {
			found = s.version(h)
		}
		return o.ID == id && found == nil
	})
	return found
}

// InPlaceFrom calls f for the blocks from first on that had originals when it
// looked: what a truncation may destroy (R9). It looks at a slice at a time.
func (s *Set) InPlaceFrom(first block.ID, f func(block.ID)) {
	var ids [releaseSlice]block.ID
	for {
		n := s.blocksFrom(first, ids[:])
		for _, id := range ids[:n] {
			f(id)
		}
		if n == 0 {
			return
		}
		first = ids[n-1] + 1
	}
}

// blocksFrom fills ids with blocks from first on that have originals.
func (s *Set) blocksFrom(first block.ID, ids []block.ID) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.AscendGreaterOrEqual(s.probe(first, 0), func(h blockcache.Handle) bool {
		if id := s.at(h).ID; n == 0 || ids[n-1] != id {
			if n == len(ids) {
				return false
			}
			ids[n] = id
			n++
		}
		return true
	})
	return n
}

// account asks the budget for what the Go heap has, in steps of a block (L9).
func (s *Set) account() {
	bytes := int64(s.index.Len())*treeItemBytes + int64(s.lists)*sublistBytes
	for _, b := range s.backups {
		if b != nil {
			bytes += int64(b.queue.Len())*treeItemBytes + b.done.heapBytes()
		}
	}
	if d := bytes - s.charged; max(d, -d) >= s.cache.BlockBytes() || bytes == 0 {
		s.charged = bytes
		s.cache.ChargeHeap(d)
	}
}

// Len is how many originals there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index.Len()
}
