package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Plan is a comparison of two engines.
type Plan struct {
	Ours  Engine
	Rival Engine // nil: ours alone
	Child Child  // starts a process that calls Serve with both

	Dir     string // exists, on the file system to be measured; what is made in it is removed
	Rows    []int  // groups of rows, 1 to 13; empty: 1 to 8
	Records int
	Repeats int
	Quick   bool // short measurements: the numbers are noise

	RAMBytesMax int64     // of our engine, where the row does not say; 0: its default
	CPUProfiles string    // directory; "": none
	Progress    io.Writer // nil: silent
}

// ValueBytes is the size of every value.
const ValueBytes = 100

// groups are what the rows of the table are measured by.
func (s *suite) groups() []func() error {
	return []func() error{
		1: s.commitRows, 2: s.loadRows, 3: s.readRows, 4: s.scanRows, 5: s.loadRows,
		6: s.largerThanMemoryRows, 7: s.backupRows, 8: s.readerRows,
		9: s.incrementalRows, 10: s.copyRows, 11: s.chainRows, 12: s.rollRows, 13: s.compressionRows,
	}
}

// Run measures. A row that could not be measured says why in the report; the
// error is the first of those, or one that ended it all.
func (p Plan) Run(ctx context.Context) (*Report, error) {
	s := &suite{Plan: p, ctx: ctx, report: newReport(p), dirs: make(map[string]string)}
	defer s.removeAll()
	groups := s.groups()
	wanted := slices.Clone(p.Rows)
	if len(wanted) == 0 {
		wanted = []int{2, 5, 1, 3, 4, 8, 6, 7} // loads first: the others use what they leave
	}
	var errs []error
	for _, n := range wanted {
		if n < 1 || n >= len(groups) {
			return nil, fmt.Errorf("there is no row %d", n)
		}
		if err := groups[n](); err != nil {
			err = fmt.Errorf("row %d: %w", n, err)
			s.logf("%v\n", err)
			s.report.Rows = append(s.report.Rows, Row{ID: fmt.Sprint(n), Name: "not measured", Skipped: err.Error()})
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.report.finish()
	return s.report, errors.Join(errs...)
}

// suite is a plan being carried out.
type suite struct {
	Plan
	ctx    context.Context
	report *Report
	dirs   map[string]string // of prepared databases, by engine and purpose
	loaded bool              // rows 2 and 5 are done: both are one measurement
	tasks  int
}

func (s *suite) logf(format string, args ...any) {
	if s.Progress != nil {
		fmt.Fprintf(s.Progress, format, args...)
	}
}

// pick is for durations and sizes that have a short form.
func pick[T any](quick bool, short, long T) T {
	if quick {
		return short
	}
	return long
}

func (s *suite) engines() []Engine {
	if s.Rival == nil {
		return []Engine{s.Ours}
	}
	return []Engine{s.Ours, s.Rival}
}

// run does one task and keeps its outcome.
func (s *suite) run(label string, t Task) (Metrics, error) {
	s.tasks++
	if s.CPUProfiles != "" {
		name := strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(label)
		t.CPUProfile = filepath.Join(s.CPUProfiles, fmt.Sprintf("%03d-%s-%s.prof", s.tasks, name, t.Engine))
	}
	if t.Engine == s.Ours.Name() && t.Config.RAMBytesMax == 0 {
		t.Config.RAMBytesMax = s.RAMBytesMax
	}
	limit := pick(s.Quick, time.Minute, 5*time.Minute) // far more than any task takes
	ctx, cancel := context.WithTimeoutCause(s.ctx, limit, fmt.Errorf("task has not ended within %v", limit))
	defer cancel()
	began := time.Now()
	o, err := s.Child.Run(ctx, t)
	took := time.Since(began)
	s.logf("  %-44s %-10s %6.1f s\n", label, t.Engine, took.Seconds())
	run := Run{Label: label, Task: t, Outcome: o, Began: began, Seconds: took.Seconds()}
	if err != nil {
		run.Outcome.Error = err.Error()
	}
	s.report.Runs = append(s.report.Runs, run)
	return o.Metrics, err
}

// outcomes are the metrics of the repetitions of one measurement.
type outcomes []Metrics

// series is nil if no outcome has the metric.
func (o outcomes) series(metric string) *Series {
	var samples []float64
	for _, m := range o {
		if v, ok := m[metric]; ok {
			samples = append(samples, v)
		}
	}
	if len(samples) == 0 {
		return nil
	}
	return newSeries(samples)
}

// duel does a task with both engines in turn, in the order A B B A A B.
func (s *suite) duel(label string, task func(Engine) (Task, error)) (ours, theirs outcomes, err error) {
	for i := range s.Repeats {
		engines := s.engines()
		if i%2 == 1 {
			slices.Reverse(engines)
		}
		for _, e := range engines {
			t, err := task(e)
			if err != nil {
				return nil, nil, err
			}
			t.Engine, t.ValueBytes, t.Load.ValueBytes = e.Name(), ValueBytes, ValueBytes
			m, err := s.run(label, t)
			if err != nil {
				return nil, nil, err
			}
			if e.Name() == s.Ours.Name() {
				ours = append(ours, m)
			} else {
				theirs = append(theirs, m)
			}
		}
	}
	return ours, theirs, nil
}

// newDir is an empty place.
func (s *suite) newDir(purpose string) (string, error) {
	return os.MkdirTemp(s.Dir, purpose+"-")
}

// keep makes dir the engine's database for a purpose, in the place of the one
// that was it.
func (s *suite) keep(e Engine, purpose, dir string) error {
	key := e.Name() + " " + purpose
	old, ok := s.dirs[key]
	s.dirs[key] = dir
	if !ok {
		return nil
	}
	return os.RemoveAll(old)
}

func (s *suite) removeAll() {
	for _, dir := range s.dirs {
		if err := os.RemoveAll(dir); err != nil {
			s.logf("%v\n", err)
		}
	}
}

// base is the engine's database of s.Records records, loaded in random order.
func (s *suite) base(e Engine) (string, error) {
	return s.prepared(e, "base", Task{Records: s.Records})
}

// prepared is a loaded database; it is made when it is first asked for.
func (s *suite) prepared(e Engine, purpose string, t Task) (string, error) {
	if dir, ok := s.dirs[e.Name()+" "+purpose]; ok {
		return dir, nil
	}
	dir, err := s.newDir(purpose)
	if err != nil {
		return "", err
	}
	t.Measure, t.Engine, t.Dir, t.ValueBytes, t.Config.NeverSync = "load", e.Name(), dir, ValueBytes, true
	_, err = s.run("prepare "+purpose, t)
	return dir, errors.Join(err, s.keep(e, purpose, dir))
}
