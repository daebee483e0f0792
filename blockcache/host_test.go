package blockcache

import (
	"errors"
	"testing"
	"time"
)

// hostSays is a host whose memory a test sets.
type hostSays struct {
	HostMemory
	err error
}

func (h *hostSays) ask() (HostMemory, error) { return h.HostMemory, h.err }

// TestOverflow_NeverMoreThanTheHostGives: the least of what is configured and what the
// host can give beside its reserve and the part of MaxRAM that is still to be touched,
// asked anew while it runs; without bounds only where that was asked for.
func TestOverflow_NeverMoreThanTheHostGives(t *testing.T) {
	const frames = 200
	with := func(most, reserve int64, h *hostSays) *Cache {
		c := open(t, frames, 0, func(o *Options) {
			o.OverflowBytesMax, o.HostReserve, o.Host = most, reserve, h.ask
		})
		t.Cleanup(func() { closeEmpty(t, c) })
		return c
	}
	granted := func(c *Cache) int64 { return c.frames.overflow.Load() }
	next := time.Now()
	again := func(c *Cache) int64 {
		next = next.Add(hostEvery)
		c.Watch(next)
		return granted(c)
	}
	h := &hostSays{HostMemory: HostMemory{1 << 40, 1 << 39}}
	c := with(50*size, 0, h)
	if got := granted(c); got != 50 {
		t.Fatalf("of a large host %d frames, configured are 50", got)
	}
	untouched := c.frames.limit * size
	for _, can := range []struct{ available, want int64 }{
		{untouched + 100*size, 50}, {untouched + 30*size, 30}, {untouched, 0}, {0, 0}, {untouched + 7*size + 1, 7}, {1 << 39, 50},
	} {
		h.Available = can.available
		if got := again(c); got != can.want {
			t.Errorf("the host has %d frames beside MaxRAM: granted %d, want %d", (can.available-untouched)/size, got, can.want)
		}
	}
	h.Available = 0
	c.Watch(next.Add(hostEvery / 2))
	if got := granted(c); got != 50 {
		t.Errorf("granted %d frames by what the host was not asked yet", got)
	}
	h.err = errors.ErrUnsupported
	if got := again(c); got != 50 {
		t.Errorf("of a host that says nothing %d frames, configured are 50", got)
	}
	h.err = nil
	c = with(1<<40, 20*size, h)
	h.Available = c.frames.limit*size + 60*size
	if got := again(c); got != 40 {
		t.Errorf("with 20 frames of reserve %d of 60", got)
	}
	h.Available = 0
	c = with(OverflowUnbounded, 20*size, h)
	if got := again(c); got < 1<<40/size {
		t.Errorf("without bounds %d frames", got)
	}
	if got := granted(with(0, 0, h)); got != 0 {
		t.Errorf("without overflow %d frames", got)
	}
	if l := c.Levels()[2]; l.Name != LevelOverflow {
		t.Fatal(l.Name)
	}
}

// TestOverflow_NearTheReserveTheHostIsAskedEachTime: what others take is seen at the next
// look, not hostEvery later.
func TestOverflow_NearTheReserveTheHostIsAskedEachTime(t *testing.T) {
	const reserve = 1000 * size
	h := &hostSays{HostMemory: HostMemory{1 << 40, 1 << 39}}
	c := open(t, 200, 0, func(o *Options) { o.OverflowBytesMax, o.HostReserve, o.Host = 50*size, reserve, h.ask })
	defer closeEmpty(t, c)
	now := time.Now().Add(hostEvery)
	h.Available = 2*reserve - 1
	c.Watch(now)
	h.Available = reserve + c.frames.limit*size + 7*size
	c.Watch(now.Add(1))
	if got := c.frames.overflow.Load(); got != 7 {
		t.Errorf("granted %d frames, the host had 7 beside its reserve", got)
	}
	h.Available = 1 << 39
	c.Watch(now.Add(2))
	h.Available = 0
	c.Watch(now.Add(3))
	if got := c.frames.overflow.Load(); got != 50 {
		t.Errorf("far from the reserve it was asked at once: granted %d", got)
	}
}

// TestOverflow_InUseIsNotCountedTwice: what overflow has is no longer available, and
// still its own.
func TestOverflow_InUseIsNotCountedTwice(t *testing.T) {
	const frames = 200
	h := &hostSays{HostMemory: HostMemory{1 << 40, 1 << 39}}
	c := open(t, frames, 0, func(o *Options) { o.OverflowBytesMax, o.Host = 1<<40, h.ask })
	var taken [][]byte
	for range c.frames.limit + 20 {
		d, _, err := c.take(20, 0)
		if err != nil || d == nil {
			t.Fatalf("no frame: %v", err)
		}
		taken = append(taken, d)
	}
	h.Available = 5 * size
	c.Watch(time.Now().Add(time.Hour))
	if got := c.frames.overflow.Load(); got != 25 {
		t.Errorf("20 frames in use and room for 5: granted %d", got)
	}
	for _, d := range taken {
		c.GiveFrame(d)
	}
	closeEmpty(t, c)
}
