package forecast

import (
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// rates are what an hour brings.
type rates struct {
	overwrites, redo float64 // in the hour
	seen             bool    // by the history, not inferred
}

// history answers what an hour to come, or one that has passed, brings.
type history struct {
	n    float64 // blocks in use
	c    *mvcc.Changes
	now  rates
	late rates   // the last seconds, counted; seen only if there were enough
	took float64 // seconds of the hours before now that went into now
	week [len(mvcc.Changes{}.Week)]rates
	same *curve // of the hour before now
}

// recentMin is how much of the hours before now has to be looked at, if there is
// as much.
const recentMin = 30 * time.Minute

// seenMin is the least that says anything, lateMin the least that tells how much is being
// written right now.
const (
	seenMin = 10 * time.Second
	lateMin = 2 * time.Second
)

// What was seen of a database is too short to promise anything if it is less than a
// twentieth of the time that a backup takes, and than shortMin: the windows in which
// blocks were counted say little then of what a backup's time brings, and nothing of
// blocks that were born in them. Half an hour is never too short.
const (
	shortMin   = time.Minute
	shortShare = 1.0 / 20
)

func newHistory(n float64, c *mvcc.Changes) *history {
	h := &history{n: max(n, 1), c: c}
	windows := h.recent()
	if l := c.Lately; l.Seconds >= lateMin.Seconds() {
		h.late = rates{sane(l.Overwrites*3600, numberMax), sane(l.RedoBytes*3600, numberMax), true}
	}
	h.same = newCurve(h.n, windows)
	var sum rates
	known := 0.0
	for i := range c.Week {
		w := &c.Week[i]
		if w.Weeks > 0 {
			h.week[i] = rates{sane(w.Overwrites, numberMax), sane(w.RedoBytes, numberMax), true}
			sum.overwrites += h.week[i].overwrites
			sum.redo += h.week[i].redo
			known++
		}
	}
	mean := h.now
	if known > 0 {
		mean = rates{sum.overwrites / known, sum.redo / known, false}
	}
	if known == 0 || mean.overwrites < h.now.overwrites {
		mean = h.now // what was never seen is taken for the worse of the two
	}
	mean.seen = false
	for i := range h.week {
		if !h.week[i].seen {
			h.week[i] = mean
		}
	}
	return h
}

// seen reports whether there is any history at all.
func (h *history) seen() bool {
	if h.now.seen {
		return true
	}
	for i := range h.c.Week {
		if h.c.Week[i].Weeks > 0 {
			return true
		}
	}
	return false
}

// short reports whether too little was seen to promise anything of a backup that starts at
// start and takes so long.
func (h *history) short(start time.Time, takes time.Duration) bool {
	if !h.isNow(start) && h.ratesAt(start).seen {
		return false
	}
	enough := min(max(takes.Seconds()*shortShare, shortMin.Seconds()), recentMin.Seconds())
	return h.took < enough
}

// cautious is the history as it may be at worst, as far as it is not known: changes go on
// at least as fast as in the last seconds, and hit all blocks alike.
func (h *history) cautious() *history {
	c := *h
	c.same = newCurve(h.n, nil)
	c.now = rates{max(h.now.overwrites, h.late.overwrites), max(h.now.redo, h.late.redo), h.now.seen}
	for i, w := range c.week {
		if !w.seen {
			c.week[i] = rates{max(w.overwrites, h.late.overwrites), max(w.redo, h.late.redo), false}
		}
	}
	return &c
}

// onlyLate is a history in which it has always been as in the last seconds, and changes
// have hit all blocks alike.
func (h *history) onlyLate() *history {
	c := *h
	c.same, c.now = newCurve(h.n, nil), h.late
	for i := range c.week {
		c.week[i] = h.late
	}
	return &c
}

// recent averages the hours before now, and returns what is known of their windows.
func (h *history) recent() (windows []mvcc.ChangeWindow) {
	type sum struct {
		distinct, overwrites, weight float64
		within                       time.Duration
	}
	var sums []sum
	seen := 0.0
	for i := range h.c.Recent {
		r := &h.c.Recent[i]
		if seen >= recentMin.Seconds() {
			break
		}
		weight := sane(r.Seconds, 3600)
		seen += weight
		h.now.overwrites += sane(r.Overwrites, numberMax) * weight
		h.now.redo += sane(r.RedoBytes, numberMax) * weight
		for _, w := range r.Windows() {
			at := -1
			for j := range sums {
				if sums[j].within == w.Within {
					at = j
				}
			}
			if at < 0 {
				at, sums = len(sums), append(sums, sum{within: w.Within})
			}
			sums[at].distinct += sane(w.Distinct, numberMax) * weight
			sums[at].overwrites += sane(w.Overwrites, numberMax) * weight
			sums[at].weight += weight
		}
	}
	if h.took = seen; seen > 0 {
		h.now = rates{h.now.overwrites / seen, h.now.redo / seen, seen >= seenMin.Seconds()}
	}
	longest := time.Duration(0)
	for _, s := range sums {
		if s.weight > 0 {
			windows = append(windows, mvcc.ChangeWindow{Within: s.within, Distinct: s.distinct / s.weight, Overwrites: s.overwrites / s.weight})
			longest = max(longest, s.within)
		}
	}
	for _, w := range h.c.Running { // a window that is not over says what longer ones have not come to
		if w.Within > longest {
			windows = append(windows, w)
		}
	}
	return append(windows, h.longer(h.c.At)...)
}

// longer are the windows of more than an hour that a moment of the week is in.
func (h *history) longer(t time.Time) (windows []mvcc.ChangeWindow) {
	hour := mvcc.HourOfWeek(t)
	for _, w := range []mvcc.ChangeWindow{h.c.FourHours[hour/4], h.c.Days[hour/24]} {
		if w.Distinct >= 0 && w.Overwrites > 0 {
			windows = append(windows, w)
		}
	}
	return windows
}

// curveAt is the curve of a start at t.
func (h *history) curveAt(t time.Time) *curve {
	w := &h.c.Week[mvcc.HourOfWeek(t)]
	if h.isNow(t) || w.Weeks == 0 {
		return h.same
	}
	return newCurve(h.n, append(w.Windows(), h.longer(t)...))
}

// isNow reports whether the hours before now say more about t than the weeks before.
func (h *history) isNow(t time.Time) bool { return t.Sub(h.c.At).Abs() < time.Hour }

// ratesAt is what the hour that t is in brings.
func (h *history) ratesAt(t time.Time) rates {
	if h.isNow(t) && h.now.seen {
		return h.now
	}
	return h.week[mvcc.HourOfWeek(t)]
}

// course is how many changes, and how much redo, there are from a start on.
type course struct {
	overwrites, redo []float64 // up to the end of each part
	part             float64   // seconds
}

// courseParts bounds how finely time is cut, courseMax how far it is looked ahead:
// load repeats itself, and a database that is older than that has been hit all over.
const (
	courseParts = 2000
	courseMax   = 60 * 24 * time.Hour
)

// courseFrom adds up what the next seconds bring; direction -1: what the last brought.
func (h *history) courseFrom(start time.Time, seconds float64, direction int) *course {
	c := &course{part: seconds / courseParts}
	var o, r float64
	for i := range courseParts {
		middle := (float64(i) + 0.5) * c.part * float64(direction)
		b := h.ratesAt(start.Add(time.Duration(middle * float64(time.Second))))
		o += b.overwrites * c.part / 3600
		r += b.redo * c.part / 3600
		c.overwrites, c.redo = append(c.overwrites, o), append(c.redo, r)
	}
	return c
}
