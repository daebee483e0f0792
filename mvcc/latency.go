package mvcc

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// latencyEvery is how many commits there are to one whose time is taken: two
// looks at the clock among so many are nothing. It is a prime, so that what comes
// every few commits is met as often as everything else.
const latencyEvery = 13

// latencyBuckets is how many buckets there are: two for each power of two from
// 8 µs to 34 s, and one for what took longer.
const latencyBuckets = 2*22 + 2

// CommitLatency is how long commits took, from the call of Commit until they were
// acknowledged: waiting for the disk is in it, waiting for another writer is not. It
// counts since the store was opened; of two of them Since makes what came between.
type CommitLatency struct {
	Counts []uint64      // per bucket; see LatencyBound
	Sum    time.Duration // of those that were counted
	Max    time.Duration // since the store was opened
	Every  int           // one in so many commits is counted
}

// LatencyBound is the longest time in bucket i; negative: there is no bound.
func LatencyBound(i int) time.Duration {
	if i >= latencyBuckets-1 {
		return -1
	}
	step := time.Duration(8)
	if i%2 == 1 {
		step = 12
	}
	return step << (i / 2) * time.Microsecond
}

// latencyBucket is the bucket of a length of time.
func latencyBucket(d time.Duration) int {
	n := uint64(max(d+time.Microsecond-1, 0)) / 1000 // in µs, rounded up
	if n <= 8 {
		return 0
	}
	octave := bits.Len64((n-1)>>3) - 1
	i := 2*octave + 1
	if n > 12<<octave {
		i++
	}
	return min(i, latencyBuckets-1)
}

// Count is how many commits were counted.
func (c *CommitLatency) Count() (n uint64) {
	for _, b := range c.Counts {
		n += b
	}
	return n
}

// Since is what was counted since earlier, of the same store; Max stays what it is.
// What does not fit to that, because the store was opened again, counts whole.
func (c CommitLatency) Since(earlier CommitLatency) CommitLatency {
	d := CommitLatency{Counts: make([]uint64, len(c.Counts)), Sum: c.Sum - earlier.Sum, Max: c.Max, Every: c.Every}
	for i, n := range c.Counts {
		if i < len(earlier.Counts) {
			if n < earlier.Counts[i] {
				return c
			}
			n -= earlier.Counts[i]
		}
		d.Counts[i] = n
	}
	return d
}

// Quantile is the time that a share of all, 0 to 1, did not exceed: the bound of the
// bucket that it falls into, so up to a half too much. 0 if nothing was counted.
func (c *CommitLatency) Quantile(share float64) time.Duration {
	n := c.Count()
	if n == 0 {
		return 0
	}
	due := min(uint64(share*float64(n)), n-1)
	for i, n := range c.Counts {
		if n > due {
			if bound := LatencyBound(i); bound >= 0 {
				return min(bound, c.Max)
			}
			return c.Max
		}
		due -= n
	}
	return 0
}

// commitLatency counts. Any goroutine may.
type commitLatency struct {
	counts [latencyBuckets]atomic.Uint64
	sum    atomic.Int64
	max    atomic.Int64
}

// begin is when the commit that becomes lsn began, if its time is to be taken.
func (c *commitLatency) begin(lsn block.LSN) (t time.Time) {
	if lsn%latencyEvery == 0 {
		t = time.Now()
	}
	return t
}

// end counts a commit that was acknowledged and whose time is taken.
func (c *commitLatency) end(began time.Time) {
	took := time.Since(began)
	c.counts[latencyBucket(took)].Add(1)
	c.sum.Add(int64(took))
	for {
		m := c.max.Load()
		if int64(took) <= m || c.max.CompareAndSwap(m, int64(took)) {
			return
		}
	}
}

func (c *commitLatency) read() CommitLatency {
	l := CommitLatency{Counts: make([]uint64, latencyBuckets), Every: latencyEvery}
	for i := range c.counts {
		l.Counts[i] = c.counts[i].Load()
	}
	l.Sum, l.Max = time.Duration(c.sum.Load()), time.Duration(c.max.Load())
	return l
}
