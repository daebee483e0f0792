package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/spill"
)

func TestMain(m *testing.M) {
	if beChild(context.Background()) {
		return
	}
	os.Exit(m.Run())
}

// TestL9_BackupWithinMemoryGroup: a process that may take MaxRAM, the cap of overflow
// and 64 MiB, and has next to no temporary storage, takes a whole backup of a database
// of 16 times MaxRAM while writers change it all over; nothing comes back from swap, no commit
// fails, nobody is ended by the kernel.
func TestL9_BackupWithinMemoryGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	t.Parallel()
	s := memorySizes{ram: 4 << 20, overflow: 8 << 20, times: 17, before: time.Second, valueBytes: 850, writers: 4, logHold: 32 << 20, sink: 40_000_000}
	o, err := limited(t.Context(), fastDir(t), s, redoBelow)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		t.Skipf("cannot limit a process: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	o.print(&report{w: &b}, s, redoBelow, false)
	t.Logf("\n%s", b.String())
	if o.killed != 0 || o.SwapIn != 0 || o.Failed != "" || o.Error != "" || o.restored != "" || o.databaseBytes < 16*s.ram {
		t.Error("it is not as it should be")
	}
	if o.Plan != forecast.NothingToSay && !o.PlanShort { // after so short a time
		t.Errorf("the plan promised %s", o.Plan)
	}
}

// diskDir is a new folder on a disk, or skips the test: files that are memory take no temporary
// storage, and count as what a group of bounded memory has.
func diskDir(t *testing.T) string {
	dir := t.TempDir()
	s, err := spill.Open(spill.Options{BlockSize: 4096, Dirs: []spill.Dir{{Path: dir, BytesMax: 1 << 20}}})
	if errors.Is(err, spill.ErrMemoryFS) {
		t.Skip("files are memory here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return dir
}

// syncedBytesMin is how many bytes a second a disk has to take, synced every 2 MiB, for
// tests of what happens in real time: what they have written and wait for comes to tens of
// megabytes.
const syncedBytesMin = 12_000_000

// fastDir is diskDir, or skips the test where the disk is so slow, now, that all the time
// of the test would be the disk's.
func fastDir(t *testing.T) string {
	dir := diskDir(t)
	f, err := os.Create(filepath.Join(dir, "measured"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	piece, began := make([]byte, 2<<20), time.Now()
	const pieces = 8
	for i := range pieces {
		for at := range piece {
			piece[at] = byte(at*7 + i)
		}
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if rate := pieces * float64(len(piece)) / time.Since(began).Seconds(); rate < syncedBytesMin {
		t.Skipf("SKIPPED: the disk takes %.1f MB/s, synced every 2 MiB, and the test is about one of %.0f or more", rate/1e6, syncedBytesMin/1e6)
	}
	return dir
}

// TestGuards_ForReal: each guard ends its backup on real files, in real time: bytes
// held, temporary storage that fills up, a control group that runs out of memory, a
// host that stalls, time, a sink that becomes slow.
func TestGuards_ForReal(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	t.Parallel()
	for _, only := range [][]mvcc.Guard{
		{mvcc.GuardHeld, mvcc.GuardTempShare, mvcc.GuardHostMemory, mvcc.GuardTime}, {mvcc.GuardPressure, mvcc.GuardRate},
	} {
		t.Run(fmt.Sprint(only), func(t *testing.T) {
			t.Parallel()
			list, err := guardReactions(t.Context(), fastDir(t), guardsTask{Records: 30_000, Only: only})
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != len(only) {
				t.Errorf("%d guards of %d", len(list), len(only))
			}
			for _, r := range list {
				if r.Skipped != "" {
					t.Logf("%s: SKIPPED: %s", r.Guard, r.Skipped)
					continue
				}
				t.Logf("%s: %v after its reading", r.Guard, r.Took)
				if r.Wrong != "" || r.Took > 20*time.Second {
					t.Errorf("%s: %s", r.Guard, r.Wrong)
				}
			}
		})
	}
}

// TestStallIsMeasured: snapshots end in each way, and what they held is counted.
func TestStallIsMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	t.Parallel()
	var b bytes.Buffer
	ctx := t.Context()
	sizes := stallSizes{originals: 5000, ram: 16 << 20, around: 200 * time.Millisecond, edge: 100 * time.Millisecond, atOnce: 64}
	if err := errors.Join(stallPart(ctx, &report{w: &b}, diskDir(t), sizes), ctx.Err()); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", b.String())
	if n := bytes.Count(b.Bytes(), []byte("wanted >= 4500: met")); n != 3 {
		t.Errorf("%d snapshots of three held what they should", n)
	}
}

// TestMedianMore: pieces of commits are compared with the same pieces, so that how they
// differ from each other does not count.
func TestMedianMore(t *testing.T) {
	for _, c := range []struct {
		was, is []float64
		want    float64
	}{
		{[]float64{100, 1000, 10}, []float64{101, 1010, 20}, 1},
		{[]float64{100, 200}, []float64{102, 208}, 3},
		{[]float64{0, 0, 5}, []float64{0, 0, 5}, 0},
	} {
		if got := medianMore([2][]float64{c.was, c.is}); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%v, were %v: %g, want %g", c.is, c.was, got, c.want)
		}
	}
}
