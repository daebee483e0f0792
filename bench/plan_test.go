package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// perform1 does a task in this process.
func perform1(t *testing.T, task Task) (Outcome, error) {
	t.Helper()
	in, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), []Engine{Spillway{}}, bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	var o Outcome
	if err := json.Unmarshal(out.Bytes(), &o); err != nil {
		t.Fatal(err)
	}
	if o.Error != "" {
		return o, &taskError{o.Error}
	}
	return o, nil
}

// performUntil does a task whose metric is a rate, made anew each time, and has it take
// longer until there is one: on a slow disk a commit may take longer than all of it.
func performUntil(t *testing.T, metric string, task func() Task) {
	t.Helper()
	for times := time.Duration(1); ; times *= 4 {
		one := task()
		one.Duration *= times
		o, err := perform1(t, one)
		if err != nil {
			t.Fatalf("%s: %v", one.Measure, err)
		}
		if metric == "" || o.Metrics[metric] > 0 {
			return
		}
		if one.Duration == 0 || times > 100 {
			t.Errorf("%s: %s is %v", one.Measure, metric, o.Metrics[metric])
			return
		}
	}
}

type taskError struct{ reason string }

func (e *taskError) Error() string { return e.reason }

func TestEveryMeasurementMeasures(t *testing.T) {
	const records = 2000
	dir := t.TempDir()
	task := Task{
		Engine: "spillway", Dir: dir, Records: records, ValueBytes: 50, Readers: 2, Churn: 50,
		Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond, Config: Config{RAMBytesMax: 16 << 20},
		Load: Load{Records: records, ValueBytes: 50, Writers: 2, UpdatesPerTx: 10},
	}
	for _, c := range []struct {
		measure, metric string
		copying         bool
	}{
		{"load", "puts_per_second", false},
		{"commits", "commits_per_second", false},
		{"reads", "reads_per_second", false},
		{"scans", "records_per_second", false},
		{"scans", "records_per_second", true},
		{"readers", "commits_per_second", false},
		{"idle-backup", "stored_bytes", false},
		{"live-backups", "updates_before_per_second", false},
	} {
		performUntil(t, c.metric, func() Task {
			task.Measure, task.Copying, task.Backup.Dir = c.measure, c.copying, t.TempDir()
			return task
		})
	}
}

func TestRepositoryMeasurementsMeasure(t *testing.T) {
	blocks, sink := t.TempDir(), t.TempDir()
	for _, c := range []struct {
		measure, metric string
		needs           string // a command of the system
	}{
		{"fill-blocks", "", ""},
		{"incremental", "incremental_time_share", ""},
		{"copying", "verify_share", "cmp"},
		{"make-chain", "", ""},
		{"restore-chain", "restore_share", ""},
		{"roll-forward", "rolled_per_second", ""},
	} {
		if _, err := exec.LookPath(c.needs); c.needs != "" && err != nil {
			continue
		}
		performUntil(t, c.metric, func() Task {
			task := Task{Measure: c.measure, Engine: "spillway", Dir: blocks, Records: 600, Backup: BackupOptions{Dir: t.TempDir()}, Reverse: true}
			switch c.measure {
			case "make-chain", "restore-chain":
				task.Backup.Dir = sink
			case "roll-forward":
				task.Dir, task.ValueBytes, task.Duration = t.TempDir(), 50, 100*time.Millisecond
				task.Config.RAMBytesMax = 16 << 20
				task.Load = Load{Records: task.Records, ValueBytes: 50, Writers: 2, Compressible: true}
			}
			return task
		})
	}
}

func TestRowsStandInTheOrderOfTheirNumbers(t *testing.T) {
	r := Report{Rows: []Row{{ID: "10a"}, {ID: "9b"}, {ID: "9a c"}, {ID: "1"}}}
	r.finish()
	for i, want := range []string{"1", "9a c", "9b", "10a"} {
		if r.Rows[i].ID != want {
			t.Errorf("row %d is %s, want %s", i, r.Rows[i].ID, want)
		}
	}
}

func TestLostRecordsAreFound(t *testing.T) {
	dir := t.TempDir()
	if _, err := perform1(t, Task{Measure: "load", Engine: "spillway", Dir: dir, Records: 10, ValueBytes: 8}); err != nil {
		t.Fatal(err)
	}
	for _, measure := range []string{"scans", "reads"} {
		if _, err := perform1(t, Task{Measure: measure, Engine: "spillway", Dir: dir, Records: 5000, Duration: time.Second, Warmup: 1}); err == nil {
			t.Errorf("%s did not miss a record", measure)
		}
	}
}

func TestUnknownTasksAreRefused(t *testing.T) {
	for _, task := range []Task{{}, {Measure: "odd", Engine: "spillway"}, {Measure: "load", Engine: "odd"}} {
		if _, err := perform1(t, task); err == nil {
			t.Errorf("%+v was done", task)
		}
	}
}

func TestPlanRunsInChildrenAndReports(t *testing.T) {
	p := Plan{
		Ours: Spillway{}, Child: testChild(), Dir: t.TempDir(), Rows: []int{2, 4}, Records: 2000, Repeats: 1, Quick: true,
		RAMBytesMax: 16 << 20,
	}
	report, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Runs) != 4 || report.Runs[0].Outcome.Metrics["puts_per_second"] == 0 {
		t.Errorf("runs: %+v", report.Runs)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"\n2a ", "\n2b ", "\n4a ", "\n4b ", "\n5 ", "no rival"} {
		if !strings.Contains(table.String(), id) {
			t.Errorf("table has no %q:\n%s", id, table.String())
		}
	}
	file := filepath.Join(t.TempDir(), "out.json")
	if err := report.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteFile(file); err == nil {
		t.Error("results were overwritten")
	}
	if left, err := os.ReadDir(p.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFailedChildIsTold(t *testing.T) {
	_, err := testChild().Run(t.Context(), Task{Measure: "load", Engine: "odd"})
	if err == nil || !strings.Contains(err.Error(), `engine "odd" is unknown`) {
		t.Errorf("got %v", err)
	}
}

func TestWants(t *testing.T) {
	for _, c := range []struct {
		row Row
		met bool
	}{
		{Row{Value: 2, Want: atLeast(2)}, true},
		{Row{Value: 1.9, Want: atLeast(2)}, false},
		{Row{Value: 0.2, Want: atMost(1.0 / 5)}, true},
		{Row{Value: 0.3, Want: atMost(1.0 / 5)}, false},
		{Row{Value: 0}, true},
		{Row{Value: 3, Want: atLeast(2), Skipped: "why"}, false},
	} {
		if c.row.Met() != c.met {
			t.Errorf("%+v: met is %v", c.row, !c.met)
		}
	}
	if s := newSeries([]float64{3, 1, 2}); s.Median != 2 || s.Min != 1 || s.Max != 3 {
		t.Errorf("series %+v", s)
	}
}
