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
	newest  atomic.Pointer[Point] // the horizon, for who comes without mu

	mu      sync.Mutex
	points  []*Point // by LSN; the last one is the horizon
	horizon *Point
	index   *btree.BTreeG[*Original]
	backups [BackupsMax]*Backup
	lastID  uint64
	made    uint64
	shared  uint64
	broken  uint64
}

// New makes a set whose horizon is at lsn. onBreak, if not nil, is called
// without locks for every snapshot that is broken.
func New(cache *blockcache.Cache, lsn block.LSN, onBreak func(*BrokenError)) *Set {
	s := &Set{cache: cache, onBreak: onBreak, index: btree.NewG(32, lessOriginal)}
	s.Tick(time.Now())
	p := &Point{lsn: lsn, opened: s.clock.Load(), horizon: true}
	p.born = &interval{point: p}
	s.points, s.horizon = []*Point{p}, p
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
	at := s.search(v.Until) - 1
	byReader := at >= 0 && s.points[at].lsn >= v.LSN
	wants := s.wantedByBackups(v)
	if !byReader && wants == 0 {
		return false
	}
	o := &Original{v: v, set: s}
	if v.Data() != nil {
		o.bytes += int64(len(v.Data()))
	}
	if v.Slot() != 0 {
		o.bytes += s.cache.BlockBytes()
	}
	s.count(o, wants, byReader)
	o.change(func() {
		o.wants = wants
		if byReader {
			o.sub = s.points[at].list(s.points[s.search(v.LSN)].born)
			o.sub.add(o)
		}
	})
	v.Role = blockcache.RoleOriginal
	v.Holder = o
	s.index.ReplaceOrInsert(o)
	return true
}

func (s *Set) count(o *Original, wants uint8, byReader bool) {
	s.made++
	sharers := 0
	for i, b := range s.backups {
		if b != nil && wants&(1<<i) != 0 {
			sharers++
			b.made++
			b.held += o.bytes
			b.heldPeak = max(b.heldPeak, b.held)
			b.queue.ReplaceOrInsert(o)
		}
	}
	if byReader {
		sharers++
	}
	if sharers > 1 {
		s.shared++
		for i, b := range s.backups {
			if b != nil && wants&(1<<i) != 0 {
				b.shared++
			}
		}
	}
}

// Find returns the original of a block that a snapshot at lsn sees, or nil.
// Under the latch of the block.
func (s *Set) Find(id block.ID, lsn block.LSN) *blockcache.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *blockcache.Version
	s.index.DescendLessOrEqual(probe(id, lsn), func(o *Original) bool {
		if o.v.ID == id && o.v.Until > lsn {
			found = o.v
		}
		return false
	})
	return found
}

// InPlace returns the original of a block that the data file still holds, or
// nil. Under the latch of the block.
func (s *Set) InPlace(id block.ID) *blockcache.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *blockcache.Version
	s.index.DescendLessOrEqual(probe(id, ^block.LSN(0)), func(o *Original) bool {
		if o.v.ID == id && o.v.InPlace {
			found = o.v
		}
		return o.v.ID == id && found == nil
	})
	return found
}

// InPlaceFrom calls f for the originals of blocks from first on that were in
// place when it looked: what a truncation would destroy (R9).
func (s *Set) InPlaceFrom(first block.ID, f func(block.ID)) {
	s.mu.Lock()
	var ids []block.ID
	s.index.AscendGreaterOrEqual(probe(first, 0), func(o *Original) bool {
		ids = append(ids, o.v.ID)
		return true
	})
	s.mu.Unlock()
	for _, id := range ids {
		f(id)
	}
}

// Len is how many originals there are.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index.Len()
}
