package watch

import (
	"fmt"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// EventLines are what happened since the look before, a line each.
func EventLines(v *View) (lines []string) {
	for _, e := range v.Events[len(v.Events)-v.fresh:] {
		mark := "event"
		if e.Severity != mvcc.StateNormal {
			mark += " " + strings.ToUpper(e.Severity)
		}
		lines = append(lines, oneLine(fmt.Sprintf("%s  %s: %s", e.Time.Format(time.RFC3339), mark, e.Text)))
	}
	return lines
}

// Line says a view in one line, for what is no terminal.
func Line(v *View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  ", v.Time.Format(time.RFC3339))
	if v.Error != "" {
		fmt.Fprintf(&b, "not answering: %s", v.Error)
		return oneLine(b.String())
	}
	if v.Failed != "" {
		fmt.Fprintf(&b, "FAILED: %s  ", v.Failed)
	}
	rate, p99 := "-", "-"
	if v.Writer.Span > 0 {
		rate = perSecond(v.Writer.CommitsPerSecond)
	}
	if v.Writer.LatencyP99 > 0 { // else none was timed
		p99 = human.Elapsed(v.Writer.LatencyP99)
	}
	fmt.Fprintf(&b, "lsn %v  commits/s %s  p99 %s ", v.NewestLSN, rate, p99)
	for _, l := range v.Levels {
		fmt.Fprintf(&b, " %s %.0f%%", l.Name, 100*l.Share)
		if state, words := l.worst(); state != mvcc.StateNormal {
			fmt.Fprintf(&b, " %s", strings.ToUpper(words))
		}
	}
	for _, k := range v.Backups {
		fmt.Fprintf(&b, "  backup %d %.0f%% %s/s", k.ID, 100*k.Share, human.Bytes(k.BytesPerSecond))
		if k.TimeLeft > 0 {
			fmt.Fprintf(&b, " %s left", whole(k.TimeLeft))
		}
	}
	return oneLine(b.String())
}

func oneLine(s string) string {
	return strings.Map(func(c rune) rune { return printable(c, true) }, s)
}
