package mvcc

import (
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// replacedQueue names the blocks whose versions commits replaced or freed, in
// commit order, until the horizon reaches the commit: only then is it known
// which snapshots can want them (R1, R2). It has numbers, not versions: those
// without a frame are entries meanwhile (L9).
type replacedQueue struct {
	fresh []block.ID // of the commit being published; the writer's

	mu      sync.Mutex
	ids     []block.ID
	at      int // below it ids are done with
	commits []replacing
}

// replacing is a commit and how many blocks of the queue are still its.
type replacing struct {
	lsn block.LSN
	n   int
}

// replacedBlock is a block whose version ended with a commit.
type replacedBlock struct {
	id    block.ID
	until block.LSN
}

// replacedKept is how large the queue's memory stays when it is empty.
const replacedKept = 1 << 14

// add belongs to the commit being published.
func (q *replacedQueue) add(id block.ID) { q.fresh = append(q.fresh, id) }

// commit hands over what add collected.
func (q *replacedQueue) commit(lsn block.LSN) {
	if len(q.fresh) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.commits = append(q.commits, replacing{lsn, len(q.fresh)})
	if len(q.ids) == 0 {
		q.ids, q.fresh = q.fresh, q.ids
	} else {
		q.ids = append(q.ids, q.fresh...)
	}
	q.fresh = q.fresh[:0]
	if cap(q.fresh) > replacedKept {
		q.fresh = nil
	}
}

// take returns up to len(dst) blocks whose versions ended at or below horizon.
func (q *replacedQueue) take(dst []replacedBlock, horizon block.LSN) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := 0
	for ; n < len(dst) && done < len(q.commits) && q.commits[done].lsn <= horizon; done++ {
		c := &q.commits[done]
		for ; n < len(dst) && c.n > 0; c.n-- {
			dst[n] = replacedBlock{q.ids[q.at], c.lsn}
			q.at++
			n++
		}
		if c.n > 0 {
			break
		}
	}
	q.commits = append(q.commits[:0], q.commits[done:]...)
	q.tidy()
	return n
}

// tidy gives back or moves what is done with.
func (q *replacedQueue) tidy() {
	switch {
	case q.at == len(q.ids):
		q.ids, q.at = q.ids[:0], 0
		if cap(q.ids) > replacedKept {
			q.ids = nil
		}
	case q.at > 1024 && q.at > len(q.ids)/2:
		q.ids, q.at = append(q.ids[:0], q.ids[q.at:]...), 0
	}
}

// sweep decides about every version whose end the horizon has reached: it
// becomes an original that some snapshot wants, or goes.
func (s *Store) sweep(horizon block.LSN) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	var batch [64]replacedBlock
	for {
		n := s.replaced.take(batch[:], horizon)
		for _, r := range batch[:n] {
			s.sweepOne(r)
		}
		if n < len(batch) {
			return
		}
	}
}

// sweepOne decides about the version of a block that a commit ended; the head
// that says that the commit freed the block has nothing more to say.
func (s *Store) sweepOne(r replacedBlock) {
	l := s.cache.Latch(r.id)
	defer l.Unlock()
	h := l.Head(r.id)
	v := unchain(h, r.until)
	checkSwept(r, v)
	if v != nil {
		if s.snapshots.Replaced(v) {
			s.cache.Keep(v)
		} else {
			s.cache.Kill(v)
		}
	}
	switch {
	case h == nil:
	case h.Freed && h.LSN == r.until:
		l.Remove(h)
		h.Role = blockcache.RoleDead
	case h.Data() == nil:
		l.Settle(h)
	}
}

// unchain takes the version that a commit ended, the oldest pending one of its
// block, off the chain.
func unchain(h *blockcache.Version, until block.LSN) *blockcache.Version {
	for ; h != nil; h = h.Older {
		if v := h.Older; v != nil && v.Until == until {
			h.Older = nil
			return v
		}
	}
	return nil
}
