// Package latency counts how long things took, for people who want to know what
// the slow ones were like.
//
// A Histogram has buckets whose widths grow with what they count, so that a
// quantile is right to 1/16 of itself, from nanoseconds to hours, in 8 KiB. Add
// costs two atomic operations and may be called from any goroutine. Take reads
// the counts and starts anew, for a line every second; a call of Add at the same
// time is counted before or after, never lost. Merge adds what was taken to
// another histogram, for the summary at the end.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// steps per power of two, and how many buckets that makes.
const (
	stepBits = 4
	buckets  = (64 - stepBits + 1) << stepBits
)

// Histogram is safe for concurrent use. The zero value is empty.
type Histogram struct {
	counts [buckets]atomic.Uint64
	max    atomic.Int64 // ns
}

// bucketOf is the bucket of a length of time. The first 16 are exact.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 1<<stepBits {
		return int(n)
	}
	shift := bits.Len64(n) - stepBits - 1
	return shift<<stepBits + int(n>>shift)
}

// upperOf is the longest time in a bucket.
func upperOf(bucket int) time.Duration {
	if bucket < 2<<stepBits {
		return time.Duration(bucket)
	}
	shift := bucket>>stepBits - 1
	step := uint64(bucket&(1<<stepBits-1) | 1<<stepBits)
	return time.Duration((step+1)<<shift - 1)
}

// Add counts one that took d.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	for {
		m := h.max.Load()
		if int64(d) <= m || h.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

// Counts is what a histogram held when it was taken.
type Counts struct {
	counts [buckets]uint64
	max    time.Duration
}

// Take returns the counts and starts anew.
func (h *Histogram) Take() *Counts {
	c := &Counts{max: time.Duration(h.max.Swap(0))}
	for i := range h.counts {
		if h.counts[i].Load() > 0 {
			c.counts[i] = h.counts[i].Swap(0)
		}
	}
	return c
}

// Merge adds what was taken elsewhere.
func (c *Counts) Merge(other *Counts) {
	for i, n := range other.counts {
		c.counts[i] += n
	}
	c.max = max(c.max, other.max)
}

// Summary says how long things took.
type Summary struct {
	Count         uint64
	P50, P99, Max time.Duration
}

// Summary of the counts.
func (c *Counts) Summary() Summary {
	s := Summary{Max: c.max}
	for _, n := range c.counts {
		s.Count += n
	}
	s.P50, s.P99 = c.quantile(0.5, s.Count), c.quantile(0.99, s.Count)
	return s
}

// quantile is the least time that a share of all did not exceed.
func (c *Counts) quantile(share float64, count uint64) time.Duration {
	due := uint64(share * float64(count))
	for i, n := range c.counts {
		if n > due {
			return min(upperOf(i), c.max)
		}
		due -= n
	}
	return c.max
}
