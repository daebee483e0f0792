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
	commits  int // of a run of the benchmark
	counted  int // commits of which every instruction is counted
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
	counts commitCounts
}

// costPart compares what a commit costs in this tree and in an older one.
func costPart(ctx context.Context, r *report, parent string, o costOptions) (err error) {
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
	r.printf("a commit, %s, against commit %s\n", mode, o.baseline)
	if err := costCounts(ctx, r, o, mode, limit, was, is); err != nil {
		return err
	}
	allocs, size := func(c costRun) float64 { return c.allocs }, func(c costRun) float64 { return c.bytes }
	r.atMost(limit, more(is.median(allocs), was.median(allocs)), " %", fmt.Sprintf("more allocations (%.0f, were %.0f)", is.median(allocs), was.median(allocs)))
	r.atMost(limit, more(is.median(size), was.median(size)), " %", fmt.Sprintf("more bytes allocated (%.0f, were %.0f)", is.median(size), was.median(size)))
	cpu := func(c costRun) float64 { return c.cpu }
	r.say(fmt.Sprintf("CPU time, least of %d runs of %d commits", o.pairs, o.commits), "%.0f ns, was %.0f ns; it depends on what else runs", is.least(cpu), was.least(cpu))
	return nil
}

// callsSlack is how many system calls of a commit say nothing: some are made by time, not by
// commit.
const callsSlack = 0.005

// costCounts is what does not depend on what else the machine does.
func costCounts(ctx context.Context, r *report, o costOptions, mode string, limit float64, was, is *costTree) (err error) {
	for _, t := range []*costTree{was, is} {
		t.counts, err = countCommits(ctx, t.binary, mode, o.counted)
		if errors.Is(err, errors.ErrUnsupported) {
			r.say("instructions, system calls: SKIPPED", "they cannot be counted on this system")
			return nil
		}
		if err != nil {
			return err
		}
	}
	n, m := is.counts, was.counts
	r.atMost(limit, more(n.instructions, m.instructions), " %", fmt.Sprintf("more instructions, but for the runtime's (%.0f, were %.0f)", n.instructions, m.instructions))
	r.atMost(m.calls*(1+limit/100)+callsSlack, n.calls, "", fmt.Sprintf("system calls (were %.4f)", m.calls))
	return nil
}

// more is by how many percent a number is larger than another.
func more(is, was float64) float64 {
	if is == was {
		return 0
	}
	return 100 * (is/was - 1)
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
