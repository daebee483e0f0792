package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// settings are what every part gets.
type settings struct {
	part       string
	seed       uint64
	duration   time.Duration
	states     int
	sample     int
	executions int
	keep       string
	only       string

	mu   sync.Mutex // of what follows: parts say something from several goroutines
	out  io.Writer
	last time.Time // of a progress line
}

// part is one thing that can be proven for hours.
type part struct {
	name, text string
	run        func(context.Context, *settings) error
}

func parts() []part {
	return []part{
		{"crash", "power cuts at every event of every workload, every legal state", crash},
		{"recovery-crash", "the same, and most states cut again within recovery, twice", recoveryCrash},
		{"fault", "every place that calls the file system, failing in every way", faults},
		{"budget", "requests to the memory budget refused, one after the other", budget},
		{"corrupt", "damage to every kind of file: told, or harmless", corrupt},
		{"matrix", "every bit of every kind of file flipped, one at a time", matrix},
		{"snapshot", "what many live snapshots read, beside writers and backups, against the model", snapshots},
		{"schedule", "who goes on first: commit, read, checkpoint, spill, backup, in every order", schedules},
		{"model", "random histories of transactions and snapshots, under all options", histories},
		{"backup", "random histories of backups, prunes, chains and restores", backups},
		{"kill", "processes killed while they write and back up, on this file system", kill},
		{"power", "power cuts under processes that write and back up, on ext4 and XFS (root)", power},
		{"fuzz", "every fuzz target, each for its share of the duration", fuzz},
		{"fuzz-blind", "inputs by the million near what fuzzing has kept, for the fuzz targets of decoders", fuzzBlind},
		{"fuzz-planted", "a bug planted for every fuzz target, which has to find it in a minute", fuzzPlanted},
		{"mutants", "planted bugs: every one has to be found by a test", plantedBugs},
		{"mutate", "bugs made by a tool, in log, recovery, checkpoint, snapshot and backup", mutate},
	}
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes the command line and returns the exit code.
func run(args []string, out, errs io.Writer) int {
	s := settings{out: out, last: time.Now()}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Uint64Var(&s.seed, "seed", 0, "of all chance; 0: a new one")
	flags.DurationVar(&s.duration, "duration", 0, "how long new runs begin; 0: one round")
	flags.IntVar(&s.states, "states", 0, "crash states for each run of a workload; 0: all")
	flags.IntVar(&s.sample, "sample", 0, "planted bugs (of mutate: of each part), drawn by the seed; 0: all")
	flags.IntVar(&s.executions, "executions", 0, "of each target of fuzz-blind; 0: as many as its share of the duration is enough for")
	flags.StringVar(&s.keep, "keep", "", "`directory` for disks that show a failure; empty: a new one")
	flags.StringVar(&s.only, "only", "", "what has this `text` in its name: a workload, a planted bug, a fuzz target, a kind of file, a part")
	flags.Usage = func() {
		fmt.Fprintln(errs, "usage: soak PART [flags]; PART is all or one of")
		for _, p := range parts() {
			fmt.Fprintf(errs, "  %-15s %s\n", p.name, p.text)
		}
		fmt.Fprintln(errs, "flags:")
		flags.PrintDefaults()
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || args[0] == "help" {
		flags.Usage()
		return 2
	}
	s.part = args[0]
	if flags.Parse(args[1:]) != nil || flags.NArg() > 0 {
		return 2
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()>>1 | 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return s.runParts(ctx, errs)
}

// runParts runs one part, or all, each for its share of the time.
func (s *settings) runParts(ctx context.Context, errs io.Writer) int {
	chosen := parts()
	if s.part == "all" {
		s.duration /= time.Duration(len(chosen))
	} else {
		var one []part
		for _, p := range chosen {
			if p.name == s.part {
				one = append(one, p)
			}
		}
		chosen = one
	}
	if len(chosen) == 0 {
		fmt.Fprintf(errs, "soak: there is no part %q; try \"soak help\"\n", s.part)
		return 2
	}
	code := 0
	for _, p := range chosen {
		s.part = p.name
		fmt.Fprintf(s.out, "%s: repeat with: %s\n", p.name, s.again(""))
		began := time.Now()
		err := p.run(ctx, s)
		switch {
		case err == nil || errors.Is(err, context.Canceled):
			fmt.Fprintf(s.out, "%s: ok, %v\n", p.name, time.Since(began).Round(time.Second))
		default:
			fmt.Fprintf(s.out, "%s: FAILED: %v\n", p.name, err)
			code = 1
		}
	}
	return code
}

// again is the command that repeats what is being run.
func (s *settings) again(only string) string {
	text := fmt.Sprintf("go run ./internal/soak %s --seed %d", s.part, s.seed)
	if s.duration > 0 {
		text += fmt.Sprintf(" --duration %v", s.duration)
	}
	if s.states > 0 {
		text += fmt.Sprintf(" --states %d", s.states)
	}
	if s.sample > 0 {
		text += fmt.Sprintf(" --sample %d", s.sample)
	}
	if s.executions > 0 {
		text += fmt.Sprintf(" --executions %d", s.executions)
	}
	if only == "" {
		only = s.only
	}
	if only != "" {
		text += fmt.Sprintf(" --only %q", only)
	}
	return text
}

// progress prints a line, but not too many.
func (s *settings) progress(format string, args ...any) {
	s.mu.Lock()
	due := time.Since(s.last) >= 5*time.Second
	if due {
		s.last = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.say(format, args...)
	}
}

func (s *settings) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%s: %s\n", s.part, fmt.Sprintf(format, args...))
}

// atOnce calls do with each number below n, in order, so many at a time, until ctx ends.
func atOnce(ctx context.Context, n, most int, do func(i int)) {
	var group sync.WaitGroup
	var next atomic.Int64
	for range most {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	group.Wait()
}
