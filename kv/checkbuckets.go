package kv

import (
	"bytes"
	"context"

	"github.com/spillwaydb/spillway/block"
)

// bucketWindow is how many bucket numbers are looked at in one pass: a bit each.
const bucketWindow = 8 << 20

// buckets proves that no number names two buckets (K7) and that every entry is in
// a bucket that exists (K8), in passes over windows of numbers.
func (c *checker) buckets() error {
	for from := uint64(1); from != 0; {
		w := window{from: from, bits: make([]uint64, min(bucketWindow, c.t.next-from)/64+1)}
		if err := c.fillWindow(&w); err != nil {
			return err
		}
		if err := c.probeWindow(&w); err != nil {
			return err
		}
		from = w.beyond
	}
	return nil
}

// window is a set of bucket numbers from a number on.
type window struct {
	from   uint64
	bits   []uint64
	beyond uint64 // lowest number seen that is behind the window; 0: none
}

// place returns where number is in the window. A number behind it is kept for the
// next one.
func (w *window) place(number uint64) (word int, bit uint64, ok bool) {
	if number < w.from {
		return 0, 0, false
	}
	at := number - w.from
	if at/64 < uint64(len(w.bits)) {
		return int(at / 64), 1 << (at % 64), true
	}
	if w.beyond == 0 || number < w.beyond {
		w.beyond = number
	}
	return 0, 0, false
}

// fillWindow notes every bucket whose number is in the window.
func (c *checker) fillWindow(w *window) error {
	key := []byte{0}
	for {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		next, e, found, err := c.t.nextBucket(key, nil)
		if err != nil || !found {
			return err
		}
		if word, bit, ok := w.place(e.number); ok {
			if w.bits[word]&bit != 0 {
				if err := c.found(block.NoBlock, "bucket %d has two names, one is %x", e.number, next); err != nil {
					return err
				}
			}
			w.bits[word] |= bit
		}
		key = append(next, 0)
	}
}

// probeWindow looks from bucket to bucket for entries of one that was not noted.
func (c *checker) probeWindow(w *window) error {
	var tr trail
	key := appendPrefix(nil, w.from)
	for {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		number, found, err := c.numberAt(&tr, key)
		if err != nil || !found {
			return err
		}
		word, bit, ok := w.place(number)
		if !ok {
			return nil // the next window's
		}
		if w.bits[word]&bit == 0 {
			if err := c.found(tr[0].id, "entries of bucket %d, which does not exist", number); err != nil {
				return err
			}
		}
		key = successor(appendPrefix(key[:0], number))
	}
}

// numberAt returns the bucket of the first entry at or behind key.
func (c *checker) numberAt(tr *trail, key []byte) (number uint64, found bool, err error) {
	b, n, _, err := c.t.seek(tr, key)
	for err == nil && (*tr)[0].slot >= n.count() {
		b.Release()
		more, err := c.t.turn(*tr, 1)
		if err != nil || !more {
			return 0, false, err
		}
		if b, n, err = c.t.fetch((*tr)[0].id, 0); err != nil {
			return 0, false, err
		}
	}
	if err != nil {
		return 0, false, err
	}
	defer b.Release()
	k, ok := n.key((*tr)[0].slot)
	if ok {
		number, _, ok = cutPrefix(k)
	}
	if !ok || bytes.Compare(k, key) < 0 {
		return 0, false, misfit((*tr)[0].id)
	}
	return number, true, nil
}
