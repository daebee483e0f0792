package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// part is one of the things that are measured.
type part func(ctx context.Context, r *report, o options) error

var parts = map[string]part{
	"memory": func(ctx context.Context, r *report, o options) error { return memoryPart(ctx, r, o.dir, o.memory) },
	"cost":   func(ctx context.Context, r *report, o options) error { return costPart(ctx, r, o.dir, o.cost) },
	"stall": func(ctx context.Context, r *report, o options) error {
		return stallPart(ctx, r, o.dir, o.stall)
	},
	"guards": func(ctx context.Context, r *report, o options) error { return guardsPart(ctx, r, o.dir) },
}

type options struct {
	dir    string
	memory memorySizes
	cost   costOptions
	stall  stallSizes
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if beChild(ctx) {
		return
	}
	var o options
	flag.StringVar(&o.dir, "dir", "", "where databases are made; default: the system's place for temporary files")
	flag.Int64Var(&o.memory.ram, "max-ram", 32<<20, "memory: MaxRAM, in bytes")
	flag.Int64Var(&o.memory.overflow, "overflow", 16<<20, "memory: the cap of overflow, in bytes")
	flag.Int64Var(&o.memory.times, "times", 18, "memory: bytes of records, times MaxRAM")
	flag.IntVar(&o.memory.valueBytes, "value", 850, "memory: bytes of a value; from about 1000 on each takes a block of its own")
	flag.IntVar(&o.memory.writers, "writers", 4, "memory: goroutines that write")
	flag.DurationVar(&o.memory.before, "before", 15*time.Second, "memory: for how long writers are measured without a backup")
	flag.StringVar(&o.memory.runs, "runs", "", "memory: some of below,half,faster,swap; default: all")
	flag.Int64Var(&o.memory.logHold, "log-hold", 128<<20, "memory: LogHoldMax, in bytes")
	flag.StringVar(&o.cost.baseline, "baseline", "2688c8c", "cost: the commit to compare with")
	flag.IntVar(&o.cost.pairs, "pairs", 5, "cost: pairs of pieces that are compared")
	flag.IntVar(&o.cost.commits, "commits", 2000, "cost: commits of a piece whose allocations are counted")
	flag.IntVar(&o.cost.counted, "counted", 3, "cost: commits of a piece of which every instruction is counted")
	flag.IntVar(&o.cost.functions, "functions", 0, "cost: list so many functions that take most more or less than before")
	flag.IntVar(&o.stall.originals, "originals", 1_000_000, "stall: originals that go at once")
	flag.Int64Var(&o.stall.ram, "stall-ram", 1<<30, "stall: MaxRAM, in bytes")
	flag.IntVar(&o.stall.atOnce, "at-once", 1000, "stall: blocks that a commit changes while originals are made")
	flag.Parse()
	o.memory.sink = sinkRate
	o.stall.around, o.stall.edge = 3*time.Second, 500*time.Millisecond
	r := &report{w: os.Stdout}
	for _, name := range flag.Args() {
		measure, known := parts[name]
		if !known {
			fmt.Fprintf(os.Stderr, "limits: %q is none of memory, cost, stall, guards\n", name)
			os.Exit(2)
		}
		r.begin(o.dir, name)
		if err := measure(ctx, r, o); err != nil {
			fmt.Fprintf(os.Stderr, "limits: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
	if r.missed > 0 {
		os.Exit(3)
	}
}
