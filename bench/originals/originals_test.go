package main

import (
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

func mustRun(t *testing.T, l load) (peak, made float64, r result) {
	t.Helper()
	fsys := simfs.New()
	r, err := run("/db", mvcc.Options{FS: fsys, MaxRAM: 128 << 20, CloseWait: -1, Temp: []mvcc.TempDir{}}, l)
	if err != nil {
		t.Fatal(err)
	}
	share := func(n uint64) float64 { return float64(n) / float64(r.blocks) }
	c := &r.cost
	if c.OriginalsPeak < uint64(r.floor) || c.OriginalsMade+c.OriginalsPruned != c.BlocksChanged || c.OriginalsPeak > c.OriginalsMade {
		t.Errorf("%+v: %+v", l, r)
	}
	t.Logf("zipf %v, a %v, file order %v: all %.3f, made %.3f, peak %.3f, floor %.3f", l.zipf, l.perBlock, l.fileOrder,
		share(c.BlocksChanged), share(c.OriginalsMade), share(c.OriginalsPeak), share(uint64(r.floor)))
	return share(c.OriginalsPeak), share(c.OriginalsMade), r
}

// TestL3_PeakOfOriginals: the bounds of the table hold. They are counts: no clock is
// in them.
func TestL3_PeakOfOriginals(t *testing.T) {
	list := []load{{blocks: 4096, perBlock: 0.5}, {blocks: 4096, perBlock: 2}, {blocks: blocksMin, zipf: true, perBlock: 5}}
	if !testing.Short() {
		list = loads(blocksMin, 1)
	}
	for _, l := range list {
		if peak, _, _ := mustRun(t, l); peak > l.most() {
			t.Errorf("%+v: the peak is %.3f, at most %.3f", l, peak, l.most())
		}
	}
}

// TestL3_HotBlocksFirstBeatsFileOrder: fewer originals are made, and where the queue is
// empty before a burst its peak is lower. Where originals always wait, the peak is as
// low as any order could have it.
func TestL3_HotBlocksFirstBeatsFileOrder(t *testing.T) {
	l := load{blocks: 4096, zipf: true, perBlock: 1}
	both := func() (peaks, made [2]float64, r result) {
		for i, file := range []bool{false, true} {
			l.fileOrder = file
			peaks[i], made[i], r = mustRun(t, l)
		}
		return peaks, made, r
	}
	if _, made, _ := both(); made[0] > 0.75*made[1] {
		t.Errorf("originals made: %.3f, in file order %.3f", made[0], made[1])
	}
	l.perBlock, l.burst = 5, 409
	if peaks, made, _ := both(); peaks[0] > 0.85*peaks[1] || made[0] > 0.95*made[1] {
		t.Errorf("in bursts the peak is %.3f and %.3f are made; in file order %.3f and %.3f", peaks[0], made[0], peaks[1], made[1])
	}
	l.burst, l.fileOrder = 0, false
	if peak, _, r := mustRun(t, l); peak > float64(r.floor)/float64(r.blocks)+0.01 {
		t.Errorf("the peak is %.3f, and no order has one below %d blocks", peak, r.floor)
	}
}
