package snapshot

import (
	"slices"
	"sync"

	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/yield"
)

// How originals leave (R11, R13).
//
// A snapshot that ends, a backup that falls forward or is narrowed, stops wanting under
// mu. What then nobody wants has to go, and there may be a million of them. That is a
// departure. It begins in the same hold of mu, so that there is no moment at which
// originals are wanted by nobody and are not known to be leaving:
//
//	wanted --end--> to go --slice--> under way --latch by latch--> gone
//	        (mu)            (mu)                  (no mu)
//
//	to go      in the index, in a sublist of the departure or in its backup's queue
//	under way  out of the index; one goroutine has it on its list, and gives its frame,
//	           slot and entry back under the latch of its block
//
// A departure is over, and leaves Set.leaving, when nothing is to go and nothing is under
// way. Whoever takes a slice takes it off under mu, so each original is one goroutine's;
// mu is held for a slice, a latch for one original, and neither for longer.
//
// Who lets go:
//
//	who closes or releases a snapshot, or closes the set   all of it, before he returns
//	who needs room (BreakVictim), and whoever ends a       one slice; then the goroutine
//	snapshot beside other duties (cleaner, ticker)         of the set is at the rest
//	who needs room meanwhile                               one slice more, and ends nobody;
//	                                                       if all is under way, he waits
//	                                                       until some of it is gone
//	who closes a backup that others ended                  all that is not the goroutine's,
//	                                                       and he waits until it is over
//
// The goroutine is there while something is left for it. Everybody else waits only while
// all is under way or the goroutine's: for those who wait for latches, which are held for
// moments, and for nothing else. Who waits holds no latch and has nothing under way, so
// nobody waits for him. In particular nobody waits for who tells.
//
// An end is told when what its teller lets go of himself is gone: of a snapshot that was
// released all, of a victim the first slice. That a backup fell forward is told before:
// its owner fixes F. Who is told may ask for room himself. What a backup holds goes down
// slice by slice until its departure is over; so long an ended one keeps its place, and
// its numbers are not final.

// releaseSlice is how many originals are let go under one hold of the lock.
const releaseSlice = 128

// leaving is the departures of a set. All of it is under mu.
type leaving struct {
	list   []*departure // that are not over, in the order in which they began
	gone   uint64       // slices that are gone
	moved  sync.Cond    // some more is gone
	needed int          // those who need room and wait; for tests, which wait for them
	runs   bool         // the goroutine
	closed bool         // there is none any more
	done   sync.WaitGroup
}

// departure is the originals that one end leaves to nobody. All of it is under mu.
type departure struct {
	lists  []*sublist // of points that ended: what is left of them is to go
	backup *Backup    // or nil: what is left in its queue is
	under  int        // slices that are under way
	behind bool       // it is the goroutine's
	over   bool
}

// left reports whether anything is to go that nobody has taken. mu is held.
func (d *departure) left() bool {
	return len(d.lists) > 0 || d.backup != nil && d.backup.queue.Len() > 0
}

// begin counts a departure in. mu is held.
func (l *leaving) begin(d *departure) { l.list = append(l.list, d) }

// depart begins the departure of sublists that no reader wants; nil if there are none. mu
// is held.
func (s *Set) depart(free []*sublist) *departure {
	if len(free) == 0 {
		return nil
	}
	d := &departure{lists: free}
	s.leaving.begin(d)
	return d
}

// depart begins the departure of what the backup holds, which wants nothing any more. nil
// if it holds nothing, or that is leaving already. mu is held.
func (b *Backup) depart() *departure {
	if b.leaving != nil || b.queue.Len() == 0 {
		b.vacate()
		return nil
	}
	b.leaving = &departure{backup: b}
	b.set.leaving.begin(b.leaving)
	return b.leaving
}

// vacate gives the place of a backup that ended to others, if it holds nothing: until then
// what it holds would count as another's. mu is held.
func (b *Backup) vacate() {
	if b.ended() && b.queue.Len() == 0 && b.set.backups[b.bit] == b {
		b.set.backups[b.bit] = nil
	}
}

// take takes a slice of a departure out of the index. What is still wanted by others
// stays; the rest is for the caller to drop. mu is held.
func (s *Set) take(d *departure, drop []blockcache.Handle) (taken int, _ []blockcache.Handle) {
	for ; taken < s.slice && d.left(); taken++ {
		var h blockcache.Handle
		var gone bool
		if d.backup != nil {
			h, _ = d.backup.queue.Min()
			gone = d.backup.unwant(h)
		} else {
			h = d.first(s)
			gone = s.unindex(h)
		}
		if gone {
			drop = append(drop, h)
		}
	}
	if d.backup != nil {
		d.backup.vacate()
	}
	s.account()
	return taken, drop
}

// first takes the first original off the sublists. mu is held.
func (d *departure) first(s *Set) blockcache.Handle {
	sub := d.lists[0]
	h := sub.first
	o := s.at(h)
	sub.first, o.Next = o.Next, 0
	if sub.first == 0 {
		d.lists = d.lists[1:]
	}
	s.change(o, func() { o.Flags &^= isInList })
	return h
}

// letSomeGo lets go of a slice, if one is left, and returns of how many originals. The
// caller holds mu, which is let go meanwhile, and no latch.
func (s *Set) letSomeGo(d *departure) int {
	if !d.left() {
		return 0
	}
	var list [releaseSlice]blockcache.Handle
	n, drop := s.take(d, list[:0])
	d.under++
	s.mu.Unlock()
	yield.At("originals unindexed, not dropped")
	s.drop(drop)
	s.mu.Lock()
	s.leaving.ended(d)
	return n
}

// ended ends a slice, and with the last one the departure. mu is held.
func (l *leaving) ended(d *departure) {
	d.under--
	l.gone++
	if d.under == 0 && !d.left() {
		d.over = true
		l.list = slices.DeleteFunc(l.list, func(other *departure) bool { return other == d })
		if d.backup != nil {
			d.backup.leaving = nil
		}
	}
	l.moved.Broadcast()
}

// letGo lets go of a departure, or nil, unless the goroutine is at it, and returns when it
// is over.
func (s *Set) letGo(d *departure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d != nil && !d.over {
		if d.left() && !d.behind {
			s.letSomeGo(d)
		} else {
			s.leaving.moved.Wait()
		}
	}
	s.checkLeft()
}

// makeRoom lets go of one slice of what is leaving, or waits until some of what is under
// way is gone. The caller holds mu, which is let go meanwhile, and no latch.
func (s *Set) makeRoom() {
	l := &s.leaving
	for _, d := range l.list {
		if s.letSomeGo(d) > 0 {
			return
		}
	}
	l.needed++
	for gone := l.gone; len(l.list) > 0 && l.gone == gone; {
		l.moved.Wait()
	}
	l.needed--
}

// leaveBehind lets go of one slice of departures; the rest is the goroutine's. Once the
// set is closed there is none, and it is the caller's. He holds no latch.
func (s *Set) leaveBehind(list []*departure) {
	s.mu.Lock()
	n := 0
	for _, d := range list {
		if n < s.slice {
			n += s.letSomeGo(d)
		}
		if d.behind = d.left() && !s.leaving.closed; d.behind && !s.leaving.runs {
			s.leaving.runs = true
			s.leaving.done.Go(s.leave)
		}
	}
	s.mu.Unlock()
	for _, d := range list {
		if !d.behind { // which only this function changes
			s.letGo(d)
		}
	}
}

// leave is the goroutine.
func (s *Set) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		at := slices.IndexFunc(s.leaving.list, func(d *departure) bool { return d.behind && d.left() })
		if at < 0 {
			s.leaving.runs = false
			return
		}
		s.letSomeGo(s.leaving.list[at])
	}
}

// settle returns when nothing is leaving.
func (s *Set) settle() {
	next := func() *departure {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.leaving.list) == 0 {
			return nil
		}
		return s.leaving.list[0]
	}
	for d := next(); d != nil; d = next() {
		s.letGo(d)
	}
}

// Close returns when the set's goroutine has ended: what is left to go then goes by whoever
// ends a snapshot. Those that are open stay so. The cache must not be closed before.
func (s *Set) Close() {
	s.mu.Lock()
	s.leaving.closed = true
	s.mu.Unlock()
	s.leaving.done.Wait()
}
