package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/mvcc"
)

func TestMain(m *testing.M) {
	if beChild(context.Background()) {
		return
	}
	os.Exit(m.Run())
}

// TestL9_BackupWithinMemoryGroup: a process that may take MaxRAM, the cap of overflow
// and 64 MiB, and has next to no temporary storage, takes a whole backup of a database
// of 16 times MaxRAM while writers change it all over; nothing is swapped, no commit
// fails, nobody is ended by the kernel.
func TestL9_BackupWithinMemoryGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	s := memorySizes{ram: 8 << 20, overflow: 8 << 20, times: 17, before: 2 * time.Second, valueBytes: 850, writers: 4}
	o, err := limited(t.Context(), t.TempDir(), s, false)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		t.Skipf("cannot limit a process: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	o.print(&report{w: &b}, s, false, false)
	t.Logf("\n%s", b.String())
	if o.killed != 0 || o.Failed != "" || o.Error != "" || o.restored != "" || o.databaseBytes < 16*s.ram {
		t.Error("it is not as it should be")
	}
	if o.Record.Rung != mvcc.RungFallForward && o.Plan != forecast.Fits && o.Plan != forecast.NothingToSay { // after so short a time
		t.Errorf("rung %s, the plan said %s", o.Record.Rung, o.Plan)
	}
}

// TestGuards_ForReal: each guard ends its backup on real files, in real time: bytes
// held, temporary storage that fills up, a control group that runs out of memory, a
// host that stalls, time, a sink that becomes slow.
func TestGuards_ForReal(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	list, err := guardReactions(t.Context(), t.TempDir(), guardsTask{Records: 30_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 6 {
		t.Errorf("%d guards", len(list))
	}
	for _, r := range list {
		t.Logf("%s: %v after its reading; skipped: %q", r.Guard, r.Took, r.Skipped)
		if r.Wrong != "" || r.Took > 20*time.Second {
			t.Errorf("%s: %s", r.Guard, r.Wrong)
		}
	}
}

// TestStallIsMeasured: snapshots end in each way, and what they held is counted.
func TestStallIsMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	var b bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := errors.Join(stallPart(ctx, &report{w: &b}, t.TempDir(), 5000, 16<<20), ctx.Err()); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", b.String())
	if n := bytes.Count(b.Bytes(), []byte("wanted >= 4500: met")); n != 3 {
		t.Errorf("%d snapshots of three held what they should", n)
	}
}

// TestParseCost: the numbers of a line of a benchmark.
func TestParseCost(t *testing.T) {
	c := parseCost("BenchmarkCommitCost/idle-2  200000  12345 ns/op  11000 cpu-ns/op  512 B/op  7 allocs/op\n")
	if (c != costRun{11000, 512, 7}) {
		t.Errorf("%+v", c)
	}
}
