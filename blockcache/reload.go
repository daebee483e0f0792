package blockcache

import (
	"fmt"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/spill"
)

// reload holds images of originals that were read back from temporary storage:
// they may be lost at any moment, and cost a disk read each. They are heap
// bytes, charged to frames before they are set (R17): every entry borrows one
// frame's worth of MaxRAM, of which the reload cache gets at most a 32nd.
type reload struct {
	cache *ristretto.Cache[uint64, reloaded]
}

type reloaded struct {
	id   block.ID
	lsn  block.LSN
	data []byte
}

func (r *reload) init(c *Cache) error {
	most := c.frames.limit / 32
	c.frames.limit -= most // the charge: taken once, for good
	var err error
	r.cache, err = ristretto.NewCache(&ristretto.Config[uint64, reloaded]{
		NumCounters: max(10*most, 100),
		MaxCost:     max(most/2, 1), // heap bytes count twice (L9)
		BufferItems: 64,
	})
	if err != nil {
		return fmt.Errorf("make the cache of reloaded originals: %w", err)
	}
	return nil
}

func (r *reload) close() { r.cache.Close() }

func (r *reload) forget(s spill.Slot) { r.cache.Del(uint64(s)) }

// ReadSlot returns the image of a version that is in temporary storage. The
// bytes are on the heap and never change. The caller has made sure that the
// slot is not freed meanwhile, or can live with block.ErrCorrupt.
func (c *Cache) ReadSlot(slot spill.Slot, id block.ID, lsn block.LSN) ([]byte, error) {
	if e, ok := c.reload.cache.Get(uint64(slot)); ok && e.id == id && e.lsn == lsn {
		return e.data, nil
	}
	d := make([]byte, c.opts.BlockSize)
	if err := c.opts.Spill.Read(slot, id, lsn, d); err != nil {
		return nil, fmt.Errorf("reload block %v@%v: %w", id, lsn, err)
	}
	c.reload.cache.Set(uint64(slot), reloaded{id, lsn, d}, 1)
	return d, nil
}

// ReadSlotInto reads the image of a version from temporary storage into dst.
func (c *Cache) ReadSlotInto(slot spill.Slot, id block.ID, lsn block.LSN, dst []byte) error {
	if err := c.opts.Spill.Read(slot, id, lsn, dst); err != nil {
		return fmt.Errorf("reload block %v@%v: %w", id, lsn, err)
	}
	return nil
}
