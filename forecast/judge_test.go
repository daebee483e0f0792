package forecast

import (
	"testing"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// R12: what a backup has in hand when it falls forward, and what has changed since, is
// taken again. Here that is all of it: the way takes as long as from the beginning.
func TestR12_WhatHasChangedIsTakenAgain(t *testing.T) {
	in := &Input{Sink: Sink{StoredPerSecond: 1 << 30}}
	h := newHistory(1000, &mvcc.Changes{})
	b := &backup{n: 1000, perSecond: 10}
	for changed, want := range map[float64]time.Duration{0: 50 + 60, 0.5: 50 + 80, 1: 50 + 100} {
		var f Forecast
		in.judge(h, &f, b, &run{fullAt: 50, scanned: 400, changed: changed})
		if f.Duration != want*time.Second {
			t.Errorf("with %v of the blocks changed it takes %v, want %v", changed, f.Duration, want*time.Second)
		}
	}
}
