package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/internal/human"
)

// report prints lines of a name, what was measured, and what was wanted.
type report struct {
	w      io.Writer
	missed int
}

// begin prints where and of what it is.
func (r *report) begin(dir, part string) {
	m := bench.ThisMachine(dir)
	r.printf("\n# go run ./bench/limits %s\n", strings.Join(os.Args[1:], " "))
	r.printf("# %s: commit %s, %s\n", part, bench.SourceCommit(), time.Now().UTC().Format(time.DateTime))
	r.printf("# %s, %d CPUs, %s, %s, %s, %s\n", m.CPU, m.CPUs, human.Bytes(m.MemoryBytes), m.Kernel, m.FileSystem, m.Go)
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.w, format, args...) }

// say prints what nothing is wanted of.
func (r *report) say(name, format string, args ...any) {
	r.printf("  %-46s %s\n", name, fmt.Sprintf(format, args...))
}

// want prints a line, and whether it is as wanted.
func (r *report) want(met bool, wanted, name, format string, args ...any) {
	verdict := "met"
	if !met {
		verdict = "MISSED"
		r.missed++
	}
	r.printf("  %-46s %-22s wanted %s: %s\n", name, fmt.Sprintf(format, args...), wanted, verdict)
}

// atMost wants a number to be no greater than a limit.
func (r *report) atMost(limit, value float64, unit, name string) {
	r.want(value <= limit, fmt.Sprintf("<= %.4g%s", limit, unit), name, "%.4g%s", value, unit)
}

// atLeast wants a number to be no less than a limit.
func (r *report) atLeast(limit, value float64, unit, name string) {
	r.want(value >= limit, fmt.Sprintf(">= %.4g%s", limit, unit), name, "%.4g%s", value, unit)
}
