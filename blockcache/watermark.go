package blockcache

import (
	"sync"
	"time"

	"github.com/spillwaydb/spillway/spill"
)

// The names of the cache's levels.
const (
	LevelRAM       = "ram"       // MaxRAM: what cannot leave it without I/O or loss
	LevelTemporary = "temporary" // temporary storage: its limit, or what its file system has left
	LevelOverflow  = "overflow"  // originals beyond MaxRAM
	LevelIndex     = "index"     // what is known of blocks without a frame, and buffers
	LevelHost      = "host"      // memory of the host or the control group
)

// gauges of a cache. All levels are looked at when someone calls Watch, ten times a
// second in a store. Of temporary storage and overflow the most that was in use since
// the last time is known, so that nothing is missed that was over within a tenth of a
// second. RAM and index are only looked at: what follows when RAM runs out for a moment
// is counted where it happens (spilled and overflowed frames).
type gauges struct {
	mu                               sync.Mutex
	ram, temp, overflow, index, host gauge
	memory                           hostMemory
	followed                         map[*Peaks]struct{}
}

func (g *gauges) init(o *Options) {
	marks := func(name string, d Marks) Marks { return o.Marks[name].Or(o.Marks[""]).Or(d) }
	g.ram = newGauge(LevelRAM, marks(LevelRAM, memoryMarks))
	g.index = newGauge(LevelIndex, marks(LevelIndex, memoryMarks))
	g.temp = newGauge(LevelTemporary, marks(LevelTemporary, DefaultMarks()))
	g.overflow = newGauge(LevelOverflow, marks(LevelOverflow, DefaultMarks()))
	g.host = newGauge(LevelHost, marks(LevelHost, memoryMarks))
	g.memory.ask, g.memory.reserve = o.Host, o.HostReserve
}

// levelReading is a level's reading, and the gauge that follows it.
type levelReading struct {
	reading
	gauge *gauge
}

// read looks at all levels. Of what was highest since the last time it forgets if fresh.
func (c *Cache) read(now time.Time, fresh bool) []levelReading {
	at := c.occupied()
	high := Peaks{Temporary: c.opts.Spill.PeakSince(fresh), Overflow: c.overflowPeak(fresh)}
	size, temp := int64(c.opts.BlockSize), c.opts.Spill.Stats()
	g := &c.gauges
	list := []levelReading{
		{reading{at.RAM, at.RAM, c.frames.limit * size, false}, &g.ram},
		{reading{at.Temporary, high.Temporary, tempLimitOf(&temp), temp.LimitBytes > 0}, &g.temp},
		{reading{at.Overflow, high.Overflow, c.overflowLimit(), false}, &g.overflow},
		{reading{c.indexed(), 0, c.budget.ram / overheadShare, false}, &g.index},
	}
	if h, said := g.memory.now(now); said {
		list = append(list, levelReading{reading{h.Limit - h.Available, 0, h.Limit, false}, &g.host})
	}
	return list
}

func (c *Cache) indexed() int64 { return c.overhead() - c.budget.promised.Load() }

// tempLimit is how much temporary storage can hold.
func (c *Cache) tempLimit() int64 {
	st := c.opts.Spill.Stats()
	return tempLimitOf(&st)
}

func tempLimitOf(st *spill.Stats) (n int64) {
	for _, d := range st.Dirs {
		n += tempRoom(d)
	}
	return n
}

// TemporaryShare is how much of temporary storage is in use, 0 to 1; 1 of none.
func (c *Cache) TemporaryShare() float64 {
	limit := c.tempLimit()
	if limit <= 0 {
		return 1
	}
	return float64(c.opts.Spill.UsedBytes()) / float64(limit)
}

// Granted is how many bytes originals have of temporary storage and overflow, and how
// many they may have.
func (c *Cache) Granted() (used, granted int64) {
	now := c.occupied()
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	return now.Temporary + now.Overflow, c.tempLimit() + c.overflowLimit()
}

// Levels are the levels as they are now.
func (c *Cache) Levels() []Level {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	var out []Level
	for _, r := range c.read(time.Now(), false) {
		out = append(out, r.gauge.level(r.reading))
	}
	return out
}

// Watch looks at every level and returns the watermarks that were crossed since
// the last time; and it asks the host how much overflow there may be from now on. Its
// caller calls it often enough for the rates that matter.
func (c *Cache) Watch(now time.Time) (crossed []Crossing) {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	c.follow()
	c.grantOverflow(c.gauges.memory.now(now))
	for _, r := range c.read(now, true) {
		crossed = append(crossed, r.gauge.see(now, r.reading)...)
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
