package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a [Plan] found. It is written as JSON.
type Report struct {
	Machine  Machine
	Commit   string // of the source; "+changes" if there were any
	Command  []string
	Settings Settings
	Began    time.Time
	Ended    time.Time
	Rows     []Row
	Notes    []string
	Runs     []Run
}

// Machine is where it was measured.
type Machine struct {
	CPU         string
	CPUs        int
	MemoryBytes int64
	Kernel      string
	FileSystem  string // type and device of the directory measured
	Go          string
}

// Settings are what the numbers depend on.
type Settings struct {
	Engines     []string
	Records     int
	KeyBytes    int
	ValueBytes  int
	Repeats     int
	Quick       bool
	RAMBytesMax int64 // of our engine, where the row does not say; 0: a quarter of what the host allows
	LogBytesMax int64 // 0: the engine's default, 256 MiB
}

// Run is one task that was done.
type Run struct {
	Label   string
	Task    Task
	Outcome Outcome
	Began   time.Time
	Seconds float64
}

// Row is one line of the table.
type Row struct {
	ID, Name, Unit string
	Ours, Theirs   *Series `json:",omitempty"` // theirs: the rival, or the state compared with
	// Value is what Want is about: a ratio, or what we measured.
	Value   float64
	Want    Want   `json:",omitzero"`
	Skipped string `json:",omitempty"` // why it was not measured
}

// Met reports whether the row is as wanted. A row that nothing is wanted of is.
func (r Row) Met() bool { return r.Skipped == "" && r.Want.met(r.Value) }

// Series are the repetitions of one measurement.
type Series struct {
	Median, Min, Max float64
	Samples          []float64 // in the order of time
}

func newSeries(samples []float64) *Series {
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	median := (sorted[(n-1)/2] + sorted[n/2]) / 2
	return &Series{Median: median, Min: sorted[0], Max: sorted[n-1], Samples: samples}
}

// Want is what a row is to be. The zero value wants nothing.
type Want struct {
	Limit  float64
	AtMost bool
	AtAll  bool // something is wanted
}

func atLeast(limit float64) Want { return Want{limit, false, true} }
func atMost(limit float64) Want  { return Want{limit, true, true} }

func (w Want) met(value float64) bool {
	switch {
	case !w.AtAll:
		return true
	case w.AtMost:
		return value <= w.Limit
	}
	return value >= w.Limit
}

func (w Want) String() string {
	switch {
	case !w.AtAll:
		return ""
	case w.AtMost:
		return "<= " + number(w.Limit)
	}
	return ">= " + number(w.Limit)
}

func newReport(p Plan) *Report {
	command := append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...)
	r := &Report{Began: time.Now(), Command: command, Commit: SourceCommit(), Machine: ThisMachine(p.Dir)}
	r.Settings = Settings{
		Records: p.Records, KeyBytes: KeyBytes, ValueBytes: ValueBytes, Repeats: p.Repeats,
		Quick: p.Quick, RAMBytesMax: p.RAMBytesMax,
	}
	for _, e := range (&suite{Plan: p}).engines() {
		r.Settings.Engines = append(r.Settings.Engines, e.Name())
	}
	return r
}

// ThisMachine is where this process runs, and what dir is on.
func ThisMachine(dir string) Machine {
	return Machine{
		CPU: cpuModel(), CPUs: runtime.GOMAXPROCS(0), MemoryBytes: memoryBytes(),
		Kernel: kernelRelease(), FileSystem: fileSystem(dir), Go: runtime.Version(),
	}
}

// SourceCommit asks git; what is measured is what is checked out, or was changed since.
func SourceCommit() string {
	head, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(head))
	if changed, err := exec.Command("git", "status", "--porcelain").Output(); err != nil || len(changed) > 0 {
		commit += "+changes"
	}
	return commit
}

// finish puts the rows into the order of the table.
func (r *Report) finish() {
	r.Ended = time.Now()
	slices.SortStableFunc(r.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.group(), b.group()), strings.Compare(a.ID, b.ID))
	})
}

// group is the number that the row's ID begins with.
func (r Row) group() int {
	n := 0
	for n < len(r.ID) && '0' <= r.ID[n] && r.ID[n] <= '9' {
		n++
	}
	number, _ := strconv.Atoi(r.ID[:n])
	return number
}

func (s *suite) add(r Row) { s.report.Rows = append(s.report.Rows, r) }

func (s *suite) skip(id, name, why string) { s.add(Row{ID: id, Name: name, Skipped: why}) }

func (s *suite) note(id, format string, args ...any) {
	s.report.Notes = append(s.report.Notes, id+": "+fmt.Sprintf(format, args...))
}

// compare adds a row: ours, theirs, ours / theirs.
func (s *suite) compare(id, name, metric string, ours, theirs outcomes, want Want) {
	r := Row{ID: id, Name: name, Unit: unitOf(metric), Ours: ours.series(metric), Theirs: theirs.series(metric), Want: want}
	if r.Theirs == nil {
		r.Skipped = "no rival"
	} else {
		r.Value = share(r.Ours.Median, r.Theirs.Median)
	}
	s.add(r)
}

// relate adds a row of two states of our engine, with / without, and a row that
// nothing is wanted of for the rival.
func (s *suite) relate(id, name, metric string, with, without, theirsWith, theirsWithout outcomes, want Want) {
	ours := Row{ID: id, Name: name, Unit: unitOf(metric), Ours: with.series(metric), Theirs: without.series(metric), Want: want}
	ours.Value = share(ours.Ours.Median, ours.Theirs.Median)
	s.add(ours)
	if theirs := theirsWith.series(metric); theirs != nil {
		r := Row{ID: id + "r", Name: name + " (" + s.Rival.Name() + ")", Unit: unitOf(metric), Ours: theirs, Theirs: theirsWithout.series(metric)}
		r.Value = share(r.Ours.Median, r.Theirs.Median)
		s.add(r)
	}
}

// own adds a row of one number of ours, its median to be as wanted.
func (s *suite) own(id, name, metric string, o outcomes, want Want) {
	r := Row{ID: id, Name: name, Unit: unitOf(metric), Ours: o.series(metric), Want: want}
	if r.Ours == nil {
		r.Skipped = "not seen"
	} else {
		r.Value = r.Ours.Median
	}
	s.add(r)
}

// unitOf reads the unit from a metric's name.
func unitOf(metric string) string {
	switch {
	case strings.HasSuffix(metric, "_per_second"):
		return "1/s"
	case strings.HasSuffix(metric, "_ms"):
		return "ms"
	case strings.HasSuffix(metric, "_bytes"):
		return "bytes"
	case strings.HasSuffix(metric, "_seconds"):
		return "s"
	}
	return ""
}

// WriteTable prints the rows for people.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d CPUs, %s, %s, %s\ncommit %s, %d records of %d + %d bytes, medians of %d (least - greatest)\n\n",
		r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.FileSystem, r.Machine.Go,
		r.Commit, r.Settings.Records, r.Settings.KeyBytes, r.Settings.ValueBytes, r.Settings.Repeats)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\t\tunit\tours\trival, or without\tvalue\twanted\t")
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.columns(), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	return nil
}

func (r Row) columns() []string {
	value, verdict := number(r.Value), ""
	switch {
	case r.Skipped != "":
		value, verdict = "-", "SKIPPED: "+r.Skipped
	case r.Want.AtAll && r.Met():
		verdict = "ok"
	case r.Want.AtAll:
		verdict = "MISSED"
	}
	return []string{r.ID, r.Name, r.Unit, r.Ours.String(), r.Theirs.String(), value, r.Want.String(), verdict}
}

func (s *Series) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s - %s)", number(s.Median), number(s.Min), number(s.Max))
}

// number prints about three digits that count.
func number(v float64) string {
	switch {
	case v != 0 && v > -100 && v < 100:
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// WriteFile writes the report, with all raw results, to a file that must not exist.
func (r *Report) WriteFile(name string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
