package blockcache

import (
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// queue tells in which list a version is.
type queue uint8

const (
	queueNone queue = iota
	queueSmall
	queueMain
	queueInPlace
	queueOriginals
)

const freqMax = 3

// lists orders what may leave RAM: clean heads by S3-FIFO (Yang et al., "FIFO
// queues are all you need for cache eviction", SOSP 2023), which a full scan
// does not wash out, and originals by age.
//
// Lock order: latch before lists.mu. Eviction, which starts from a list, takes
// the latch by TryLock and passes over what it does not get.
type lists struct {
	mu        sync.Mutex
	small     list // new ones: a tenth of the clean frames
	main      list // those that were used again
	inPlace   list // originals that the data file still holds
	originals list // originals whose frame is their only image
	ghost     ghost
}

// list is a doubly linked list of versions, newest at the head.
type list struct {
	kind       queue
	head, tail *Version
	n          int64
}

func (l *list) push(v *Version) {
	v.queue, v.prev, v.next = l.kind, nil, l.head
	if l.head != nil {
		l.head.prev = v
	} else {
		l.tail = v
	}
	l.head = v
	l.n++
}

func (l *list) remove(v *Version) {
	if v.prev != nil {
		v.prev.next = v.next
	} else {
		l.head = v.next
	}
	if v.next != nil {
		v.next.prev = v.prev
	} else {
		l.tail = v.prev
	}
	v.queue, v.prev, v.next = queueNone, nil, nil
	l.n--
}

// ghost remembers the blocks that left the small list not long ago. It is a
// direct-mapped table: a collision forgets the older of the two.
type ghost struct {
	slots []ghostSlot
	clock uint32
}

type ghostSlot struct{ tag, at uint32 }

func (g *ghost) slot(id block.ID) (*ghostSlot, uint32) {
	h := hash(id)
	return &g.slots[h>>20&uint64(len(g.slots)-1)], uint32(h>>40) | 1
}

func (g *ghost) add(id block.ID) {
	g.clock++
	s, tag := g.slot(id)
	*s = ghostSlot{tag, g.clock}
}

func (g *ghost) take(id block.ID) bool {
	s, tag := g.slot(id)
	if s.tag != tag || g.clock-s.at > uint32(len(g.slots)) {
		return false
	}
	s.tag = 0
	return true
}

func (q *lists) init(framesMax int64) {
	q.small.kind, q.main.kind = queueSmall, queueMain
	q.inPlace.kind, q.originals.kind = queueInPlace, queueOriginals
	n := 64
	for int64(n) < framesMax {
		n *= 2
	}
	q.ghost.slots = make([]ghostSlot, n)
}

// remember puts a head that became clean where eviction will find it.
func (q *lists) remember(v *Version) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if v.queue != queueNone {
		return
	}
	if q.ghost.take(v.ID) {
		q.main.push(v)
	} else {
		q.small.push(v)
	}
}

// again puts a head that was changed and cleaned among those used again.
func (q *lists) again(v *Version) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if v.queue == queueNone {
		q.main.push(v)
	}
}

func (q *lists) addOriginal(v *Version) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetLocked(v)
	if v.InPlace {
		q.inPlace.push(v)
	} else {
		q.originals.push(v)
	}
}

// forget takes v out of whatever list it is in.
func (q *lists) forget(v *Version) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetLocked(v)
}

func (q *lists) forgetLocked(v *Version) {
	switch v.queue {
	case queueSmall:
		q.small.remove(v)
	case queueMain:
		q.main.remove(v)
	case queueInPlace:
		q.inPlace.remove(v)
	case queueOriginals:
		q.originals.remove(v)
	}
}

// next is the version that S3-FIFO would have leave, and its list.
func (q *lists) next() (*Version, *list) {
	if q.small.n > 0 && (q.small.n*10 >= q.small.n+q.main.n || q.main.n == 0) {
		return q.small.tail, &q.small
	}
	return q.main.tail, &q.main
}

// evict takes the frame of the clean head that is least worth keeping. It
// passes over pinned and latched ones, and gives up after looking at a
// bounded number.
func (c *Cache) evict() bool {
	q := &c.lists
	q.mu.Lock()
	defer q.mu.Unlock()
	for range 4 * (freqMax + 1) * 16 {
		v, from := q.next()
		if v == nil {
			return false
		}
		l := c.latchOf(v.ID)
		from.remove(v)
		if !l.mu.TryLock() {
			from.push(v)
			continue
		}
		gone := c.evictOne(l, v, from)
		l.mu.Unlock()
		if gone {
			return true
		}
	}
	return false
}

// evictOne decides about v, which was just taken out of from.
func (c *Cache) evictOne(l *Latch, v *Version, from *list) bool {
	q := &c.lists
	switch {
	case v.Role != RoleHead || v.Dirty || !v.InPlace || v.data == nil:
		return false // not a clean head any more: its list is no longer this one
	case v.Pinned() || v.Loading:
		q.main.push(v) // in use; left in the small list, many such would hide the main one
		return false
	case from == &q.small && v.freq.Load() > 0:
		v.freq.Store(0)
		q.main.push(v)
		return false
	case from == &q.main && v.freq.Load() > 0:
		v.freq.Add(^uint32(0))
		q.main.push(v)
		return false
	}
	c.checkInPlace(v)
	if from == &q.small {
		q.ghost.add(v.ID)
	}
	l.Remove(v)
	c.killLocked(v)
	c.evicted.Add(1)
	return true
}

// dropInPlace takes the frame of an original that the data file still holds
// (L4): the cheapest way to make room, no I/O.
func (c *Cache) dropInPlace() bool {
	q := &c.lists
	q.mu.Lock()
	defer q.mu.Unlock()
	v := q.inPlace.tail
	for range 64 {
		if v == nil {
			return false
		}
		prev := v.prev
		l := c.latchOf(v.ID)
		if l.mu.TryLock() {
			done := v.Role == RoleOriginal && v.InPlace && v.data != nil && !v.Pinned() && !v.Loading
			if done {
				c.checkInPlace(v)
				q.inPlace.remove(v)
				c.dropFrame(v)
			}
			l.Unlock()
			if done {
				return true
			}
		}
		v = prev
	}
	return false
}
