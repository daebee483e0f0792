package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/snapshot"
)

// memoryRuns are what is measured, by the names that the flag -runs knows.
var memoryRuns = []struct {
	name string
	redo redoRate
	swap bool
}{{"below", redoBelow, false}, {"half", redoHalf, false}, {"faster", redoFaster, false}, {"swap", redoHalf, true}}

// memoryPart measures the backups of a process whose memory is limited.
func memoryPart(ctx context.Context, r *report, dir string, s memorySizes) error {
	for _, run := range memoryRuns {
		if s.runs != "" && !slices.Contains(strings.Split(s.runs, ","), run.name) {
			continue
		}
		if err := memoryOnce(ctx, r, dir, s, run.redo, run.swap); err != nil {
			return fmt.Errorf("redo %s: %w", run.redo, err)
		}
	}
	return nil
}

func memoryOnce(ctx context.Context, r *report, parent string, s memorySizes, redo redoRate, swap bool) (err error) {
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r.printf("redo %s%s\n", redo, map[bool]string{true: ", with swap switched on"}[swap])
	if swap {
		off, err := swapOn(ctx, filepath.Join(dir, "swap"))
		if err != nil {
			r.say("SKIPPED", "%v", err)
			return nil
		}
		defer func() { err = errors.Join(err, off()) }()
	}
	o, err := limited(ctx, dir, s, redo)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		r.say("SKIPPED", "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	o.print(r, s, redo, swap)
	return nil
}

// print says what came of a run.
func (o *memoryOutcome) print(r *report, s memorySizes, redo redoRate, swap bool) {
	r.say("MaxRAM, overflow's cap, limit of the group", "%s, %s, %s", human.Bytes(s.ram), human.Bytes(s.overflow), human.Bytes(o.limit))
	r.say("database, temporary storage", "%s, %s", human.Bytes(o.databaseBytes), human.Bytes(o.temp))
	r.say("sink, redo", "%s/s, %s/s", human.Bytes(o.Sink), human.Bytes(int64(o.Redo)))
	r.atLeast(16, float64(o.databaseBytes)/float64(s.ram), "", "database, times MaxRAM")
	r.want(o.killed == 0, "none", "processes that the kernel ended", "%d", o.killed)
	r.say("most that the group had, page cache included", "%s", human.Bytes(o.usagePeak))
	r.want(o.SwapIn == 0, "0", "read back from swap, by the group", "%s", human.Bytes(o.SwapIn))
	r.say("of the process in swap, at most (swappiness 0)", "%s", human.Bytes(o.SwapOut))
	r.want(o.Failed == "", "none", "commits failed or refused", "%s", nothing(o.Failed, "none"))
	r.say("commits per second before, during, after", "%.0f, %.0f, %.0f", o.Before, o.During, o.After)
	promise := map[bool]string{true: ", no promise"}[o.PlanShort]
	if redo == redoFaster {
		r.say("during / before", "%.3f", o.During/o.Before)
		r.want(o.Plan == forecast.Breaks, "breaks", "the plan, before", "%s%s", o.Plan, promise)
		r.want(o.Reason == string(snapshot.ReasonLogHeld), "broken: log", "the backup", "%s", nothing(o.Reason, "done"))
	} else {
		r.atLeast(0.95, o.During/o.Before, "", "during / before")
		r.want(o.Plan == forecast.Fits || o.Plan == forecast.FallsForward, "no break", "the plan, before", "%s%s", o.Plan, promise)
		r.want(o.Error == "" && o.restored == "", "whole", "the backup, restored and checked", "%s", nothing(o.Error+o.restored, "whole"))
	}
	rec := &o.Record
	r.say("rung, S, F, E", "%s, %v, %v, %v", rec.Rung, rec.LSN, rec.FallForwardLSN, rec.EndLSN)
	r.say("took", "%s", human.Elapsed(rec.Duration))
	r.say("originals made, peak; overflow's peak", "%s, %s; %s", human.Count(rec.Cost.OriginalsMade), human.Count(rec.Cost.OriginalsPeak), human.Bytes(rec.Cost.OverflowPeakBytes))
	r.say("longest commit before, during", "%s, %s", human.Elapsed(o.LongestBefore), human.Elapsed(o.LongestDuring))
	r.say("memory that it could still take, least", "%s, reserve %s", human.Bytes(o.AvailableLeast), human.Bytes(o.Reserve))
	r.want(!o.WarnedLate, "yes", "warned of before it was under its reserve", "%v, at %s", !o.WarnedLate, human.Bytes(o.WarnedAt))
	for _, ev := range o.Events {
		if len(ev) < 160 {
			r.printf("    %s\n", ev)
		}
	}
}

func nothing(s, name string) string {
	if s == "" {
		return name
	}
	return s
}
