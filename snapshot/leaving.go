package snapshot

import "sync"

// leaving is originals that nobody wants any more and that somebody is about to give
// back, without mu: he takes latches for it. No snapshot holds them, so that nobody's end
// would free them; who needs room has to wait for him instead (R13). He waits for nobody
// but for latches, and those are held for moments only.
//
// All of it is under mu.
type leaving struct {
	lists int    // sublists of points that ended, and slices of originals out of the index
	gone  uint64 // how many of them were given back
	moved sync.Cond
}

// begin counts a list that is about to be given back; left ends it.
func (l *leaving) begin() { l.lists++ }

// left says that one is gone. mu is not held.
func (s *Set) left() {
	s.mu.Lock()
	s.leaving.lists--
	s.leaving.gone++
	s.leaving.moved.Broadcast()
	s.mu.Unlock()
}

// wait returns when something that was leaving is gone. It lets go of mu meanwhile.
func (l *leaving) wait() {
	for gone := l.gone; l.lists > 0 && l.gone == gone; {
		l.moved.Wait()
	}
}
