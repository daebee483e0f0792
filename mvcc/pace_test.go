package mvcc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// rested is how long p rests now.
func rested(ctx context.Context, p *scanPace) time.Duration {
	began := time.Now()
	p.rest(ctx)
	return time.Since(began)
}

func TestScanPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &scanPace{newest: 7}
		check := func(what string, want time.Duration) {
			t.Helper()
			if got := rested(ctx, p); got != want {
				t.Errorf("%s: rests %v, want %v", what, got, want)
			}
		}
		p.read(10*time.Millisecond, 7)
		check("nobody commits", 0)
		p.read(10*time.Millisecond, 8)
		check("someone commits", restShare*10*time.Millisecond)
		p.read(10*time.Millisecond, 8)
		check("between two commits", restShare*10*time.Millisecond)
		time.Sleep(activeFor)
		p.read(10*time.Millisecond, 8)
		check("nobody any more", 0)
		half := restMin/restShare/2 + 1
		p.read(half, 9)
		check("not worth it yet", 0)
		p.read(half, 10)
		check("together it is", 2*restShare*half)
		p.read(time.Hour, 11)
		check("a stuck disk", restMax)
		p.read(time.Second, 12)
		cancel()
		check("cancelled", 0)
	})
}
