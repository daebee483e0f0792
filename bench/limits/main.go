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
		return stallPart(ctx, r, o.dir, o.originals, o.stallRAM)
	},
	"guards": func(ctx context.Context, r *report, o options) error { return guardsPart(ctx, r, o.dir, o.thrash) },
}

type options struct {
	dir       string
	memory    memorySizes
	cost      costOptions
	originals int
	stallRAM  int64
	thrash    bool
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
	flag.StringVar(&o.cost.baseline, "baseline", "2688c8c", "cost: the commit to compare with")
	flag.IntVar(&o.cost.pairs, "pairs", 15, "cost: pairs of runs")
	flag.IntVar(&o.originals, "originals", 1_000_000, "stall: originals that go at once")
	flag.Int64Var(&o.stallRAM, "stall-ram", 1<<30, "stall: MaxRAM, in bytes")
	flag.BoolVar(&o.thrash, "thrash", false, "guards: also have the whole machine wait for memory")
	flag.Parse()
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
