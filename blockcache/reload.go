package blockcache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/spill"
)

// reload holds images of originals that were read back from temporary storage:
// they may be lost at any moment, and cost a disk read each. They are heap
// bytes, charged to frames before they are set (R17): every entry borrows one
// frame's worth of MaxRAM, of which the reload cache gets at most a 32nd.
//
// It is made when the first image is read back: it has a goroutine and counters of its
// own, and a store that is opened to recover and to be closed never needs it.
type reload struct {
	most  int64 // frames
	mu    sync.Mutex
	cache atomic.Pointer[ristretto.Cache[uint64, reloaded]]
	ended bool // guarded by mu
}

type reloaded struct {
	id   block.ID
	lsn  block.LSN
	data []byte
}

func (r *reload) init(c *Cache) {
	r.most = c.frames.limit / 32
	c.frames.limit -= r.most // the charge: taken once, for good
}

// made returns the cache, made if it was not yet; nil if that cannot be, or is no use
// any more.
func (r *reload) made() *ristretto.Cache[uint64, reloaded] {
	if made := r.cache.Load(); made != nil {
		return made
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if made := r.cache.Load(); made != nil || r.ended {
		return made
	}
	made, err := ristretto.NewCache(&ristretto.Config[uint64, reloaded]{
		NumCounters: max(10*r.most, 100),
		MaxCost:     max(r.most/2, 1), // heap bytes count twice (L9)
		BufferItems: 64,
	})
	if err != nil {
		return nil // its settings do not depend on anything that could be wrong; without it reads are slower
	}
	r.cache.Store(made)
	return made
}

func (r *reload) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if made := r.cache.Load(); made != nil {
		made.Close()
	}
}

func (r *reload) forget(s spill.Slot) {
	if made := r.cache.Load(); made != nil {
		made.Del(uint64(s))
	}
}

// ReadSlot returns the image of a version that is in temporary storage. The
// bytes are on the heap and never change. The caller has made sure that the
// slot is not freed meanwhile, or can live with block.ErrCorrupt.
func (c *Cache) ReadSlot(slot spill.Slot, id block.ID, lsn block.LSN) ([]byte, error) {
	kept := c.reload.made()
	if kept != nil {
		if e, ok := kept.Get(uint64(slot)); ok && e.id == id && e.lsn == lsn {
			c.checkImage(id, lsn, e.data)
			return e.data, nil
		}
	}
	d := make([]byte, c.opts.BlockSize)
	if err := c.opts.Spill.Read(slot, id, lsn, d); err != nil {
		return nil, fmt.Errorf("reload block %v@%v: %w", id, lsn, err)
	}
	c.checkImage(id, lsn, d)
	if kept != nil {
		kept.Set(uint64(slot), reloaded{id, lsn, d}, 1)
	}
	return d, nil
}

// ReadSlotInto reads the image of a version from temporary storage into dst.
func (c *Cache) ReadSlotInto(slot spill.Slot, id block.ID, lsn block.LSN, dst []byte) error {
	if err := c.opts.Spill.Read(slot, id, lsn, dst); err != nil {
		return fmt.Errorf("reload block %v@%v: %w", id, lsn, err)
	}
	c.checkImage(id, lsn, dst)
	return nil
}
