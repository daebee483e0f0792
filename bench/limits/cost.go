package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// costOptions are those of the comparison with an older commit.
type costOptions struct {
	baseline  string
	pairs     int
	commits   int // of a piece whose allocations are counted
	counted   int // commits of a piece of which every instruction is counted
	functions int // functions to list
}

// costFiles are the files that the process that commits is in: the older tree gets them, too.
const costFiles = "commitcost*_test.go"

// costWarm is how many commits come before those that are counted.
const costWarm = 2000

// callsEach is for how many times as many commits system calls are counted: there are few of
// them, and to stop for these only takes little.
const callsEach = 250

// callsSlack is how many system calls of a commit say nothing: some are made by time, not by
// commit.
const callsSlack = 0.005

// What both processes do beside commits is looked at costRests times for costRest, and the
// least of these counts: there may be work left over from the commits before.
const (
	costRest  = 700 * time.Millisecond
	costRests = 3
)

// costMode is one of what is compared.
type costMode struct {
	name  string
	begin string  // what a process is told to begin with; may be empty
	limit float64 // in percent
}

var costModes = []costMode{{"no backup runs", "", 1}, {"a backup runs", "backup", 2}}

// costPart compares what a commit costs in this tree and in an older one.
func costPart(ctx context.Context, r *report, parent string, o costOptions) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	was, is, err := buildCost(ctx, dir, o.baseline)
	if err != nil {
		return err
	}
	pair := [2]*committer{{binary: was}, {binary: is}}
	for _, c := range pair {
		if err := c.start(ctx); err != nil {
			return err
		}
	}
	for _, c := range pair { // both fill their databases
		if err := c.ready(); err != nil {
			return err
		}
	}
	for _, m := range costModes {
		if err := comparePair(r, o, m, pair); err != nil {
			return err
		}
	}
	return errors.Join(pair[0].end(), pair[1].end())
}

// buildCost builds the process that commits, in the older tree and in this one.
func buildCost(ctx context.Context, dir, baseline string) (was, is string, err error) {
	root, err := run(ctx, "", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", "", err
	}
	root = strings.TrimSpace(root)
	old := filepath.Join(dir, "tree")
	if _, err := run(ctx, root, "git", "worktree", "add", "--detach", old, baseline); err != nil {
		return "", "", err
	}
	defer func() {
		_, gone := run(context.WithoutCancel(ctx), root, "git", "worktree", "remove", "--force", old)
		err = errors.Join(err, gone)
	}()
	was, is = filepath.Join(dir, "was.test"), filepath.Join(dir, "is.test")
	return was, is, errors.Join(copyCostFiles(root, old), buildIn(ctx, root, is), buildIn(ctx, old, was))
}

// copyCostFiles gives an older tree what it is to be measured with.
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

func buildIn(ctx context.Context, root, binary string) error {
	_, err := run(ctx, root, "go", "test", "-c", "-o", binary, "./kv")
	return err
}

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

// comparePair compares an older process and a newer one. Both make the same commits, so
// piece by piece they are compared with themselves.
func comparePair(r *report, o costOptions, m costMode, pair [2]*committer) error {
	r.printf("a commit while %s, against commit %s\n", m.name, o.baseline)
	for _, c := range pair {
		if m.begin != "" {
			if err := c.tell(m.begin, "begun"); err != nil {
				return err
			}
		}
		if err := c.commits(costWarm); err != nil {
			return err
		}
	}
	if err := compareCounts(r, o, m, pair); err != nil {
		return err
	}
	return compareTotals(r, o, m, pair)
}

// inTurns calls f for both of a pair, so often: A B B A A B ...
func inTurns(pairs int, f func(which int) error) error {
	for i := range 2 * pairs {
		if err := f((i + 1) / 2 % 2); err != nil {
			return err
		}
	}
	return nil
}

// compareCounts is what does not depend on what else the machine does.
func compareCounts(r *report, o costOptions, m costMode, pair [2]*committer) error {
	var instructions, calls [2][]float64
	var spent [2]functionCounts
	err := inTurns(o.pairs, func(which int) error {
		c := pair[which]
		counts, err := c.countInstructions(o.counted)
		if err != nil {
			return fmt.Errorf("count instructions: %w", err)
		}
		spent[which].add(counts)
		instructions[which] = append(instructions[which], float64(counts.ours)/float64(o.counted))
		n, err := c.countCalls(callsEach * o.counted)
		if err != nil {
			return fmt.Errorf("count system calls: %w", err)
		}
		calls[which] = append(calls[which], float64(n)/float64(callsEach*o.counted))
		return nil
	})
	if errors.Is(err, errors.ErrUnsupported) {
		r.say("instructions, system calls: SKIPPED", "they cannot be counted here: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	n, before := mean(instructions[1]), mean(instructions[0])
	r.atMost(m.limit, more(n, before), " %", fmt.Sprintf("more instructions, but for the runtime's (%.0f, were %.0f)", n, before))
	was, is := mean(calls[0]), mean(calls[1])
	r.atMost(was*(1+m.limit/100)+callsSlack, is, "", fmt.Sprintf("system calls (were %.4f)", was))
	commits := float64(o.pairs * o.counted)
	r.say("calls of the runtime", "%.0f, were %.0f", float64(spent[1].runtime)/commits, float64(spent[0].runtime)/commits)
	spent[1].list(r, &spent[0], commits, o.functions)
	return nil
}

// compareTotals is what both processes took as a whole. What they take while nothing is
// committed goes by time and not by commit: it is measured, taken off, and said apart.
func compareTotals(r *report, o costOptions, m costMode, pair [2]*committer) error {
	rest, err := atRest(pair)
	if err != nil {
		return err
	}
	var allocs, size, cpu [2][]float64
	err = inTurns(o.pairs, func(which int) error {
		c := pair[which]
		before, err := c.totals()
		if err != nil {
			return err
		}
		if err := c.commits(o.commits); err != nil {
			return err
		}
		after, err := c.totals()
		if err != nil {
			return err
		}
		t := after.since(before)
		n, seconds := float64(o.commits), t.at.Sub(before.at).Seconds()
		allocs[which] = append(allocs[which], (t.allocs-rest[which].allocs*seconds)/n)
		size[which] = append(size[which], (t.bytes-rest[which].bytes*seconds)/n)
		cpu[which] = append(cpu[which], t.cpu/n)
		return nil
	})
	if err != nil {
		return err
	}
	r.compare(m.limit, "allocations", allocs)
	r.compare(m.limit, "bytes allocated", size)
	r.say(fmt.Sprintf("CPU time, least of %d times %d commits", o.pairs, o.commits), "%.0f ns, was %.0f ns; it depends on what else runs", slices.Min(cpu[1]), slices.Min(cpu[0]))
	r.say("beside commits, in a second", "%.0f allocations, were %.0f; %.0f KiB, were %.0f KiB", rest[1].allocs, rest[0].allocs, rest[1].bytes/1024, rest[0].bytes/1024)
	return nil
}

// atRest is what both take in a second while nobody commits.
func atRest(pair [2]*committer) (rate [2]costTotals, err error) {
	var before [2]costTotals
	for round := range costRests + 1 {
		for i, c := range pair {
			now, err := c.totals()
			if err != nil {
				return rate, err
			}
			t, seconds := now.since(before[i]), now.at.Sub(before[i].at).Seconds()
			if round == 1 || round > 1 && t.bytes/seconds < rate[i].bytes {
				rate[i] = costTotals{allocs: t.allocs / seconds, bytes: t.bytes / seconds}
			}
			before[i] = now
		}
		if round < costRests {
			time.Sleep(costRest)
		}
	}
	return rate, nil
}

// compare wants pieces of commits to take no more than a limit, in percent, than the same
// pieces took before.
func (r *report) compare(limit float64, what string, pieces [2][]float64) {
	was, is := median(pieces[0]), median(pieces[1])
	r.atMost(limit, medianMore(pieces), " %", fmt.Sprintf("more %s (%.0f, were %.0f)", what, is, was))
}

// medianMore is the median of by how many percent pieces take more than the same did before.
func medianMore(pieces [2][]float64) float64 {
	list := make([]float64, len(pieces[0]))
	for i, was := range pieces[0] {
		list[i] = more(pieces[1][i], was)
	}
	return median(list)
}

// more is by how many percent a number is larger than another.
func more(is, was float64) float64 {
	if is == was {
		return 0
	}
	return 100 * (is/was - 1)
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

func mean(list []float64) (m float64) {
	for _, v := range list {
		m += v / float64(len(list))
	}
	return m
}

// functionCounts are the instructions of some commits, and their calls of the runtime.
type functionCounts struct {
	ours, runtime int
	of, calls     map[string]int // by function
}

func (f *functionCounts) add(more functionCounts) {
	f.ours += more.ours
	f.runtime += more.runtime
	if f.of == nil {
		f.of, f.calls = map[string]int{}, map[string]int{}
	}
	for name, n := range more.of {
		f.of[name] += n
	}
	for name, n := range more.calls {
		f.calls[name] += n
	}
}

// list prints the functions that take most more or less than they did, for a commit.
func (f *functionCounts) list(r *report, was *functionCounts, commits float64, most int) {
	listChanges(r, "instructions", was.of, f.of, commits, most)
	listChanges(r, "calls", was.calls, f.calls, commits, most)
}

func listChanges(r *report, what string, was, is map[string]int, commits float64, most int) {
	names := slices.Collect(maps.Keys(is))
	for name := range was {
		if _, still := is[name]; !still {
			names = append(names, name)
		}
	}
	change := func(name string) int { return is[name] - was[name] }
	slices.SortFunc(names, func(a, b string) int {
		x, y := change(a), change(b)
		return cmp.Or(cmp.Compare(max(y, -y), max(x, -x)), cmp.Compare(a, b))
	})
	for _, name := range names[:min(most, len(names))] {
		r.printf("    %+9.1f %s, now %.1f: %s\n", float64(change(name))/commits, what, float64(is[name])/commits, name)
	}
}
