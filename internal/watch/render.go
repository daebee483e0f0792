package watch

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// Style is how a span looks. What it means is always in the text, too.
type Style uint8

// The styles.
const (
	Plain Style = iota
	Dim
	Bold
	Good
	Low
	High
	Critical
)

// Span is a piece of a line in one style.
type Span struct {
	Text  string
	Style Style
}

// Row is a line of the screen.
type Row []Span

// Text is the row without styles.
func (r Row) Text() string {
	var b strings.Builder
	for _, s := range r {
		b.WriteString(s.Text)
	}
	return b.String()
}

func (r Row) width() (n int) {
	for _, s := range r {
		n += utf8.RuneCountInString(s.Text)
	}
	return n
}

// Screen is what there is to draw on.
type Screen struct {
	Width, Height int
	Unicode       bool // it shows more than ASCII
}

// Render draws v: at most Height rows, none wider than Width. What matters least goes
// first where there is no room: events, the repository, calm levels.
func Render(v *View, sc Screen) []Row {
	sc.Width, sc.Height = max(sc.Width, 1), max(sc.Height, 1)
	top := append(title(v, sc), writerRows(v, sc)...)
	foot := Row{{"q quits", Dim}}
	room := sc.Height - len(top) - 1
	parts := [][]Row{levelRows(v, sc, room), backupRows(v, sc), repositoryRows(v, sc), eventRows(v, sc)}
	rows := top
	for i, part := range parts {
		if len(part) == 0 {
			continue
		}
		later := 0 // rows that what matters more than calm levels will need
		if i == 0 && len(parts[1]) > 0 {
			later = min(len(parts[1])+1, room/2)
		}
		free := sc.Height - 1 - len(rows) - later
		if sc.Height >= 20 && free > 1 {
			rows = append(rows, Row{})
			free--
		}
		if i == len(parts)-1 && free < 2 {
			break // a heading alone says nothing
		}
		if i == len(parts)-1 && len(part) > free { // the newest events, below their heading
			part = append(part[:1:1], part[len(part)-free+1:]...)
		}
		rows = append(rows, part[:max(min(len(part), free), 0)]...)
	}
	for len(rows) < sc.Height-1 {
		rows = append(rows, Row{})
	}
	rows = append(rows[:max(min(len(rows), sc.Height-1), 0)], foot)
	for i := range rows {
		rows[i] = fit(rows[i], sc)
	}
	return rows
}

// fit cuts a row to the screen, and keeps from the terminal what is no text.
func fit(r Row, sc Screen) Row {
	left := sc.Width
	var out Row
	for _, s := range r {
		text := []rune(strings.Map(func(c rune) rune { return printable(c, sc.Unicode) }, s.Text))
		if len(text) > left {
			text = text[:left]
		}
		if left -= len(text); len(text) > 0 {
			out = append(out, Span{string(text), s.Style})
		}
	}
	return out
}

// printable is c, or what stands for it: names come from others, and a terminal
// obeys what it is sent.
func printable(c rune, all bool) rune {
	switch {
	case c == 'µ' && !all:
		return 'u'
	case c > unicode.MaxASCII && !all, !unicode.IsPrint(c):
		return '?'
	}
	return c
}

// sides puts left and right at the two ends of a row.
func sides(left, right Row, width int) Row {
	gap := width - left.width() - right.width()
	if gap < 1 {
		return left
	}
	return append(append(left, Span{strings.Repeat(" ", gap), Plain}), right...)
}

// tail is the end of s in at most n runes.
func tail(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return ".." + string(r[len(r)-max(n-2, 0):])
}

func title(v *View, sc Screen) []Row {
	clock := v.Time.Format("15:04:05")
	mode := Span{v.Mode, Plain}
	switch {
	case v.Error != "":
		mode = Span{"NOT ANSWERING", Critical}
	case v.Failed != "":
		mode = Span{"FAILED", Critical}
	case v.Quiet:
		mode = Span{"QUIET", High}
	}
	right := Row{mode, {"  " + clock, Dim}}
	rows := []Row{sides(Row{{tail(v.Dir, sc.Width-right.width()-1), Bold}}, right, sc.Width)}
	if v.Error != "" {
		why := v.Error
		if !v.Since.IsZero() {
			why = "since " + v.Since.Format("15:04:05") + ": " + why
		}
		rows = append(rows, Row{{why, Critical}})
	}
	if v.Failed != "" {
		rows = append(rows, Row{{v.Failed, Critical}})
	}
	return rows
}

// writerRows say what writers get done, and how long it takes them.
func writerRows(v *View, sc Screen) []Row {
	w := v.Writer
	rate, latency := "-", "-"
	if w.Span > 0 {
		rate = perSecond(w.CommitsPerSecond)
	}
	if w.LatencyP50 > 0 {
		latency = fmt.Sprintf("50 %% %s, 99 %% %s, max %s", human.Elapsed(w.LatencyP50), human.Elapsed(w.LatencyP99), human.Elapsed(w.LatencyMax))
	}
	lsn := fmt.Sprintf("LSN %s, %s in the file", human.Count(uint64(v.NewestLSN)), human.Bytes(v.FileBytes))
	if sc.Width < 72 {
		if w.LatencyP50 > 0 {
			latency = "99 % in " + human.Elapsed(w.LatencyP99)
		}
		return []Row{{{rate, Bold}, {" commits/s  " + latency, Plain}}}
	}
	first := sides(Row{{"commits    ", Dim}, {fmt.Sprintf("%-9s", rate+"/s"), Bold}, {" " + spark(v.recent, min(sc.Width-60, 60), sc.Unicode), Good}}, Row{{lsn, Plain}}, sc.Width)
	second := Row{{"latency    ", Dim}, {latency, Plain}}
	if w.LogWaits > 0 || w.DirtyWaits > 0 {
		second = sides(second, Row{{fmt.Sprintf("waits/s %s log, %s cleaner", perSecond(w.LogWaits), perSecond(w.DirtyWaits)), Low}}, sc.Width)
	}
	return []Row{first, second}
}

func perSecond(r float64) string {
	if r > 0 && r < 9.95 {
		return fmt.Sprintf("%.1f", r)
	}
	return human.Count(int64(r + 0.5))
}

// spark is a curve of the last n numbers.
func spark(list []float64, n int, all bool) string {
	marks := []rune("_.-=+*%#")
	if all {
		marks = []rune("▁▂▃▄▅▆▇█")
	}
	list = keepLast(list, max(n, 0))
	most := 0.0
	for _, x := range list {
		most = max(most, x)
	}
	var b strings.Builder
	for _, x := range list {
		i := 0
		if most > 0 {
			i = min(int(x/most*float64(len(marks))), len(marks)-1)
		}
		b.WriteRune(marks[i])
	}
	return b.String()
}

// styleOf is how a level's state looks.
func styleOf(state string) Style {
	switch state {
	case mvcc.StateLow:
		return Low
	case mvcc.StateHigh:
		return High
	case mvcc.StateCritical:
		return Critical
	}
	return Plain
}

// Gauge draws how full something is, with its marks where they are not passed; 0 is none.
func Gauge(share float64, width int, marks []float64) string {
	full := max(0, min(width, int(share*float64(width)+0.5)))
	bar := []byte(strings.Repeat("#", full) + strings.Repeat(".", width-full))
	for i, m := range marks {
		if at := int(m * float64(width)); m > 0 && at < width && at >= full {
			bar[at] = ":+|"[i%3]
		}
	}
	return "[" + string(bar) + "]"
}

// levelRows are the levels as gauges: in little room, those first that are not calm.
func levelRows(v *View, sc Screen, room int) []Row {
	list := v.Levels
	if len(list)+1 > room {
		list = nil
		for _, calm := range []bool{false, true} {
			for _, l := range v.Levels {
				if state, _ := l.worst(); (state == mvcc.StateNormal) == calm {
					list = append(list, l)
				}
			}
		}
	}
	var rows []Row
	if sc.Height >= 14 {
		if sc.Width >= 72 {
			head := fmt.Sprintf("%-12s %-*s %5s %10s %10s %8s", "LEVEL", gaugeWidth(sc)+2, "", "FULL", "USED", "LIMIT", "FULL IN")
			rows = append(rows, Row{{head, Dim}})
		} else {
			rows = append(rows, Row{{"LEVEL", Dim}})
		}
	}
	for _, l := range list {
		rows = append(rows, levelRow(l, sc))
	}
	return rows
}

func gaugeWidth(sc Screen) int {
	if sc.Width >= 72 {
		return min(sc.Width-66, 48)
	}
	return max(min(sc.Width-30, 20), 0)
}

func levelRow(l Level, sc Screen) Row {
	worst, words := l.worst()
	style := styleOf(worst)
	name := Span{fmt.Sprintf("%-12s ", clip(l.Name, 12)), Plain}
	percent := fmt.Sprintf("%4.0f%% ", 100*l.Share)
	bar := Span{Gauge(l.Share, gaugeWidth(sc), l.Marks[:]) + " ", style}
	state := Span{words, style}
	if worst == mvcc.StateNormal {
		state, bar.Style = Span{"", Plain}, Good
	}
	if sc.Width < 72 {
		return Row{name, bar, {percent, style}, state}
	}
	in := "-"
	if l.TimeToFull > 0 && (l.Used > 0 || worst != "normal") { // of what is empty, only the limit moves
		in = whole(max(l.TimeToFull, time.Second))
	}
	limit := l.amount(l.Limit)
	if l.Limit <= 0 {
		limit = "none"
	}
	return Row{name, bar, {percent, style}, {fmt.Sprintf("%10s %10s %8s ", l.amount(l.Used), limit, in), Plain}, state}
}

// backupRows are the live backups, two rows each.
func backupRows(v *View, sc Screen) []Row {
	var rows []Row
	for _, b := range v.Backups {
		kind := "full"
		if b.Incremental {
			kind = "incremental"
		}
		who := b.Owner
		if b.Label != "" {
			who = b.Label + ", " + who
		}
		right := Row{{fmt.Sprintf("%s at LSN %s, for %s", kind, human.Count(uint64(b.LSN)), whole(b.Age)), Dim}}
		head := fmt.Sprintf("BACKUP %d  ", b.ID)
		if sc.Width < 72 {
			right = nil
		}
		who = clip(who, sc.Width-len(head)-right.width()-1)
		rows = append(rows, sides(Row{{head, Dim}, {who, Plain}}, right, sc.Width), progressRow(b, sc))
		if b.Forecast != "" {
			rows = append(rows, Row{{"  " + b.Forecast, Plain}})
		}
	}
	return rows
}

func clip(s string, n int) string {
	r := []rune(s)
	return string(r[:max(min(len(r), n), 0)])
}

func progressRow(b Backup, sc Screen) Row {
	left := ""
	if b.TimeLeft > 0 {
		left = " " + whole(b.TimeLeft) + " left"
	}
	percent := fmt.Sprintf(" %3.0f%%", 100*b.Share)
	if sc.Width < 72 {
		return Row{{"  " + Gauge(b.Share, max(sc.Width-28, 4), nil), Good}, {percent, Bold}, {left, Plain}}
	}
	done := human.Bytes(b.Bytes)
	if b.TotalBytes > 0 {
		done += " of " + human.Bytes(b.TotalBytes)
	}
	rest := fmt.Sprintf("  %s  %s/s", done, human.Bytes(b.BytesPerSecond))
	if b.LimitBytesPerSec > 0 {
		rest += fmt.Sprintf(", held to %s/s", human.Bytes(b.LimitBytesPerSec))
	}
	row := Row{{"  " + Gauge(b.Share, 16, nil), Good}, {percent + left, Bold}, {rest, Plain}}
	return sides(row, Row{{b.Rung, rungStyle(b.Rung)}}, sc.Width)
}

// whole is a length of time without fractions of a second.
func whole(d time.Duration) string {
	return strings.Replace(human.Elapsed(d.Round(time.Second)), ".0 s", " s", 1)
}

func rungStyle(rung string) Style {
	switch rung {
	case string(mvcc.RungCache):
		return Dim
	case string(mvcc.RungSpill):
		return Low
	}
	return High
}

// repositoryRows say what would be lost, and who keeps what.
func repositoryRows(v *View, sc Screen) []Row {
	var rows []Row
	s := v.Snapshots
	if s.Readers > 0 || s.HeldBytes > 0 {
		rows = append(rows, Row{{"snapshots  ", Dim}, {fmt.Sprintf("%s, the oldest for %s; originals of %s are kept",
			human.Plural(s.Readers, "reader"), whole(s.OldestAge), human.Bytes(s.HeldBytes)), Plain}})
	}
	r := v.Repository
	switch {
	case r == nil:
	case r.Error != "":
		rows = append(rows, Row{{"repository ", Dim}, {r.Error, High}})
	case r.Backups == 0:
		rows = append(rows, Row{{"repository ", Dim}, {"no backup yet", High}})
	case r.Newest.IsZero():
		rows = append(rows, Row{{"repository ", Dim}, {"none of " + human.Plural(r.Backups, "backup") + " is sound: nothing can be restored", Critical}})
	default:
		text := fmt.Sprintf("%s %s, %s, %s old", r.Kind, r.Newest, r.State, whole(v.Time.Sub(r.Committed)))
		if r.Archived {
			text += fmt.Sprintf("; log to LSN %s", human.Count(uint64(r.ArchivedTo)))
		}
		rows = append(rows, Row{{"repository ", Dim}, {text, Plain}})
	}
	if age, known := v.AtRisk(); known {
		text := "everything that was committed is in the repository"
		if age > 0 {
			text = fmt.Sprintf("what was committed in the last %s is only here", whole(age))
		}
		rows = append(rows, Row{{"at risk    ", Dim}, {text, Plain}})
	}
	return rows
}

func eventRows(v *View, sc Screen) []Row {
	if len(v.Events) == 0 {
		return nil
	}
	rows := []Row{{{"EVENTS", Dim}}}
	for _, e := range v.Events {
		rows = append(rows, Row{{e.Time.Format("15:04:05") + "  ", Dim}, {e.Text, styleOf(e.Severity)}})
	}
	return rows
}
