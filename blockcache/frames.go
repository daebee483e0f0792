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
// are touched at random, and small pages would cost a walk each.
const chunkBytes = 4 << 20

// frames is the off-heap memory of all frames. Memory is mapped in chunks when
// it is first needed. Frames beyond the limit are overflow: when they come back
// their memory goes to the operating system at once.
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
	chunks    [][]byte

	overflow atomic.Int64 // frames beyond the limit that originals may have now
}

func (f *frames) init(size int) {
	f.size = size
	f.moved = make(chan struct{})
}

// take returns a frame if fewer than the limit and extra ones are in use. A nil
// frame without error means "full".
func (f *frames) take(extra int64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inUse+f.lent.Load() >= f.limit+extra {
		return nil, nil
	}
	d, err := f.carve()
	if err != nil {
		return nil, err
	}
	f.took()
	return d, nil
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
	for n > 0 && len(f.hot) > hotMax && f.inUse+f.lent.Load()+int64(len(f.hot)) > f.limit {
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
		chunk, err := hostmem.Map(max(chunkBytes, f.size))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoMemory, err)
		}
		if f.small {
			hostmem.SmallPages(chunk)
		}
		f.chunks = append(f.chunks, chunk)
		f.fresh = chunk
	}
	d := f.fresh[:f.size:f.size]
	f.fresh = f.fresh[f.size:]
	return d, nil
}

// hotMax is how many free frames keep their memory while overflow is in use:
// what is evicted there is mostly taken again at once.
const hotMax = 64

// give takes a frame back.
func (f *frames) give(d []byte) {
	f.mu.Lock()
	f.inUse--
	if f.inUse+f.lent.Load() >= f.limit && len(f.hot) >= hotMax {
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
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range f.chunks {
		errs = append(errs, hostmem.Unmap(c))
	}
	f.chunks, f.hot, f.cold, f.fresh = nil, nil, nil, nil
	return errors.Join(errs...)
}
