package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/internal/human"
)

// The plot is plotColumns wide beside its scale, and fits a terminal of 80
// columns and 24 lines.
const (
	scaleColumns = 11
	plotColumns  = 66
	plotRows     = 8
)

// brush is what a plot is drawn with.
type brush struct {
	layers [3]rune // memory, temporary storage, overflow
	spark  []rune  // from least to most
	corner string
	side   string
	floor  string
}

var (
	unicodeBrush = brush{[3]rune{'░', '▒', '█'}, []rune("▁▂▃▄▅▆▇█"), "┤", "│", "─"}
	asciiBrush   = brush{[3]rune{'.', 'o', '#'}, []rune("_.-=+*%#"), "|", "|", "-"}
)

// column is a moment of the plot.
type column struct {
	commits float64 // per second
	levels  [3]int64
}

// columnsOf spreads samples over the plot's columns. A column shows the highest
// levels that its time saw.
func columnsOf(samples []Sample, span time.Duration) []column {
	cols := make([]column, plotColumns)
	var last Sample
	var seen column
	for i := range cols {
		end := span * time.Duration(i+1) / plotColumns
		highest := int64(-1)
		first := last
		for len(samples) > 0 && samples[0].At <= end {
			last, samples = samples[0], samples[1:]
			if total := last.RAM + last.Temporary + last.Overflow; total > highest {
				highest, seen.levels = total, [3]int64{last.RAM, last.Temporary, last.Overflow}
			}
		}
		if dt := last.At - first.At; dt > 0 {
			seen.commits = float64(last.Commits-first.Commits) / dt.Seconds()
		}
		cols[i] = seen
	}
	return cols
}

// plot draws throughput and levels over time.
func plot(samples []Sample, marks []mark, b brush) string {
	if len(samples) == 0 {
		return ""
	}
	span := samples[len(samples)-1].At
	cols := columnsOf(samples, span)
	var out strings.Builder
	drawSpark(&out, cols, b)
	drawLevels(&out, cols, b)
	drawAxis(&out, span, marks, b)
	return out.String()
}

func drawSpark(out *strings.Builder, cols []column, b brush) {
	most := 1.0
	for _, c := range cols {
		most = max(most, c.commits)
	}
	fmt.Fprintf(out, "%*s %s", scaleColumns-2, "commits/s", b.side)
	for _, c := range cols {
		n := int(c.commits / most * float64(len(b.spark)))
		out.WriteRune(b.spark[min(n, len(b.spark)-1)])
	}
	fmt.Fprintf(out, "\n%*s %s\n", scaleColumns-2, "max "+human.Count(int(most)), b.side)
}

func drawLevels(out *strings.Builder, cols []column, b brush) {
	most := int64(1)
	for _, c := range cols {
		most = max(most, c.levels[0]+c.levels[1]+c.levels[2])
	}
	for row := plotRows; row > 0; row-- {
		label := ""
		if row == plotRows || row == plotRows/2 {
			label = human.Bytes(most * int64(row) / plotRows)
		}
		fmt.Fprintf(out, "%*s %s", scaleColumns-2, label, b.corner)
		line := make([]rune, 0, len(cols))
		for _, c := range cols {
			line = append(line, b.at(c, most*(2*int64(row)-1)/(2*plotRows)))
		}
		out.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
}

// at is what stands in a column at a height in bytes.
func (b brush) at(c column, height int64) rune {
	for i, level := range c.levels {
		if height -= level; height < 0 {
			return b.layers[i]
		}
	}
	return ' '
}

func drawAxis(out *strings.Builder, span time.Duration, marks []mark, b brush) {
	axis := []rune(strings.Repeat(b.floor, plotColumns))
	for _, m := range marks {
		i := int(int64(m.at) * plotColumns / int64(max(span, 1)))
		axis[max(0, min(i, plotColumns-1))] = rune(m.letter)
	}
	fmt.Fprintf(out, "%*s %s%s\n", scaleColumns-2, "0", b.side, string(axis))
	end := human.Elapsed(span)
	fmt.Fprintf(out, "%*s0 s%*s\n", scaleColumns, "", plotColumns-3, end)
}

// plotLegend explains the plot's letters and layers.
func plotLegend(b brush) string {
	return fmt.Sprintf(`  originals: %c in memory  %c in temporary storage  %c in the overflow
  moments:   R report's snapshot  B backup and auditor  C backup complete
             E both snapshots end`, b.layers[0], b.layers[1], b.layers[2])
}
