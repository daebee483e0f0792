package mvcc

import (
	"sync"

	"github.com/spillwaydb/spillway/blockcache"
)

// ErrBudget means that MaxRAM has no room for a buffer: do with less, or wait.
var ErrBudget = blockcache.ErrBudget

// Charge asks MaxRAM for n bytes of Go heap, for a buffer of whoever works on the
// store's blocks: they take frames away until Uncharge (L9). Heap bytes count twice,
// for the collector's slack. ErrBudget if buffers have a quarter of MaxRAM already,
// or if all that is no frame has half of it. Safe for concurrent use.
func (s *Store) Charge(n int64) error { return s.cache.Charge(n) }

// Uncharge gives back what Charge was asked for.
func (s *Store) Uncharge(n int64) { s.cache.Uncharge(n) }

// Charge is that of the store, for the buffers of the backup's taker: Close gives
// back what is left of it. After Close it returns ErrTxDone. Safe for concurrent
// use.
func (b *Backup) Charge(n int64) error {
	b.charges.mu.Lock()
	defer b.charges.mu.Unlock()
	if b.charges.closed {
		return ErrTxDone
	}
	if err := b.s.Charge(n); err != nil {
		return err
	}
	b.charges.bytes += n
	return nil
}

// Uncharge gives back what Charge was asked for. After Close it does nothing.
func (b *Backup) Uncharge(n int64) {
	b.charges.mu.Lock()
	defer b.charges.mu.Unlock()
	if !b.charges.closed {
		b.charges.bytes -= n
		b.s.Uncharge(n)
	}
}

// charges are what a backup's taker has asked for.
type charges struct {
	mu     sync.Mutex
	bytes  int64
	closed bool
}

// close gives everything back. Once.
func (c *charges) close(s *Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	s.Uncharge(c.bytes)
}
