package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spillwaydb/spillway/bench"
)

const usage = "usage: peers compare [--rows 1,3] [--quick] [--out FILE] [--dir DIR] [--records N] [--maxram BYTES] [--cpuprofile DIR]"

// taskArg makes this program do one task: see bench.Child.
const taskArg = "task"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == taskArg:
		return bench.Serve(ctx, []bench.Engine{bench.Spillway{}, bolt{}}, os.Stdin, os.Stdout)
	case len(args) > 0 && args[0] == "compare":
		return compare(ctx, args[1:])
	}
	return errors.New(usage)
}

// options of compare.
type options struct {
	plan bench.Plan
	rows string
	out  string
}

func parse(args []string) (options, error) {
	o := options{plan: bench.Plan{
		Ours: bench.Spillway{}, Rival: bolt{}, Child: bench.Child{Args: []string{taskArg}}, Progress: os.Stderr,
	}}
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.StringVar(&o.rows, "rows", "", "rows to measure, as in 1,3 (default all)")
	f.BoolVar(&o.plan.Quick, "quick", false, "short measurements of few records: does it work at all?")
	f.StringVar(&o.out, "out", "", "file for the raw results (default: a new one in ../results)")
	f.StringVar(&o.plan.Dir, "dir", "", "directory for databases, on a real disk (default: beside the results)")
	f.IntVar(&o.plan.Records, "records", 0, "records (default 1000000, or 20000 if quick)")
	f.IntVar(&o.plan.Repeats, "repeats", 0, "how often each engine is measured (default 3, or 1 if quick)")
	f.Int64Var(&o.plan.RAMBytesMax, "maxram", 1<<30, "MaxRAM in bytes, for all rows but 6 and 7")
	f.StringVar(&o.plan.CPUProfiles, "cpuprofile", "", "directory for a CPU profile of each measurement")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not known; %s", f.Arg(0), usage)
	}
	return o, o.fill()
}

// fill fills in defaults.
func (o *options) fill() error {
	if o.plan.Records == 0 {
		o.plan.Records = 1_000_000
		if o.plan.Quick {
			o.plan.Records = 20_000
		}
	}
	if o.plan.Repeats == 0 {
		o.plan.Repeats = 3
		if o.plan.Quick {
			o.plan.Repeats = 1
		}
	}
	for field := range strings.SplitSeq(o.rows, ",") {
		if field == "" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("rows: %w", err)
		}
		o.plan.Rows = append(o.plan.Rows, n)
	}
	if o.plan.Records < 1 || o.plan.Repeats < 1 {
		return errors.New("records and repeats must be positive")
	}
	return nil
}

func compare(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join("..", "results", time.Now().UTC().Format("2006-01-02T150405Z")+".json")
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	if o.plan.Dir == "" {
		o.plan.Dir = filepath.Dir(o.out)
	}
	if o.plan.CPUProfiles != "" {
		if err := os.MkdirAll(o.plan.CPUProfiles, 0o755); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(o.plan.Dir, "data-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.plan.Dir = dir
	return measure(ctx, o)
}

// measure reports also what an interrupted or failed run has found.
func measure(ctx context.Context, o options) error {
	report, err := o.plan.Run(ctx)
	if report == nil {
		return err
	}
	return errors.Join(err, report.WriteTable(os.Stdout), report.WriteFile(o.out))
}
