package blockcache

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrBudget refuses what MaxRAM has no room for.
var ErrBudget = errors.New("MaxRAM has no room for it")

// What MaxRAM holds beside the frames of versions is overhead: entries, the
// lists and trees that lead to them, buffers. It takes frames away (L9).
//
//	1/2   of MaxRAM may be overhead as far as originals and buffers make it:
//	      beyond that temporary storage counts as full, and buffers are refused
//	1/8   more is kept for the write transaction, so that a small one always
//	      finds room (R7)
//	rest  is for frames, whatever happens
const (
	overheadShare = 2
	writerShare   = 8
	buffersShare  = 4 // of it, at most a quarter of MaxRAM for buffers
)

// budget counts overhead that is not in pages of entries. All in bytes, heap
// bytes twice.
type budget struct {
	ram      int64        // MaxRAM
	heap     atomic.Int64 // what leads to entries
	buffers  atomic.Int64
	promised atomic.Int64 // what the open write transaction may need
}

// overhead is what MaxRAM holds beside frames of versions, or is promised.
func (c *Cache) overhead() int64 {
	b := &c.budget
	return c.entries.live.Load()*EntryBytes + b.heap.Load() + b.buffers.Load() + b.promised.Load()
}

// isCrowded reports whether there is more overhead than originals may make.
func (c *Cache) isCrowded() bool {
	if c.opts.OverflowBytesMax == OverflowUnbounded {
		return c.entries.areScarce()
	}
	return c.overhead()-c.budget.promised.Load() > c.budget.ram/overheadShare || c.entries.areScarce()
}

// Room is how many frames MaxRAM has for versions now: what entries, heap and
// buffers take is not among them.
func (c *Cache) Room() int64 {
	return max(c.frames.limit-c.entries.inPages.Load()-c.frames.lent.Load(), 0)
}

// ChargeHeap counts n bytes of Go heap, doubled by the caller, for what leads to
// entries; fewer if n is negative. Like entries they are never refused.
func (c *Cache) ChargeHeap(n int64) {
	if n != 0 {
		c.budget.heap.Add(n)
		c.frames.lend(n)
	}
}

// Charge asks for n bytes of Go heap for a buffer. They count twice, for the
// collector's slack. ErrBudget if buffers take a quarter of MaxRAM already, or
// all that is no frame a half. Give them back with Uncharge.
func (c *Cache) Charge(n int64) error {
	b := &c.budget
	if sum := b.buffers.Add(2 * n); sum > b.ram/buffersShare || c.isCrowded() || refused("buffer") {
		b.buffers.Add(-2 * n)
		return fmt.Errorf("%w: %d bytes for a buffer", ErrBudget, n)
	}
	c.frames.lend(2 * n)
	return nil
}

// Uncharge gives back what Charge was asked for.
func (c *Cache) Uncharge(n int64) {
	c.budget.buffers.Add(-2 * n)
	c.frames.lend(-2 * n)
}

// Promise asks for n bytes more of entries and what leads to them, which the write
// transaction will need (R7); own are those that it has or was promised already.
// ErrBudget if it alone asks for more than half of MaxRAM; false if
// others have to make room first. Give it back with Unpromise.
func (c *Cache) Promise(n, own int64) (bool, error) {
	b := &c.budget
	if own+n > b.ram/overheadShare {
		return false, fmt.Errorf("%w: %d bytes for the blocks of one transaction", ErrBudget, own+n)
	}
	most := b.ram/overheadShare + b.ram/writerShare
	if b.promised.Add(n); c.overhead() > most && c.opts.OverflowBytesMax != OverflowUnbounded || c.entries.areScarce() || refused("promise") {
		b.promised.Add(-n)
		return false, nil
	}
	return true, nil
}

// Unpromise gives back what Promise granted, because the entries are there now, or
// will not be.
func (c *Cache) Unpromise(n int64) { c.budget.promised.Add(-n) }
