package blockcache

import (
	"math"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/internal/hostmem"
)

// OverflowUnbounded lets originals take RAM without end when temporary storage is full:
// neither a cap nor the host is asked. The machine swaps then, or the process is killed.
const OverflowUnbounded = math.MaxInt64

// HostMemory is what the host says of its memory, in bytes: the most that this process
// may ever use, and what it could take now without swapping.
type HostMemory struct{ Limit, Available int64 }

// AskHost reads HostMemory from the system, at most ten times a second: all stores of a
// process have the same host, and each that is opened asks it twice.
func AskHost() (HostMemory, error) { return asked.ask() }

// askedEvery is how old what AskHost says may be.
const askedEvery = 100 * time.Millisecond

var asked sharedHost

// sharedHost remembers what the system said last. Safe for concurrent use.
type sharedHost struct {
	mu   sync.Mutex
	at   time.Time
	said HostMemory
}

func (s *sharedHost) ask() (HostMemory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.at.IsZero() && now.Sub(s.at) < askedEvery {
		return s.said, nil
	}
	limit, err := hostmem.Limit()
	if err != nil {
		return HostMemory{}, err
	}
	free, err := hostmem.Available()
	if err != nil {
		return HostMemory{limit, free}, err
	}
	s.at, s.said = now, HostMemory{limit, free}
	return s.said, nil
}

// hostEvery is how often the host is asked for its memory: each time, some files
// of the system are read. With less than twice its reserve it is asked whenever someone
// looks, so that the first warning comes before the reserve is touched.
const hostEvery = 400 * time.Millisecond

// hostMemory remembers what the host said last.
type hostMemory struct {
	ask     func() (HostMemory, error)
	reserve int64
	asked   time.Time
	last    HostMemory
	said    bool // else the host said nothing
}

// now is what the host said last, at most hostEvery ago; false if it said nothing.
func (h *hostMemory) now(now time.Time) (HostMemory, bool) {
	if near := h.said && h.last.Available < 2*h.reserve; near || h.asked.IsZero() || now.Sub(h.asked) >= hostEvery {
		var err error
		h.last, err = h.ask()
		h.asked, h.said = now, err == nil
	}
	return h.last, h.said
}

// Host is what the host said of its memory at most hostEvery ago; false if it said
// nothing.
func (c *Cache) Host() (HostMemory, bool) {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	return c.gauges.memory.now(time.Now())
}

// grantOverflow sets how many frames may be in use beyond MaxRAM until the host is asked
// again: what is configured, but no more than the host can give now and still has its
// reserve (so that it does not swap), with the part of MaxRAM that was never touched
// counted as taken. What others take within hostEvery comes out of the reserve.
func (c *Cache) grantOverflow(h HostMemory, said bool) {
	f, size := &c.frames, int64(c.opts.BlockSize)
	most := c.opts.OverflowBytesMax
	if most == OverflowUnbounded || !said || most == 0 {
		f.overflow.Store(min(most, OverflowUnbounded/2) / size)
		return
	}
	f.mu.Lock()
	now, untouched := max(0, f.inUse+f.lent.Load()-f.limit), max(0, f.limit-f.inUseMax)
	f.mu.Unlock()
	room := h.Available - c.opts.HostReserve - untouched*size
	f.overflow.Store(max(0, min(most, now*size+room)) / size)
}

// overflowLimit is how many bytes overflow may have now; of one without bounds, what the
// host has for it.
func (c *Cache) overflowLimit() int64 {
	if h := c.gauges.memory.last; c.opts.OverflowBytesMax == OverflowUnbounded {
		return max(0, h.Available) + c.occupied().Overflow
	}
	return c.frames.overflow.Load() * int64(c.opts.BlockSize)
}

// overflowPeak is the most bytes that overflow had since the last fresh call.
func (c *Cache) overflowPeak(fresh bool) int64 {
	f := &c.frames
	f.mu.Lock()
	defer f.mu.Unlock()
	high := f.inUseHigh + f.lent.Load()
	if fresh {
		f.inUseHigh = f.inUse
	}
	return max(0, high-f.limit-standingReserve) * int64(f.size)
}
