package mutants

import (
	"fmt"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// # Many bugs in one program
//
// A program that is built for each bug costs more than its tests. So the bugs that the
// tool makes are woven into one program, each asleep, and an environment variable says
// which one is awake while tests run:
//
//	x < y      (!mutantIs(7) && ((x) < (y)) || mutantIs(7) && ((x) <= (y)))
//	if c {     if (mutantIs(8) != (c)) {
//	x + y      mutantSum(9, x, y)
//	f()        if !mutantIs(10) { f() }
//
// What stands where is evaluated once and in the same order, and no line moves. That a
// place is passed at all is noted there, too: a bug at a place that no test reaches
// need not be run.

// The environment of a woven program.
const (
	envAwake   = "SPILLWAY_MUTANT"          // number of the bug that is awake
	envReached = "SPILLWAY_MUTANTS_REACHED" // file for the numbers of the places that are passed
)

// helpers is what a package with bugs in it has besides.
const helpers = `package %s

import (
	"os"
	"strconv"
	"sync"
)

var (
	mutantAwake, _ = strconv.Atoi(os.Getenv("` + envAwake + `"))
	mutantsReached = os.Getenv("` + envReached + `")
	mutantsSeen    sync.Map
)

func mutantIs(n int) bool {
	if mutantsReached != "" {
		mutantReached(n)
	}
	return mutantAwake == n
}

func mutantReached(n int) {
	if _, seen := mutantsSeen.LoadOrStore(n, true); seen {
		return
	}
	f, err := os.OpenFile(mutantsReached, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	f.WriteString(strconv.Itoa(n) + "\n")
	f.Close()
}

type mutantNumber interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float64
}

func mutantSum[T mutantNumber](n int, a, b T) T {
	if mutantIs(n) {
		return a - b
	}
	return a + b
}

func mutantDifference[T mutantNumber](n int, a, b T) T {
	if mutantIs(n) {
		return a + b
	}
	return a - b
}

var _, _ = mutantSum[int], mutantDifference[int]
`

// helpersFile is where helpers of a package are.
func helpersFile(dir string) string { return path.Join(dir, "mutants_woven.go") }

// weaver puts bugs into the text of one file.
type weaver struct {
	text string
	bugs []Made // of this file, the outer before the inner
	ids  []int
}

// weaveFile returns the text of a file with bugs in it. ids are their numbers, skip
// those that are to be left out.
func weaveFile(text string, bugs []Made, ids []int, skip map[int]bool) string {
	order := make([]int, len(bugs))
	for i := range order {
		order[i] = i
	}
	// The outer before the inner; of two at one place, the condition before its operator.
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := bugs[a], bugs[b]
		if x.from != y.from {
			return x.from - y.from
		}
		if x.to != y.to {
			return y.to - x.to
		}
		return int(x.kind - y.kind)
	})
	w := weaver{text: text}
	for _, i := range order {
		if !skip[ids[i]] {
			w.bugs, w.ids = append(w.bugs, bugs[i]), append(w.ids, ids[i])
		}
	}
	return w.render(0, len(text), 0, len(w.bugs))
}

// render returns the text in [from, to) with the bugs [first, end) in it.
func (w *weaver) render(from, to, first, end int) string {
	var b strings.Builder
	at := from
	for i := first; i < end; i++ {
		m := w.bugs[i]
		if m.from < at || m.to > to { // within one that is done, or not here
			continue
		}
		b.WriteString(w.text[at:m.from])
		b.WriteString(w.one(i, end))
		at = m.to
	}
	b.WriteString(w.text[at:to])
	return b.String()
}

// one returns the text of the place of bug i, with those within it.
func (w *weaver) one(i, end int) string {
	m, id := w.bugs[i], w.ids[i]
	switch m.kind {
	case negated:
		return fmt.Sprintf("(mutantIs(%d) != (%s))", id, w.render(m.from, m.to, i+1, end))
	case leftOut:
		return fmt.Sprintf("if !mutantIs(%d) { %s }", id, w.render(m.from, m.to, i+1, end))
	}
	x := w.render(m.from, m.opAt, i+1, end)
	y := w.render(m.opAt+len(m.op.String()), m.to, i+1, end)
	switch {
	case m.op == token.ADD:
		return fmt.Sprintf("mutantSum(%d, %s, %s)", id, x, y)
	case m.op == token.SUB:
		return fmt.Sprintf("mutantDifference(%d, %s, %s)", id, x, y)
	}
	return fmt.Sprintf("(!mutantIs(%d) && ((%s) %s (%s)) || mutantIs(%d) && ((%s) %s (%s)))", id, x, m.op, y, id, x, swaps[m.op], y)
}

// weaveAll returns the text of each file with its bugs in it, and of what its package
// has besides. Names are from the root of the module; bug number n is list[n-1].
func weaveAll(read func(file string) (string, error), list []Made, skip map[int]bool) (map[string]string, error) {
	files := map[string][]int{}
	for i, m := range list {
		files[m.File] = append(files[m.File], i)
	}
	woven := map[string]string{}
	for file, of := range files {
		text, err := read(filepath.FromSlash(file))
		if err != nil {
			return nil, fmt.Errorf("weave bugs into %s: %w", file, err)
		}
		var bugs []Made
		var ids []int
		for _, i := range of {
			bugs, ids = append(bugs, list[i]), append(ids, i+1)
		}
		woven[file] = weaveFile(text, bugs, ids, skip)
		dir := path.Dir(file)
		woven[helpersFile(dir)] = fmt.Sprintf(helpers, path.Base(dir))
	}
	return woven, nil
}
