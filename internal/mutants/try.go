package mutants

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Tests that reach a bug are run in groups of about so long: the first ones are those
// that found others, and short ones, since most bugs are found by any test.
var groups = []time.Duration{time.Second, 4 * time.Second, 16 * time.Second}

// A test hangs if it takes so many times as long as with no bug awake, and so much more.
const (
	hangsTimes = 6
	hangsMore  = 10 * time.Second
)

// Try wakes bug i of the list and runs the tests that reach its place, until one of
// them fails. Unreached says that there is none. A test that hangs has found the bug.
func (w *Woven) Try(ctx context.Context, i int) (res Result, err error) {
	began := time.Now()
	m := w.list[i]
	res = Result{Mutant: m.Mutant, Unreached: true}
	if !w.Fits(i) {
		return res, fmt.Errorf("%q: %w", m.Name, ErrUnfit)
	}
	for _, pkg := range m.Packages {
		for _, group := range w.order(pkg, i+1) {
			res.Unreached = false
			by, err := w.findIn(ctx, pkg, i+1, group)
			res.Took = time.Since(began)
			if err != nil {
				return res, err
			}
			if by != "" {
				res.Killed, res.By = true, pkg+"."+by
				return res, nil
			}
		}
	}
	return res, nil
}

// order returns the tests of a package that reach a bug, in groups.
func (w *Woven) order(pkg string, id int) (list [][]*wovenTest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var tests []*wovenTest
	for _, t := range w.tests[pkg] {
		if t.reached[id] && !t.broken {
			tests = append(tests, t)
		}
	}
	worth := func(t *wovenTest) float64 { return t.took.Seconds() / float64(1+w.kills[pkg+"."+t.name]) }
	slices.SortStableFunc(tests, func(a, b *wovenTest) int {
		if worth(a) < worth(b) {
			return -1
		}
		return 1
	})
	for _, most := range groups {
		n, sum := 0, time.Duration(0)
		for n < len(tests) && (n == 0 || sum+tests[n].took <= most) {
			sum += tests[n].took
			n++
		}
		if n > 0 {
			list, tests = append(list, tests[:n]), tests[n:]
		}
	}
	if len(tests) > 0 {
		list = append(list, tests)
	}
	return list
}

// findIn returns the test of a group that finds a bug, or "". As in find, one that
// fails has to fail again.
func (w *Woven) findIn(ctx context.Context, pkg string, id int, group []*wovenTest) (by string, err error) {
	awake := []string{fmt.Sprintf("%s=%d", envAwake, id)}
	for len(group) > 0 {
		out, err := w.run(ctx, pkg, hangs(group, 1), awake, "-test.run", only(group))
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err == nil {
			return "", nil
		}
		by := failing(out)
		top, _, _ := strings.Cut(by, "/")
		at := slices.IndexFunc(group, func(t *wovenTest) bool { return t.name == top })
		if at < 0 {
			w.noteKill(pkg, top)
			return by, nil // hangs, panics, or ends the process
		}
		one := group[at : at+1]
		if _, err := w.run(ctx, pkg, hangs(one, 4), awake, "-test.run", only(one), "-test.count", "4"); err != nil {
			w.noteKill(pkg, top)
			return by, nil
		}
		group = slices.Delete(slices.Clone(group), at, at+1)
	}
	return "", nil
}

// noteKill remembers who found a bug: it finds others.
func (w *Woven) noteKill(pkg, by string) {
	name, _, _ := strings.Cut(by, " ")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kills[pkg+"."+name]++
}

// hangs is after how long tests hang, that are run so many times.
func hangs(group []*wovenTest, times int) time.Duration {
	var sum time.Duration
	for _, t := range group {
		sum += t.took
	}
	return hangsMore + sum*hangsTimes*time.Duration(times)
}

// only is what runs these tests and no others.
func only(group []*wovenTest) string {
	var names []string
	for _, t := range group {
		names = append(names, t.name)
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
