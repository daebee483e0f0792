package blockcache

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/internal/hostmem"
)

// ErrNoMemory means that the operating system gave no memory for a frame
// although the budget allows it.
var ErrNoMemory = errors.New("no memory for a frame")

// descriptorBytes is what the Go heap holds for each frame beside it, charged
// twice for the collector's slack (L9).
const descriptorBytes = 2 * 192

// chunkBytes is a multiple of what the system may map as one large page: frames
// are touched at random, and small pages would cost a walk each. A cache that may have
// fewer frames than that maps what they take: one large page could be more than MaxRAM.
const chunkBytes = 4 << 20

// frames is the off-heap memory of all frames. Memory is mapped in chunks when
// it is first needed, a chunk ahead of that. Frames beyond the limit are overflow: when
// they come back their memory goes to the operating system, all but a little, at once.
type frames struct {
	size int // bytes of a frame

	mu        sync.Mutex
	moved     chan struct{} // closed when a frame came back or may have become evictable
	waiting   bool          // someone has looked at moved
	limit     int64         // frames under MaxRAM
	lent      atomic.Int64  // of the limit: frames whose memory the Go heap has instead
	lentTo    int64         // bytes
	inUse     int64
	inUseMax  int64
	inUseHigh int64    // the most since the watermarks were looked at
	hot       [][]byte // free, with memory behind them
	cold      [][]byte // free, memory given back
	small     bool     // some memory was given back: no large pages any more
	fresh     []byte   // rest of the newest chunk
	next      []byte   // the chunk behind it, if it is ready
	preparing bool     // next is being made ready
	prepared  sync.WaitGroup
	chunks    [][]byte

	overflow atomic.Int64 // frames beyond the limit that originals may have now
}

func (f *frames) init(size int) {
	f.size = size
	f.moved = make(chan struct{})
}

// take returns a frame if fewer than the limit, extra ones and overflow are in use, and
// whether it is one of overflow: a frame may have come free since that was resorted to. A
// nil frame without error means "full".
func (f *frames) take(extra, overflow int64) (d []byte, over bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	beyond := f.inUse + f.lent.Load() - f.limit - extra
	if beyond >= overflow {
		return nil, false, nil
	}
	if d, err = f.carve(); err != nil {
		return nil, false, err
	}
	f.took()
	return d, beyond >= 0, nil
}

func (f *frames) took() {
	f.inUse++
	f.inUseMax = max(f.inUseMax, f.inUse)
	f.inUseHigh = max(f.inUseHigh, f.inUse)
}

// force returns a frame, also beyond the limit.
func (f *frames) force() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.carve()
	if err != nil { // the Go heap ends the process if it has none either
		d = make([]byte, f.size)
	}
	f.took()
	return d
}

// lend gives n bytes of the limit to the Go heap, or takes them back.
func (f *frames) lend(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lentTo += n
	f.lent.Store((f.lentTo + int64(f.size) - 1) / int64(f.size))
	for n > 0 && len(f.hot) > f.hotMax() && f.inUse+f.lent.Load()+int64(len(f.hot)) > f.limit {
		d := f.hot[len(f.hot)-1]
		f.hot = f.hot[:len(f.hot)-1]
		f.discard(d)
	}
	if n < 0 {
		f.progressLocked()
	}
}

func (f *frames) carve() ([]byte, error) {
	for _, list := range []*[][]byte{&f.hot, &f.cold} {
		if n := len(*list); n > 0 {
			d := (*list)[n-1]
			*list = (*list)[:n-1]
			return d, nil
		}
	}
	if len(f.fresh) < f.size {
		if err := f.grow(); err != nil {
			return nil, err
		}
	}
	d := f.fresh[:f.size:f.size]
	f.fresh = f.fresh[f.size:]
	if len(f.fresh) <= f.chunkSize()/2 {
		f.prepare()
	}
	return d, nil
}

// grow puts the next chunk in fresh's place.
func (f *frames) grow() (err error) {
	if f.fresh, f.next = f.next, nil; f.fresh != nil {
		return nil
	}
	if f.fresh, err = f.chunk(f.small); err == nil {
		f.chunks = append(f.chunks, f.fresh)
	}
	return err
}

// chunkSize is how many bytes are mapped at once.
func (f *frames) chunkSize() int {
	most := (f.limit + standingReserve) * int64(f.size)
	return max(int(min(chunkBytes, most)), f.size)
}

func (f *frames) chunk(small bool) ([]byte, error) {
	b, err := hostmem.Map(f.chunkSize())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	if small {
		hostmem.SmallPages(b)
	}
	return b, nil
}

// prepare has the next chunk made ready, unless there is no room for it within what
// frames may have: a commit that is the first to touch memory waits until the system has
// found and cleared it, and in a virtual machine the host does so as well.
func (f *frames) prepare() {
	rest, more := int64(len(f.fresh)/f.size), int64(f.chunkSize()/f.size)
	soon := f.inUse + 1 + f.lent.Load() + rest + more
	if f.preparing || f.next != nil || soon > f.limit+f.overflow.Load() {
		return
	}
	f.preparing = true
	small := f.small
	f.prepared.Go(func() {
		b, err := f.chunk(small)
		if err == nil {
			hostmem.Populate(b)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.preparing = false
		if err != nil {
			return // whoever needs it tries again, and has the error
		}
		if f.small && !small {
			hostmem.SmallPages(b)
		}
		f.next = b
		f.chunks = append(f.chunks, b)
	})
}

// hotBytesMax is how much memory free frames keep while overflow is in use: what is
// evicted there is mostly taken again at once.
const hotBytesMax = 1 << 20

func (f *frames) hotMax() int { return hotBytesMax / f.size }

// give takes a frame back.
func (f *frames) give(d []byte) {
	f.mu.Lock()
	f.inUse--
	if f.inUse+f.lent.Load() >= f.limit && len(f.hot) >= f.hotMax() {
		f.discard(d)
	} else {
		f.hot = append(f.hot, d)
	}
	f.progressLocked()
	f.mu.Unlock()
}

// discard gives the memory of a free frame back to the system, which shall not
// bring it back by making one large page of what is left around it.
func (f *frames) discard(d []byte) {
	if !f.small {
		f.small = true
		for _, chunk := range f.chunks {
			hostmem.SmallPages(chunk)
		}
	}
	_ = hostmem.Discard(d) // the memory stays, then
	f.cold = append(f.cold, d)
}

// spare is how many frames are left under MaxRAM; negative is overflow in use.
func (f *frames) spare() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.limit - f.inUse - f.lent.Load()
}

func (f *frames) close() error {
	f.prepared.Wait() // nobody takes frames any more
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range f.chunks {
		errs = append(errs, hostmem.Unmap(c))
	}
	f.chunks, f.hot, f.cold, f.fresh, f.next = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
