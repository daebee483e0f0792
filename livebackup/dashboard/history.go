package dashboard

import (
	"math"
	"strconv"
	"time"

	"github.com/spillwaydb/spillway/internal/watch"
)

// A point is what one look, or several put together, found.
type point struct {
	at       time.Time
	commits  float64 // per second
	p50, p99 float64 // ms
	backups  float64 // bytes per second, of all together
	levels   [levelsMax]float64
	looks    int
}

// levelsMax is how many levels have a curve.
const levelsMax = 12

// Sizes of the rings: half an hour of looks every two seconds, and six hours in
// steps of half a minute.
const (
	recentPoints = 900
	hoursPoints  = 720
	hoursStep    = 30 * time.Second
)

// ring is the last points.
type ring struct {
	points []point // by number modulo max
	max    int
	next   int // number of the next one
}

func (r *ring) add(p point) {
	if len(r.points) < r.max {
		r.points = append(r.points, p)
	} else {
		r.points[r.next%r.max] = p
	}
	r.next++
}

// all are the points, the oldest first; none before somebody has begun to collect them.
func (r *ring) all() []point {
	if len(r.points) == 0 || len(r.points) < r.max {
		return r.points
	}
	at := r.next % r.max
	return append(append([]point(nil), r.points[at:]...), r.points[:at]...)
}

// move has all points be so much later.
func (r *ring) move(d time.Duration) {
	for i := range r.points {
		r.points[i].at = r.points[i].at.Add(d)
	}
}

// history is the curves.
type history struct {
	last          time.Time // look
	names         []string  // of levels, in the order of point.levels
	recent, hours ring
	open          point // of hours, that more looks go into
}

// add enters a look.
func (h *history) add(v *watch.View) {
	h.recent.max, h.hours.max = recentPoints, hoursPoints
	p := point{at: v.Time, commits: math.NaN(), p50: math.NaN(), p99: math.NaN(), backups: math.NaN(), looks: 1}
	for i := range p.levels {
		p.levels[i] = math.NaN()
	}
	if v.Error == "" {
		h.fill(&p, v)
	}
	p.at = p.at.Round(0) // as it will be drawn
	if p.at.Before(h.last) {
		h.setBack(p.at.Sub(h.last))
	}
	h.last = p.at
	h.recent.add(p)
	if h.open.looks > 0 && p.at.Sub(h.open.at) >= hoursStep {
		h.hours.add(h.open)
		h.open = point{}
	}
	h.open.join(p)
}

// setBack moves what was seen before a clock was set back with it: a curve goes one way.
func (h *history) setBack(d time.Duration) {
	h.recent.move(d - time.Millisecond)
	h.hours.move(d - time.Millisecond)
	h.open.at = h.open.at.Add(d - time.Millisecond)
}

func (h *history) fill(p *point, v *watch.View) {
	if v.Writer.Span > 0 {
		p.commits = v.Writer.CommitsPerSecond
	}
	if v.Writer.LatencyP50 > 0 {
		p.p50, p.p99 = milliseconds(v.Writer.LatencyP50), milliseconds(v.Writer.LatencyP99)
	}
	p.backups = 0
	for _, b := range v.Backups {
		p.backups += float64(b.BytesPerSecond)
	}
	for _, l := range v.Levels {
		if i := h.level(l.Name); i >= 0 {
			p.levels[i] = l.Share
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// level is the place of a level among the curves; -1 if there are too many.
func (h *history) level(name string) int {
	for i, n := range h.names {
		if n == name {
			return i
		}
	}
	if len(h.names) == levelsMax {
		return -1
	}
	h.names = append(h.names, name)
	return len(h.names) - 1
}

// join makes one of two: what is bad at its worst, what is good on average.
func (p *point) join(q point) {
	if p.looks == 0 {
		*p = q
		return
	}
	n := float64(p.looks)
	p.commits, p.backups = mean(p.commits, n, q.commits), mean(p.backups, n, q.backups)
	p.p50, p.p99 = worst(p.p50, q.p50), worst(p.p99, q.p99)
	for i := range p.levels {
		p.levels[i] = worst(p.levels[i], q.levels[i])
	}
	p.looks++
}

// mean takes one more look into the mean of n; of one that is not known, the other.
func mean(of, n, q float64) float64 {
	switch {
	case math.IsNaN(of):
		return q
	case math.IsNaN(q):
		return of
	}
	return (of*n + q) / (n + 1)
}

// worst is the larger one; of one that is not known, the other.
func worst(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// curves are a history as the page wants it: columns, null where nothing is known.
type curves struct {
	Time    []int64             `json:"t"` // Unix ms
	Commits []number            `json:"commits"`
	P50     []number            `json:"p50_ms"`
	P99     []number            `json:"p99_ms"`
	Backups []number            `json:"backup_bytes_per_second"`
	Levels  map[string][]number `json:"levels"`
	Order   []string            `json:"level_names"`
}

// number is a float64 that may be not known.
type number float64

// MarshalJSON writes null for what is not known, and no more digits than are seen.
func (n number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, f, 'g', 5, 64), nil
}

func (h *history) curves(hours bool) curves {
	points := h.recent.all()
	if hours {
		points = h.hours.all()
		if h.open.looks > 0 {
			points = append(points[:len(points):len(points)], h.open)
		}
	}
	c := curves{Time: []int64{}, Commits: []number{}, P50: []number{}, P99: []number{}, Backups: []number{}, Levels: map[string][]number{}, Order: h.names}
	for _, p := range points {
		c.Time = append(c.Time, p.at.UnixMilli())
		c.Commits = append(c.Commits, number(p.commits))
		c.P50, c.P99 = append(c.P50, number(p.p50)), append(c.P99, number(p.p99))
		c.Backups = append(c.Backups, number(p.backups))
		for i, name := range h.names {
			c.Levels[name] = append(c.Levels[name], number(p.levels[i]))
		}
	}
	return c
}
