package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// costOptions are those of the comparison with an older commit.
type costOptions struct {
	baseline string
	pairs    int
	commits  int // 0: 200,000
}

// The benchmark, and the files that it is in: the older tree gets them, too.
const (
	costBenchmark = "BenchmarkCommitCost"
	costFiles     = "commitcost*_test.go"
)

// costRun is what one run of the benchmark found, for a commit.
type costRun struct{ cpu, bytes, allocs float64 }

// costTree is a tree that the benchmark was built in.
type costTree struct {
	binary string
	runs   []costRun
	calls  float64 // system calls of a commit; less than 0: not counted
}

// costPart compares what a commit costs in this tree and in an older one.
func costPart(ctx context.Context, r *report, parent string, o costOptions) (err error) {
	if o.commits == 0 {
		o.commits = 200_000
	}
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root, err := run(ctx, "", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	root = strings.TrimSpace(root)
	old := filepath.Join(dir, "tree")
	if _, err := run(ctx, root, "git", "worktree", "add", "--detach", old, o.baseline); err != nil {
		return err
	}
	defer func() {
		_, gone := run(context.WithoutCancel(ctx), root, "git", "worktree", "remove", "--force", old)
		err = errors.Join(err, gone)
	}()
	is, was := &costTree{binary: filepath.Join(dir, "is.test")}, &costTree{binary: filepath.Join(dir, "was.test")}
	if err := errors.Join(copyCostFiles(root, old), is.build(ctx, root), was.build(ctx, old)); err != nil {
		return err
	}
	for _, mode := range []struct {
		name  string
		limit float64
	}{{"idle", 1}, {"backup", 2}} {
		if err := costMode(ctx, r, o, mode.name, mode.limit, was, is); err != nil {
			return err
		}
	}
	return nil
}

// costMode runs both in turns: A B B A A B B A ...
func costMode(ctx context.Context, r *report, o costOptions, mode string, limit float64, was, is *costTree) error {
	was.runs, is.runs = nil, nil
	for i := range 2 * o.pairs {
		t := was
		if i%4 == 1 || i%4 == 2 {
			t = is
		}
		if err := t.measure(ctx, mode, o.commits); err != nil {
			return err
		}
	}
	if err := errors.Join(was.count(ctx, mode, o.commits), is.count(ctx, mode, o.commits)); err != nil {
		return err
	}
	r.printf("a commit, %s, against commit %s, %d pairs of %d commits\n", mode, o.baseline, o.pairs, o.commits)
	var shares []float64
	for i := range was.runs {
		shares = append(shares, 100*(is.runs[i].cpu/was.runs[i].cpu-1))
	}
	slices.Sort(shares)
	cpu := func(c costRun) float64 { return c.cpu }
	r.say("CPU time before, now: medians", "%.0f ns, %.0f ns", was.median(cpu), is.median(cpu))
	r.say("CPU time before, now: least", "%.0f ns, %.0f ns", was.least(cpu), is.least(cpu))
	r.say("more, by pairs: quarter, median, three quarters", "%.2f %%, %.2f %%, %.2f %%", shares[len(shares)/4], shares[len(shares)/2], shares[3*len(shares)/4])
	r.atMost(limit, 100*(is.median(cpu)/was.median(cpu)-1), " %", "more CPU time, by medians")
	allocs, size := func(c costRun) float64 { return c.allocs }, func(c costRun) float64 { return c.bytes }
	r.atMost(was.median(allocs)*(1+limit/100), is.median(allocs), "", "allocations")
	r.atMost(was.median(size)*(1+limit/100), is.median(size), " bytes", "allocated")
	if was.calls < 0 || is.calls < 0 {
		r.say("system calls", "not counted: perf does not do it here")
		return nil
	}
	r.say("system calls before, now", "%.4f, %.4f", was.calls, is.calls)
	return nil
}

// copyCostFiles gives the benchmark to another tree.
func copyCostFiles(from, to string) error {
	names, err := filepath.Glob(filepath.Join(from, "kv", costFiles))
	if err != nil || len(names) == 0 {
		return errors.Join(err, fs.ErrNotExist)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "kv", filepath.Base(name)), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *costTree) build(ctx context.Context, root string) error {
	_, err := run(ctx, root, "go", "test", "-c", "-o", t.binary, "./kv")
	return err
}

func (t *costTree) args(mode string, commits int) []string {
	return []string{"-test.run=^$", "-test.bench=" + costBenchmark + "/" + mode + "$", "-test.benchtime=" + strconv.Itoa(commits) + "x"}
}

// measure runs the benchmark once.
func (t *costTree) measure(ctx context.Context, mode string, commits int) error {
	out, err := run(ctx, filepath.Dir(t.binary), t.binary, t.args(mode, commits)...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, costBenchmark) {
			t.runs = append(t.runs, parseCost(line))
			return nil
		}
	}
	return fmt.Errorf("no benchmark in %q", out)
}

// parseCost reads "Benchmark... N  1 cpu-ns/op  2 B/op ...".
func parseCost(line string) (c costRun) {
	fields := strings.Fields(line)
	for i := 2; i+1 < len(fields); i += 2 {
		v, _ := strconv.ParseFloat(fields[i], 64) // 0 shows
		switch fields[i+1] {
		case "cpu-ns/op":
			c.cpu = v
		case "B/op":
			c.bytes = v
		case "allocs/op":
			c.allocs = v
		}
	}
	return c
}

// count has perf count the system calls of many commits and of one.
func (t *costTree) count(ctx context.Context, mode string, commits int) error {
	t.calls = -1
	var counted [2]float64
	for i, n := range []int{1, commits} {
		args := append([]string{"stat", "-x", ",", "-e", "raw_syscalls:sys_enter", t.binary}, t.args(mode, n)...)
		cmd := exec.CommandContext(ctx, "perf", args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return context.Cause(ctx) // no perf
		}
		value, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), ",")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil // it cannot count them
		}
		counted[i] = v
	}
	t.calls = (counted[1] - counted[0]) / float64(commits-1)
	return nil
}

func (t *costTree) sorted(of func(costRun) float64) (list []float64) {
	for _, c := range t.runs {
		list = append(list, of(c))
	}
	slices.Sort(list)
	return list
}

func (t *costTree) median(of func(costRun) float64) float64 {
	list := t.sorted(of)
	return list[len(list)/2]
}

func (t *costTree) least(of func(costRun) float64) float64 { return t.sorted(of)[0] }

// run runs a command in dir and returns what it says.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %.1000s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out.String(), nil
}
