package wal

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// Random histories of commits, groups, releases, reopenings, cuts, kills, failed
// writes and syncs, and options that change, against the model.
func TestRandomHistories(t *testing.T) {
	runs := 100
	if raceDetector {
		runs = 20
	} else if *soak {
		runs = 20000
	}
	seed := chance.Seed(t)
	for run := range runs {
		rng := rand.New(rand.NewPCG(seed, uint64(run)))
		r := newRig(t, newTestFS(t)).create()
		for range 60 {
			randomStep(r, rng)
			if r.err != nil && !errors.Is(r.err, syscall.EIO) {
				t.Fatalf("seed %d run %d: %v", seed, run, r.err)
			}
			if r.err != nil || rng.IntN(12) == 0 {
				if r = randomEnd(r, rng); r.err != nil {
					t.Fatalf("seed %d run %d: recovery: %v", seed, run, r.err)
				}
			}
			if rng.IntN(40) == 0 {
				r.fs.Fail(simfs.Fault{
					Ops: simfs.OpSync | simfs.OpWrite | simfs.OpSyncDir, Skip: rng.IntN(5),
					Sync: simfs.SyncFailure(rng.IntN(3)), Short: rng.IntN(2) == 0, Late: rng.IntN(4) == 0,
				})
			}
		}
	}
}

// randomEnd is the end of the power or of the process, and the next opening,
// often with other options.
func randomEnd(r *rig, rng *rand.Rand) *rig {
	if rng.IntN(2) == 0 {
		r = r.after(r.fs.Kill())
	} else {
		r = r.after(r.fs.Crash(rng, simfs.Random))
	}
	if rng.IntN(3) == 0 {
		r.o.SegmentBytes = SegmentBytesMin << rng.IntN(4)
		r.o.LimitBytes = r.o.SegmentBytes * int64(3+rng.IntN(6))
		r.o.BufferBytes = 1 << (10 + rng.IntN(12))
	}
	r.declare = rng.IntN(2) == 0
	r.recover()
	return r
}

func randomStep(r *rig, rng *rand.Rand) {
	size := func() int { return rng.IntN(1 << (4 + rng.IntN(14))) }
	switch rng.IntN(9) {
	case 0, 1, 2:
		r.append(size())
	case 3:
		r.append(size(), size(), size())
	case 4, 5:
		r.commit(size())
	case 6:
		r.sync()
	case 7:
		if r.err == nil && r.acked >= r.redo {
			r.release(r.redo + block.LSN(rng.Uint64N(uint64(r.acked-r.redo)+2)))
		}
	case 8:
		if rng.IntN(3) == 0 {
			r.reopen()
		}
		r.idle()
	}
}
