package blockcache

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// LevelState says how full a level is, or how soon it will be.
type LevelState uint8

// The states of a level, in order.
const (
	LevelNormal   LevelState = iota
	LevelLow                 // worth knowing
	LevelHigh                // someone should look
	LevelCritical            // the next rung of the ladder is near
)

func (s LevelState) String() string {
	return [...]string{"normal", "low", "high", "critical"}[s]
}

// Marks say at what a level warns. Zero fields are defaults.
type Marks struct {
	// Low, High and Critical are shares of the level's limit: 0.5, 0.75, 0.9. A state
	// is left again 0.05 below its mark, or at half of it where that is more.
	Low, High, Critical float64
	// TimeLow, TimeHigh and TimeCritical are how long it will take until the level is
	// full, at the rate at which it fills: 1 hour, 10 minutes, 1 minute; negative:
	// never warn. A state is left again at twice its time. The rate is an average over
	// a twelfth of the mark's time: who says that an hour is left has looked for minutes.
	TimeLow, TimeHigh, TimeCritical time.Duration
	// Floor is the share of the limit below which time does not count, 0.1, so that what
	// comes and goes in an empty level warns nobody. Once time warns, half of it does.
	Floor float64
}

// marks are Marks without gaps.
type marks struct {
	share [LevelCritical + 1]float64
	time  [LevelCritical + 1]time.Duration // negative: none
	floor float64
}

// ErrMarks refuses marks that are not in order.
var ErrMarks = errors.New("marks are not in order")

// Or fills the zero fields of m from d.
func (m Marks) Or(d Marks) Marks {
	for _, f := range []struct{ to, from *float64 }{{&m.Low, &d.Low}, {&m.High, &d.High}, {&m.Critical, &d.Critical}, {&m.Floor, &d.Floor}} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	for _, f := range []struct{ to, from *time.Duration }{{&m.TimeLow, &d.TimeLow}, {&m.TimeHigh, &d.TimeHigh}, {&m.TimeCritical, &d.TimeCritical}} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	return m
}

// DefaultMarks are those of levels that have none of their own.
func DefaultMarks() Marks {
	return Marks{0.5, 0.75, 0.9, time.Hour, 10 * time.Minute, time.Minute, 0.1}
}

// memoryMarks are those of what fills up with every load: that RAM is about to be
// used is no news while most of it is free.
var memoryMarks = Marks{Floor: 0.5}.Or(DefaultMarks())

// Validate returns ErrMarks, with the reason, for marks that make no sense.
func (m Marks) Validate() error {
	m = m.Or(DefaultMarks())
	if !(0 < m.Low && m.Low < m.High && m.High < m.Critical) || math.IsInf(m.Critical, 0) {
		return fmt.Errorf("%w: shares %v, %v, %v", ErrMarks, m.Low, m.High, m.Critical)
	}
	last := time.Duration(math.MaxInt64)
	for _, t := range []time.Duration{m.TimeLow, m.TimeHigh, m.TimeCritical} {
		if t >= last {
			return fmt.Errorf("%w: times %v, %v, %v", ErrMarks, m.TimeLow, m.TimeHigh, m.TimeCritical)
		}
		if t > 0 {
			last = t
		}
	}
	if !(0 <= m.Floor && m.Floor <= 1) {
		return fmt.Errorf("%w: floor %v", ErrMarks, m.Floor)
	}
	return nil
}

func (m Marks) resolve() marks {
	return marks{
		share: [...]float64{LevelLow: m.Low, LevelHigh: m.High, LevelCritical: m.Critical},
		time:  [...]time.Duration{LevelLow: m.TimeLow, LevelHigh: m.TimeHigh, LevelCritical: m.TimeCritical},
		floor: m.Floor,
	}
}

// hysteresis is by how much a share has to fall below its mark.
const hysteresis = 0.05

// leave is the share below which a state is left.
func (m *marks) leave(s LevelState) float64 { return max(m.share[s]-hysteresis, m.share[s]/2) }

// Level is one level as it is now, in bytes; an age in nanoseconds.
type Level struct {
	Name              string
	Used, Limit, Peak int64
	State             LevelState
	TimeState         LevelState    // by how soon it will be full
	Rate              int64         // bytes per second at which it fills; 0: it does not
	TimeToFull        time.Duration // at that rate; 0: never
	Marks             [3]float64    // shares of the limit at which it is low, high, critical
}

// Crossing is a watermark that was crossed.
type Crossing struct {
	Level  Level
	Was    LevelState
	ByTime bool // it is TimeState that was Was
}

// reading is what a level is at one moment. high is the most that it was since the
// last reading, as far as that is known.
type reading struct {
	used, high, limit int64
	gone              bool // there should be room, and is none: a limit of 0 is no lack of one
}

func (r reading) share(used int64) float64 {
	switch {
	case r.limit <= 0 && r.gone:
		return 1
	case r.limit <= 0:
		return 0
	}
	return float64(used) / float64(r.limit)
}

// gauge follows one level. Every reading that moves the level over a mark changes its
// state, and nothing else does: what is told of a gauge is exactly the changes of its
// states.
type gauge struct {
	name  string
	marks marks
	state LevelState
	peak  int64
	fill  filling
}

func newGauge(name string, m Marks) gauge { return gauge{name: name, marks: m.resolve()} }

// see takes a reading and returns the marks that were crossed. A level that was higher
// between two readings than it is at either crosses up and down again.
func (g *gauge) see(now time.Time, r reading) (crossed []Crossing) {
	r.high = max(r.high, r.used)
	g.peak = max(g.peak, r.high)
	for _, used := range []int64{r.high, r.used} {
		was := g.state
		if g.move(r.share(used)); g.state != was {
			at := r
			at.used = used
			crossed = append(crossed, Crossing{Level: g.level(at), Was: was})
		}
	}
	was := g.fill.state
	if g.fill.see(now, r, &g.marks); g.fill.state != was {
		crossed = append(crossed, Crossing{Level: g.level(r), Was: was, ByTime: true})
	}
	return crossed
}

// move brings the state to where a share of the limit belongs.
func (g *gauge) move(share float64) {
	for g.state < LevelCritical && share >= g.marks.share[g.state+1] {
		g.state++
	}
	for g.state > LevelNormal && share < g.marks.leave(g.state) {
		g.state--
	}
}

func (g *gauge) level(r reading) Level {
	rate, left := g.fill.soonest(r)
	return Level{
		Name: g.name, Used: r.used, Limit: r.limit, Peak: max(g.peak, r.used), State: g.state, TimeState: g.fill.state,
		Rate: rate, TimeToFull: left, Marks: [3]float64(g.marks.share[LevelLow:]),
	}
}

// filling follows how fast what is left of a level shrinks: because it fills, or because
// its limit falls.
type filling struct {
	at    time.Time
	left  int64
	rates [LevelCritical + 1]float64 // bytes per second, each averaged over its mark's time
	on    [LevelCritical + 1]bool
	state LevelState // the highest that is on
}

// averagedOver is how many averages of a rate go into the time of its mark.
const averagedOver = 12

func (f *filling) see(now time.Time, r reading, m *marks) {
	left := max(0, r.limit-r.used)
	if took := now.Sub(f.at); !f.at.IsZero() && took > 0 {
		rate := float64(f.left-left) / took.Seconds()
		for s := LevelLow; s <= LevelCritical; s++ {
			if m.time[s] > 0 {
				over := m.time[s] / averagedOver
				f.rates[s] += (rate - f.rates[s]) * -math.Expm1(-float64(took)/float64(over))
			}
		}
	}
	f.at, f.left = now, left
	f.state = LevelNormal
	for s := LevelLow; s <= LevelCritical; s++ {
		f.on[s] = f.warns(s, r, m)
		if f.on[s] {
			f.state = s
		}
	}
}

// warns reports whether a mark of time is reached, or not yet left.
func (f *filling) warns(s LevelState, r reading, m *marks) bool {
	within, floor := m.time[s], m.floor
	if f.on[s] {
		within, floor = 2*within, floor/2
	}
	return m.time[s] > 0 && r.limit > 0 && r.share(r.used) >= floor && f.rates[s] > 0 && f.until(s, r) <= within
}

// until is how long it takes until the level is full, at the rate that goes with a mark.
func (f *filling) until(s LevelState, r reading) time.Duration {
	seconds := float64(max(0, r.limit-r.used)) / f.rates[s]
	return time.Duration(min(seconds*float64(time.Second), math.MaxInt64/4))
}

// soonest is the rate by which the level is full the soonest, and when; none, if by no
// rate it is within a year.
func (f *filling) soonest(r reading) (rate int64, left time.Duration) {
	const never = 365 * 24 * time.Hour
	left = never
	for s := LevelLow; s <= LevelCritical; s++ {
		if f.rates[s] >= 1 && r.limit > 0 {
			if t := f.until(s, r); t < left {
				rate, left = int64(f.rates[s]), max(t, 1)
			}
		}
	}
	if left == never {
		return 0, 0
	}
	return rate, left
}

// Gauge follows a level that is not the cache's own. Safe for concurrent use.
type Gauge struct {
	mu    sync.Mutex
	gauge gauge
}

// NewGauge follows the level of that name.
func NewGauge(name string, m Marks) *Gauge { return &Gauge{gauge: newGauge(name, m)} }

// Level is the level with its states as of the last Watch.
func (g *Gauge) Level(used, limit int64) Level {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gauge.level(reading{used: used, high: used, limit: limit})
}

// Watch takes a reading and returns the watermarks that were crossed.
func (g *Gauge) Watch(now time.Time, used, limit int64) []Crossing {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gauge.see(now, reading{used: used, high: used, limit: limit})
}
