package blockcache

import (
	"sync"
	"time"

	"github.com/spillwaydb/spillway/internal/hostmem"
	"github.com/spillwaydb/spillway/spill"
)

// LevelState says how full a level is.
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

// thresholds are the shares of a limit at which a level enters a state; it
// leaves the state again hysteresis below.
var thresholds = [...]float64{LevelLow: 0.5, LevelHigh: 0.75, LevelCritical: 0.9}

const hysteresis = 0.05

// Level is one level as it is now, in bytes.
type Level struct {
	Name              string
	Used, Limit, Peak int64
	State             LevelState
}

// Crossing is a watermark that was crossed.
type Crossing struct {
	Level Level
	Was   LevelState
}

// gauge follows one level.
type gauge struct {
	state LevelState
	peak  int64
}

// see takes a reading and reports whether the state changed.
func (g *gauge) see(used, limit int64) (was LevelState, changed bool) {
	g.peak = max(g.peak, used)
	was = g.state
	share := 0.0
	if limit > 0 {
		share = float64(used) / float64(limit)
	}
	for g.state < LevelCritical && share >= thresholds[g.state+1] {
		g.state++
	}
	for g.state > LevelNormal && share < thresholds[g.state]-hysteresis {
		g.state--
	}
	return was, g.state != was
}

// Gauge follows a level that is not the cache's own. Safe for concurrent use.
type Gauge struct {
	mu    sync.Mutex
	gauge gauge
}

// Level is the level with its state as of the last Watch.
func (g *Gauge) Level(name string, used, limit int64) Level {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Level{name, used, limit, max(g.gauge.peak, used), g.gauge.state}
}

// Watch takes a reading and reports whether a watermark was crossed.
func (g *Gauge) Watch(name string, used, limit int64) (c Crossing, crossed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.Was, crossed = g.gauge.see(used, limit)
	c.Level = Level{name, used, limit, g.gauge.peak, g.gauge.state}
	return c, crossed
}

// gauges of a cache.
type gauges struct {
	mu                               sync.Mutex
	ram, temp, overflow, index, host gauge
	memory                           hostMemory
	followed                         map[*Peaks]struct{}
}

// reading is a level's name and size, and the gauge that follows it.
type reading struct {
	name        string
	used, limit int64
	gauge       *gauge
}

// read looks at all levels.
func (c *Cache) read() []reading {
	now := c.occupied()
	tempLimit := int64(0)
	for _, d := range c.opts.Spill.Stats().Dirs {
		tempLimit += tempRoom(d)
	}
	size := int64(c.opts.BlockSize)
	list := []reading{
		{"ram", now.RAM, c.frames.limit * size, &c.gauges.ram},
		{"temporary", now.Temporary, tempLimit, &c.gauges.temp},
		{"overflow", now.Overflow, c.frames.overflow * size, &c.gauges.overflow},
		{"index", c.overhead() - c.budget.promised.Load(), c.budget.ram / overheadShare, &c.gauges.index},
	}
	if used, total, ok := c.gauges.memory.read(time.Now()); ok {
		list = append(list, reading{"host", used, total, &c.gauges.host})
	}
	return list
}

// hostEvery is how often the host is asked for its memory: each time, some files
// of the system are read.
const hostEvery = 400 * time.Millisecond

// hostMemory remembers what the host said last.
type hostMemory struct {
	asked       time.Time
	used, total int64
	ok          bool
}

func (h *hostMemory) read(now time.Time) (used, total int64, ok bool) {
	if h.asked.IsZero() || now.Sub(h.asked) >= hostEvery {
		h.asked = now
		limit, err1 := hostmem.Limit()
		free, err2 := hostmem.Available()
		h.used, h.total, h.ok = limit-free, limit, err1 == nil && err2 == nil
	}
	return h.used, h.total, h.ok
}

// Levels are the levels as they are now.
func (c *Cache) Levels() []Level {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	var out []Level
	for _, r := range c.read() {
		out = append(out, Level{r.name, r.used, r.limit, max(r.gauge.peak, r.used), r.gauge.state})
	}
	return out
}

// Watch looks at every level and returns the watermarks that were crossed since
// the last time. Its caller calls it often enough for the rates that matter.
func (c *Cache) Watch() (crossed []Crossing) {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	c.follow()
	for _, r := range c.read() {
		if was, changed := r.gauge.see(r.used, r.limit); changed {
			crossed = append(crossed, Crossing{Level{r.name, r.used, r.limit, r.gauge.peak, r.gauge.state}, was})
		}
	}
	return crossed
}

// tempRoom is how much a directory can hold: its limit, or less if its file
// system has less.
func tempRoom(d spill.DirStats) int64 {
	if d.FreeBytes < 0 {
		return d.LimitBytes
	}
	return min(d.LimitBytes, d.FileBytes+d.FreeBytes)
}
