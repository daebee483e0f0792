package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spillwaydb/spillway/internal/prove"
	"github.com/spillwaydb/spillway/internal/simfs"
)

func crash(ctx context.Context, s *settings) error {
	return s.sweep(ctx, prove.CrashOptions{States: s.states, Recovery: 5, RecoveryStates: 8})
}

func recoveryCrash(ctx context.Context, s *settings) error {
	states := s.states
	if states == 0 {
		states = 300
	}
	return s.sweep(ctx, prove.CrashOptions{States: states, Recovery: 700, RecoveryStates: 12})
}

// sweep runs crash states and prints what was done.
func (s *settings) sweep(ctx context.Context, o prove.CrashOptions) error {
	o.Seed, o.Duration = s.seed, s.duration
	for _, wl := range prove.Workloads() {
		if strings.Contains(wl.Name, s.only) {
			o.Workloads = append(o.Workloads, wl)
		}
	}
	if len(o.Workloads) == 0 {
		return fmt.Errorf("no workload has %q in its name", s.only)
	}
	o.Progress = told[prove.CrashCounts](s)
	return proof(ctx, s, prove.Crash, o)
}

// failure leaves what a failure found and says how to repeat it.
func (s *settings) failure(err error) error {
	var f *prove.Failure
	if !errors.As(err, &f) {
		return err
	}
	s.say("repeat with: go run ./internal/soak %s --seed %d --states %d", s.part, f.Seed, s.states)
	if f.Disk == nil {
		return err
	}
	dir, keepErr := s.export(f.Disk)
	if keepErr != nil {
		return errors.Join(err, keepErr)
	}
	s.say("the disk, as it was found, is in %s", dir)
	return err
}

// export writes a simulated disk as files.
func (s *settings) export(disk *simfs.FS) (dir string, err error) {
	if dir = s.keep; dir == "" {
		if dir, err = os.MkdirTemp("", "soak"); err != nil {
			return "", err
		}
	}
	for _, name := range disk.Names() {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if info, err := disk.Lstat(name); err != nil {
			return dir, err
		} else if info.IsDir() {
			if err := os.MkdirAll(to, 0o700); err != nil {
				return dir, err
			}
			continue
		}
		data, err := disk.Bytes(name)
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			return dir, err
		}
	}
	return dir, nil
}

// faults fails operations of every call site, in every way.
func faults(ctx context.Context, s *settings) error {
	o := prove.FaultOptions{Seed: s.seed, Duration: s.duration}
	if s.duration > 0 {
		o.Each, o.Pairs = 3, 3000
	}
	o.Progress = told[prove.FaultCounts](s)
	counts, err := prove.Fault(ctx, o)
	s.say("%v", counts)
	for _, missed := range counts.Missed {
		s.say("NOT HIT: %s", missed)
	}
	return s.failure(err)
}

// corrupt damages files, one place at a time, and reads everything.
func corrupt(ctx context.Context, s *settings) error {
	return proof(ctx, s, prove.Corrupt, prove.CorruptOptions{Seed: s.seed, Duration: s.duration, Damages: 5000, Progress: told[prove.CorruptCounts](s)})
}

// matrix flips every bit of every kind of file, as far as the time reaches.
func matrix(ctx context.Context, s *settings) error {
	return proof(ctx, s, prove.Matrix, prove.MatrixOptions{Seed: s.seed, Duration: s.duration, Only: s.only, Progress: told[prove.MatrixCounts](s)})
}

// snapshots compares what readers see.
func snapshots(ctx context.Context, s *settings) error {
	return proof(ctx, s, prove.Snapshots, prove.SnapshotOptions{Seed: s.seed, Duration: s.duration, Reads: 2_000_000, Opened: 50_000, Progress: told[prove.SnapshotCounts](s)})
}

// schedules explores who goes on first.
func schedules(ctx context.Context, s *settings) error {
	return proof(ctx, s, prove.Schedules, prove.ScheduleOptions{Seed: s.seed, Duration: s.duration, Schedules: 100_000, Progress: told[prove.ScheduleCounts](s)})
}

// told prints how far a proof has come.
func told[C fmt.Stringer](s *settings) func(C) {
	return func(c C) { s.progress("%v", c) }
}

// proof runs one of package prove, and prints what it has done.
func proof[O any, C fmt.Stringer](ctx context.Context, s *settings, run func(context.Context, O) (C, error), o O) error {
	counts, err := run(ctx, o)
	s.say("%v", counts)
	return s.failure(err)
}
