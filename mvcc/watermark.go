package mvcc

import (
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// The names of levels, as Options.Marks knows them.
const (
	LevelRAM         = blockcache.LevelRAM       // MaxRAM: what cannot leave it without I/O or loss
	LevelTemporary   = blockcache.LevelTemporary // temporary storage: its limit, or what its file system has left
	LevelOverflow    = blockcache.LevelOverflow  // originals beyond MaxRAM
	LevelIndex       = blockcache.LevelIndex     // what is known of blocks without a frame, and buffers
	LevelHost        = blockcache.LevelHost      // memory of the host or the control group
	LevelLog         = "log"                     // what recovery needs: it comes and goes with each checkpoint, and warns nobody
	LevelHeldLog     = "held log"                // what is kept only for those who follow the log (R14)
	LevelArchiveLag  = "archive lag"             // age of the oldest commit that the archive does not have
	LevelSnapshotAge = "snapshot age"            // of the oldest live snapshot
)

// Marks say at what a level warns.
type Marks = blockcache.Marks

// ageMarks are those of levels that are ages: once, twice and four times what is
// configured. An age fills at the rate of one second per second, which is no news.
var ageMarks = Marks{Low: 1, High: 2, Critical: 4, TimeLow: -1, TimeHigh: -1, TimeCritical: -1, Floor: 1}

// watermarks are the levels that the cache does not know. The gauges are safe for
// concurrent use, the rest is the ticker's.
type watermarks struct {
	heldLog, archiveLag, snapshotAge *blockcache.Gauge
	archive                          lagClock
}

func (w *watermarks) init(o *Options) {
	w.heldLog = blockcache.NewGauge(LevelHeldLog, o.Marks[LevelHeldLog].Or(o.Marks[""]).Or(blockcache.DefaultMarks()))
	age := func(name string) *blockcache.Gauge { return blockcache.NewGauge(name, o.Marks[name].Or(ageMarks)) } // those for all levels are of bytes
	w.archiveLag, w.snapshotAge = age(LevelArchiveLag), age(LevelSnapshotAge)
}

func levelOf(g blockcache.Level, unit string) Level {
	return Level{
		Name: g.Name, Unit: unit, Used: g.Used, Limit: g.Limit, Peak: g.Peak, State: g.State.String(),
		TimeState: g.TimeState.String(), RateBytesPerSecond: g.Rate, TimeToFull: g.TimeToFull,
		Marks: g.Marks,
	}
}

// levels are the levels as they are now.
func (s *Store) levels() []Level {
	var out []Level
	for _, g := range s.cache.Levels() {
		out = append(out, levelOf(g, UnitBytes))
	}
	w, now := &s.marks, time.Now()
	st := s.log.Stats()
	return append(out,
		Level{Name: LevelLog, Unit: UnitBytes, Used: st.LiveBytes, Limit: st.LimitBytes, State: StateNormal, TimeState: StateNormal},
		levelOf(w.heldLog.Level(st.HeldBytes, max(s.opts.LogHoldMax, 0)), UnitBytes),
		levelOf(w.archiveLag.Level(int64(w.archive.age(now)), int64(s.opts.ArchiveLagWarn)), UnitAge),
		levelOf(w.snapshotAge.Level(int64(s.snapshots.OldestAge(now)), int64(s.opts.SnapshotAgeWarn)), UnitAge))
}

// watch looks at the watermarks and tells of every crossing.
func (s *Store) watch(now time.Time) {
	for _, c := range s.cache.Watch(now) {
		s.crossed(c, UnitBytes)
	}
	w := &s.marks
	for _, c := range w.heldLog.Watch(now, s.log.Stats().HeldBytes, max(s.opts.LogHoldMax, 0)) {
		s.crossed(c, UnitBytes)
	}
	w.archive.tick(now, s.log.Durable(), s.lastCommitTime(), s.archivedTo())
	for _, c := range w.archiveLag.Watch(now, int64(w.archive.age(now)), int64(s.opts.ArchiveLagWarn)) {
		s.crossed(c, UnitAge)
	}
	for _, c := range w.snapshotAge.Watch(now, int64(s.snapshots.OldestAge(now)), int64(s.opts.SnapshotAgeWarn)) {
		s.crossed(c, UnitAge)
	}
}

func (s *Store) crossed(c blockcache.Crossing, unit string) {
	ev := Event{Kind: EventWatermark, Level: levelOf(c.Level, unit), Was: c.Was.String(), Why: "how full it is"}
	if ev.ByTime = c.ByTime; c.ByTime {
		ev.Why = "how soon it will be full"
	}
	s.emit(ev)
}

// nameArchive is what an archive calls itself when it follows the log.
const nameArchive = "archive"

// archivedTo is the first commit that an archive does not have, 0 if none follows. One
// that followed before the store was opened counts, until it is given up.
func (s *Store) archivedTo() block.LSN {
	for _, h := range s.log.Holders() { // the oldest first
		if h.Name == nameArchive || h.Name == keptName {
			return h.LSN
		}
	}
	return 0
}

// lagClock knows about when the oldest commit was made that the archive does not have:
// within a tick while it is few commits behind, within a few thousandths of the lag
// else. An archive that goes away stays where it was: what is not archived ages, whoever
// does not do it. Of what was committed before the store was opened it knows only that
// it is no younger than the newest of that.
type lagClock struct {
	mu     sync.Mutex
	want   block.LSN // first commit that the archive does not have; 0: there never was one
	newest block.LSN
	seen   []commitSeen  // from want on
	apart  time.Duration // what is between two of them, at least
}

// commitSeen is when the newest durable commit was first seen.
type commitSeen struct {
	lsn block.LSN
	at  time.Time
}

// momentsMax is how many moments a lagClock remembers: of more, every second one goes, and
// those to come are as far apart.
const momentsMax = 1024

func (c *lagClock) tick(now time.Time, newest block.LSN, committed time.Time, want block.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if want != 0 {
		c.want = want
	}
	if c.want == 0 {
		c.newest = newest
		return
	}
	first := 0
	for first < len(c.seen) && c.seen[first].lsn < c.want {
		first++
	}
	c.seen = append(c.seen[:0], c.seen[first:]...)
	switch n := len(c.seen); {
	case newest < c.want:
	case n == 0:
		at := now
		if newest == c.newest { // it was there before anyone followed
			at = committed
		}
		c.seen, c.apart = append(c.seen, commitSeen{newest, at}), 0
	case newest > c.newest && now.Sub(c.seen[n-1].at) >= c.apart:
		c.seen = append(c.seen, commitSeen{newest, now})
		c.thin()
	}
	c.newest = newest
}

// thin keeps the number of moments within its bound.
func (c *lagClock) thin() {
	if len(c.seen) <= momentsMax {
		return
	}
	kept := c.seen[:1] // the oldest is what counts
	for i := 2; i < len(c.seen); i += 2 {
		kept = append(kept, c.seen[i])
	}
	c.seen = kept
	c.apart = 2 * kept[len(kept)-1].at.Sub(kept[0].at) / momentsMax
}

// age is how old the oldest commit is that the archive does not have.
func (c *lagClock) age(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return 0
	}
	return max(0, now.Sub(c.seen[0].at))
}
