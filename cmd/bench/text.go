package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/bench/load"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// tickText is a line of less than 80 columns, except while snapshots are open.
func tickText(t load.Tick) string {
	at := t.At.Round(time.Second).String()
	if t.Filling {
		return fmt.Sprintf("%6s  filling: %s records  %s", at, human.Count(t.Records), levelsText(t.Status.Levels))
	}
	l := t.Latency
	perSecond := int(float64(l.Count)/t.Took.Seconds() + 0.5)
	return fmt.Sprintf("%6s %7s/s  p50 %6s  p99 %6s  max %6s  %s%s", at, human.Count(perSecond),
		human.Elapsed(l.P50), human.Elapsed(l.P99), human.Elapsed(l.Max), levelsText(t.Status.Levels), snapshotsText(t.Status.Snapshots))
}

// levelNames are short names of the levels that a line shows.
var levelNames = map[string]string{"ram": "ram", "temporary": "tmp", "overflow": "ovf", "log": "log"}

func levelsText(levels []mvcc.Level) string {
	var list []string
	for _, l := range levels {
		name, shown := levelNames[l.Name]
		if !shown || l.Limit == 0 {
			continue
		}
		mark := ""
		if l.State != "normal" {
			mark = "!"
		}
		list = append(list, fmt.Sprintf("%s %d%%%s", name, 100*l.Used/l.Limit, mark))
	}
	return strings.Join(list, " ")
}

func snapshotsText(list []mvcc.SnapshotStatus) string {
	if len(list) == 0 {
		return ""
	}
	held, backups := int64(0), 0
	for _, s := range list {
		held += s.HeldBytes
		if s.Kind == "backup" {
			backups++
		}
	}
	return fmt.Sprintf("  %s, %s hold %s", human.Plural(backups, "backup"), human.Plural(len(list)-backups, "reader"), human.Bytes(held))
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
		if _, shown := levelNames[p.Level]; shown {
			peaks = append(peaks, fmt.Sprintf("%s %s of %s", p.Level, human.Bytes(p.Bytes), human.Bytes(p.Limit)))
		}
	}
	fmt.Fprintf(w, "peaks      %s\n", strings.Join(peaks, ", "))
	fmt.Fprintf(w, "originals  %s made, %s shared, %s spilled\n", human.Count(s.Made), human.Count(s.Shared), human.Count(s.Spilled))
	fmt.Fprintf(w, "waits      %s commits for log space, %s for the cleaner\n", human.Count(s.LogWaits), human.Count(s.Dirty))
}
