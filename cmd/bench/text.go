package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/bench/load"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// headEvery is how many lines stand between two heads.
const headEvery = 20

// table prints ticks, a line of at most 80 columns each.
type table struct {
	out   io.Writer
	lines int
}

func (t *table) tick(k load.Tick) {
	at := k.At.Round(time.Second).String()
	if k.Filling {
		fmt.Fprintf(t.out, "%7s  filling: %s records\n", at, human.Count(k.Records))
		return
	}
	if t.lines%headEvery == 0 {
		fmt.Fprintln(t.out, "   time  commits/s     p50     p99     max  ram  tmp  ovf  log  snapshots")
	}
	t.lines++
	l := k.Latency
	fmt.Fprintf(t.out, "%7s %10s %7s %7s %7s %s  %s\n", at, human.Count(int(float64(l.Count)/k.Took.Seconds()+0.5)),
		human.Elapsed(l.P50), human.Elapsed(l.P99), human.Elapsed(l.Max), levelsText(k.Status.Levels), snapshotsText(k.Status.Snapshots))
}

// shownLevels are the levels that a line has columns for.
var shownLevels = []string{mvcc.LevelRAM, mvcc.LevelTemporary, mvcc.LevelOverflow, mvcc.LevelLog}

func levelsText(levels []mvcc.Level) string {
	var list []string
	for _, name := range shownLevels {
		i := slices.IndexFunc(levels, func(l mvcc.Level) bool { return l.Name == name })
		if i < 0 || levels[i].Limit == 0 {
			list = append(list, "   -")
			continue
		}
		list = append(list, fmt.Sprintf("%3d%%", 100*levels[i].Used/levels[i].Limit))
	}
	return strings.Join(list, " ")
}

func snapshotsText(list []mvcc.SnapshotStatus) string {
	if len(list) == 0 {
		return "-"
	}
	held := int64(0)
	for _, s := range list {
		held += s.HeldBytes
	}
	return fmt.Sprintf("%d: %s", len(list), human.Bytes(held))
}

func summaryText(w io.Writer, s *load.Summary) {
	if s.Filled > 0 {
		fmt.Fprintf(w, "filled     %s records in %s\n", human.Count(s.Filled), human.Elapsed(s.FillTook))
	}
	fmt.Fprintf(w, "commits    %s in %s: %s/s, %s of values\n", human.Count(s.Commits), human.Elapsed(s.Took),
		human.Count(int(s.PerSecond())), human.Bytes(s.Bytes))
	fmt.Fprintf(w, "latency    p50 %s, p99 %s, max %s\n", human.Elapsed(s.P50), human.Elapsed(s.P99), human.Elapsed(s.Max))
	var peaks []string
	for _, p := range s.Peaks {
		if slices.Contains(shownLevels, p.Level) {
			peaks = append(peaks, fmt.Sprintf("%-9s %s of %s", p.Level, human.Bytes(p.Bytes), human.Bytes(p.Limit)))
		}
	}
	fmt.Fprintf(w, "peaks      %s\n", strings.Join(peaks, "\n           "))
	fmt.Fprintf(w, "originals  %s made, %s shared, %s spilled\n", human.Count(s.Made), human.Count(s.Shared), human.Count(s.Spilled))
	fmt.Fprintf(w, "waits      %s commits for log space, %s for the cleaner\n", human.Count(s.LogWaits), human.Count(s.Dirty))
}
