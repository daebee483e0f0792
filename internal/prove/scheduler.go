package prove

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// scheduler parks everybody who comes to a place to yield, and tells when nobody moves.
//
// The process has one processor meanwhile. So whoever was let go runs until he comes to
// the next place, or waits, and then those whom he woke, in the order in which he did; and
// that nobody moves is what the scheduler of Go says, which then has nobody to run: it is
// no guess, and costs no time. Who waits in a call of the system counts as moving; of those
// there are as many as there were before the store was opened (who waits for signals).
type scheduler struct {
	mu      sync.Mutex
	on      bool
	fine    bool // operations on the disk are places, too; else only steps of actors are
	threads map[mark]*thread
	parked  []*thread
	logs    map[string]bool // segments that were written

	sample []metrics.Sample
	idle   uint64 // goroutines outside of Go when nothing happens
}

// thread is a goroutine that came to a place, numbered in the order in which they came
// first; actors have the first numbers. Those of one [mark] have one number.
type thread struct {
	number int
	place  string
	at     int64
	goOn   chan struct{}
	rank   float64 // of a chooser's own
}

func (t *thread) String() string { return fmt.Sprintf("%d: %s at %d", t.number, t.place, t.at) }

func newScheduler(idle uint64) *scheduler {
	return &scheduler{threads: map[mark]*thread{}, logs: map[string]bool{}, idle: idle, sample: []metrics.Sample{
		{Name: "/sched/goroutines/runnable:goroutines"}, {Name: "/sched/goroutines/not-in-go:goroutines"},
	}}
}

// outside is how many goroutines are in calls of the system or of C, of those that stay
// there.
func outside() uint64 {
	sample := []metrics.Sample{{Name: "/sched/goroutines/not-in-go:goroutines"}}
	least := ^uint64(0)
	for range 20 {
		runtime.Gosched()
		if metrics.Read(sample); sample[0].Value.Kind() == metrics.KindUint64 {
			least = min(least, sample[0].Value.Uint64())
		}
	}
	return least
}

// mark tells goroutines apart, by where they began; actors, which all begin in one place, by
// how often [actor] calls itself there. It is the same in each run, and cheap.
type mark struct {
	first, second uintptr
	repeated      int
}

// actor runs f as actor number n.
//
//go:noinline
func actor(n int, f func()) {
	if n > 0 {
		actor(n-1, f)
		return
	}
	f()
}

func markOfCaller() (m mark) {
	var pcs [96]uintptr
	n := runtime.Callers(2, pcs[:]) - 1 // the last one is the scheduler's
	if n < 3 {
		return m
	}
	m.first, m.second = pcs[n-1], pcs[n-2]
	for i := n - 2; i >= 0 && pcs[i] == m.second; i-- {
		m.repeated++
	}
	return m
}

// enter numbers the goroutine that calls it.
func (s *scheduler) enter() *thread {
	m := markOfCaller()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.threads[m]
	switch {
	case t == nil:
		t = &thread{number: len(s.threads)}
		s.threads[m] = t
	case slices.Contains(s.parked, t): // another one that began there
		t = &thread{number: t.number}
	}
	return t
}

func (s *scheduler) park(place string, at int64) {
	s.mu.Lock()
	on := s.on
	s.mu.Unlock()
	if !on {
		return
	}
	t := s.enter()
	s.mu.Lock()
	if !s.on {
		s.mu.Unlock()
		return
	}
	t.place, t.at, t.goOn = place, at, make(chan struct{})
	s.parked = append(s.parked, t)
	s.mu.Unlock()
	<-t.goOn
}

// before is the disk's place to yield.
func (s *scheduler) before(ev simfs.Event) {
	if ev.Op == simfs.OpWrite && strings.HasSuffix(ev.File, ".wal") {
		s.mu.Lock()
		s.logs[ev.File] = s.logs[ev.File] || s.on
		s.mu.Unlock()
	}
	if s.fine && ev.Op&(simfs.Events|simfs.OpRead) != 0 {
		s.park(ev.Op.String()+" of "+roleOf(ev.File), ev.Off)
	}
}

// between is a place between operations on the disk.
func (s *scheduler) between(place string) {
	if s.fine {
		s.park(place, 0)
	}
}

// segments is how many segments of the log were written while actors were at work.
func (s *scheduler) segments() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, written := range s.logs {
		if written {
			n++
		}
	}
	return n
}

// turn switches parking on, or off for good, and lets everybody go.
func (s *scheduler) turn(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
	for _, t := range s.parked {
		close(t.goOn)
	}
	s.parked = nil
}

// waiting lists who is parked, by number.
func (s *scheduler) waiting() []*thread {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.parked)
	slices.SortStableFunc(list, func(a, b *thread) int { return cmp.Compare(a.number, b.number) })
	return list
}

func (s *scheduler) release(t *thread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = slices.DeleteFunc(s.parked, func(q *thread) bool { return q == t })
	close(t.goOn)
}

// settle waits until no goroutine of the process moves but this one.
func (s *scheduler) settle() {
	for range 1_000_000 {
		runtime.Gosched()
		metrics.Read(s.sample)
		if s.sample[0].Value.Kind() != metrics.KindUint64 { // the system does not tell
			for range 300 {
				runtime.Gosched()
			}
			return
		}
		if s.sample[0].Value.Uint64() == 0 && s.sample[1].Value.Uint64() <= s.idle {
			return
		}
	}
}
