package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/bench"
)

// TestMain lets the test program stand in for this one when a plan starts it.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == taskArg {
		if err := run(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCompareComparesAndWritesResults(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "results.json")
	args := []string{"compare", "--quick", "--records", "2000", "--rows", "2,4", "--out", out, "--dir", dir, "--maxram", "16777216"}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 7 || len(report.Runs) != 8 {
		t.Errorf("%d rows of %d runs, want 7 of 8", len(report.Rows), len(report.Runs))
	}
	for _, r := range report.Rows {
		counted := strings.HasPrefix(r.ID, "5") // by the system, if it can
		if r.Theirs == nil || r.Value <= 0 && !counted {
			t.Errorf("row %+v", r)
		}
	}
	if report.Machine.Go == "" || report.Commit == "" {
		t.Errorf("machine %+v, commit %q", report.Machine, report.Commit)
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	for _, args := range [][]string{nil, {"odd"}, {"compare", "odd"}, {"compare", "--rows", "x"}, {"compare", "--records", "-1"}, {"compare", "--odd"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

// TestEveryMeasurementMeasuresBolt does what the table needs of the rival.
func TestEveryMeasurementMeasuresBolt(t *testing.T) {
	const records = 2000
	task := bench.Task{
		Engine: "bbolt", Dir: t.TempDir(), Records: records, ValueBytes: 50, Readers: 2, Churn: 50,
		Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond,
		Load: bench.Load{Records: records, ValueBytes: 50, Writers: 2, UpdatesPerTx: 10, Batch: true},
	}
	for _, measure := range []string{"load", "commits", "reads", "scans", "readers", "idle-backup", "live-backups"} {
		task.Measure, task.Backup.Dir = measure, t.TempDir()
		in, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := bench.Serve(t.Context(), []bench.Engine{bolt{}}, bytes.NewReader(in), &out); err != nil {
			t.Fatal(err)
		}
		var o bench.Outcome
		if err := json.Unmarshal(out.Bytes(), &o); err != nil || o.Error != "" {
			t.Errorf("%s: %v %s", measure, err, o.Error)
		}
	}
}
