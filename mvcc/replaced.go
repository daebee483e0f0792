package mvcc

import (
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// replacedQueue holds the versions that commits replaced, and the heads of
// blocks that they freed, in commit order, until the horizon reaches the
// commit: only then is it known which snapshots can want them (R1, R2).
type replacedQueue struct {
	fresh []*blockcache.Version // of the commit being published; the writer's

	mu   sync.Mutex
	list []*blockcache.Version
	at   int
}

// add belongs to the commit being published.
func (q *replacedQueue) add(v *blockcache.Version) { q.fresh = append(q.fresh, v) }

// commit hands over what add collected.
func (q *replacedQueue) commit() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, q.fresh...)
	clear(q.fresh)
	q.fresh = q.fresh[:0]
}

// endOf is the commit that ended a version, or freed the block.
func endOf(v *blockcache.Version) block.LSN {
	if v.Freed {
		return v.LSN
	}
	return v.Until
}

// take returns up to len(dst) versions whose end is at or below horizon.
func (q *replacedQueue) take(dst []*blockcache.Version, horizon block.LSN) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(dst) && q.at < len(q.list) && endOf(q.list[q.at]) <= horizon {
		dst[n] = q.list[q.at]
		q.list[q.at] = nil
		q.at++
		n++
	}
	if q.at == len(q.list) {
		q.list, q.at = q.list[:0], 0
	} else if q.at > 1024 && q.at > len(q.list)/2 {
		m := copy(q.list, q.list[q.at:])
		clear(q.list[m:])
		q.list, q.at = q.list[:m], 0
	}
	return n
}

// sweep decides about every version whose end the horizon has reached: it
// becomes an original that some snapshot wants, or goes.
func (s *Store) sweep(horizon block.LSN) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	var batch [64]*blockcache.Version
	for {
		n := s.replaced.take(batch[:], horizon)
		for _, v := range batch[:n] {
			s.sweepOne(v)
		}
		if n < len(batch) {
			return
		}
	}
}

func (s *Store) sweepOne(v *blockcache.Version) {
	l := s.cache.Latch(v.ID)
	defer l.Unlock()
	if v.Freed {
		if v.Role == blockcache.RoleHead && l.Head(v.ID) == v {
			l.Remove(v)
			v.Role = blockcache.RoleDead
		}
		return
	}
	unchain(l.Head(v.ID), v)
	if s.snapshots.Replaced(v) {
		s.cache.Keep(v)
	} else {
		s.cache.Kill(v)
	}
}

// unchain takes v, the oldest pending version of its block, off the chain.
func unchain(h, v *blockcache.Version) {
	for ; h != nil; h = h.Older {
		if h.Older == v {
			h.Older = nil
			return
		}
	}
}
