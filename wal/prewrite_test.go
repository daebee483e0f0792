package wal

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// A log whose syncs are large does not write its new segments twice; one whose
// syncs are small spares them the change of metadata.
func TestPrewrite_OnlyForSmallSyncs(t *testing.T) {
	for _, test := range []struct {
		body    int
		perSync int
		twice   bool
	}{{20000, 1, true}, {30000, 4, false}} {
		r := newRig(t, newTestFS(t))
		r.o.SegmentBytes = 1 << 20
		r.o.LimitBytes = 64 << 20
		r.create()
		for r.err == nil && r.l.Stats().Segments < 6 {
			for range test.perSync {
				r.append(test.body)
			}
			r.sync()
		}
		r.must()
		want := int64(3 << 20) // the second is made, and the third may be, before much is known
		if n := r.l.Stats().PrewrittenBytes; (n > want) != test.twice {
			t.Errorf("syncs of %d bytes: %d bytes of 6 segments of %d were prewritten",
				test.body*test.perSync, n, r.o.SegmentBytes)
		}
		r.close()
		r.must()
	}
}

// R5: a segment that was only allocated proves its end as a prewritten one does,
// with the power cut at every event; R7: its space is there.
func TestR5_SegmentsThatWereNeverWritten(t *testing.T) {
	states := 6
	if raceDetector {
		states = 2
	}
	for _, w := range workloads {
		if w.name != "switch" && w.name != "grow" && w.name != "close" {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			for k := 0; ; k++ {
				r := newRig(t, newTestFS(t))
				r.o.prewriteBelow = -1
				r.fs.CutAfter(k)
				w.run(r)
				if r.err == nil {
					break // the cut came after the end
				}
				if !errors.Is(r.err, simfs.ErrPowerCut) {
					t.Fatalf("event %d: %v", k, r.err)
				}
				for i := range states {
					checkCrash(t, r, k, i)
				}
			}
		})
	}
}

// R7: a disk that is full once segments are there refuses none of the commits that were
// reserved; where the file system cannot allocate, zeros are written after all.
func TestR7_AllocatedSegmentsOnAFullDisk(t *testing.T) {
	for _, allocates := range []bool{true, false} {
		r := newRig(t, newTestFS(t))
		r.o.prewriteBelow = -1
		if !allocates {
			r.fs.Fail(simfs.Fault{Ops: simfs.OpAllocate, Err: errors.ErrUnsupported, Sticky: true})
		}
		r.create()
		if err := r.must().l.Reserve(150000); err != nil {
			t.Fatal(err)
		}
		r.fs.SetCapacity(r.fs.UsedBytes())
		r.commit(70000, 80000)
		r.must().crash(simfs.DropAll).recovered()
	}
}
