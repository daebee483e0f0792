package latency

import (
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBucketsHoldWhatTheyCount: every time is in a bucket whose upper end is at
// most 1/16 above it, and longer times are never in lower buckets.
func TestBucketsHoldWhatTheyCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d") >> rapid.IntRange(0, 62).Draw(t, "shift"))
		b := bucketOf(d)
		if up := upperOf(b); up < d || up-d > d/16 {
			t.Fatalf("%d is in bucket %d, which ends at %d", d, b, up)
		}
		if d > 0 && bucketOf(d-1) > b {
			t.Fatalf("%d is in a higher bucket than %d", d-1, d)
		}
	})
}

func TestQuantiles(t *testing.T) {
	var h Histogram
	for i := 1; i <= 1000; i++ {
		h.Add(time.Duration(i) * time.Millisecond)
	}
	s := h.Take().Summary()
	near := func(got, want time.Duration) bool { return got >= want && got <= want+want/16+1 }
	if s.Count != 1000 || !near(s.P50, 501*time.Millisecond) || !near(s.P99, 991*time.Millisecond) || s.Max != time.Second {
		t.Fatalf("%+v", s)
	}
	if s := h.Take().Summary(); s != (Summary{}) {
		t.Fatalf("after Take: %+v", s)
	}
}

func TestTakeLosesNothing(t *testing.T) {
	var h Histogram
	var total Counts
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 10000 {
				h.Add(time.Duration(i))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		total.Merge(h.Take())
	}
	if n := total.Summary().Count; n != 40000 {
		t.Fatalf("%d counted of 40000", n)
	}
}
