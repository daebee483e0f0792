package blockcache

import (
	"errors"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// at is a moment of the tests' clock.
func at(d time.Duration) time.Time { return time.Unix(1_000_000, 0).Add(d) }

// TestLaw_NoCrossingWithoutItsEvent: over random levels, limits that change, and peaks
// between readings, the events alone tell the state; each changes it; a level that is or
// was over a mark has been told, and one that moved within a mark's band has not.
func TestLaw_NoCrossingWithoutItsEvent(t *testing.T) {
	rng := seeded(t)
	for round := range 200 {
		own := Marks{Low: 0.02 + 0.3*rng.Float64(), High: 0.4 + 0.2*rng.Float64(), Critical: 0.7 + 0.6*rng.Float64()}
		g := newGauge("l", own.Or(DefaultMarks()))
		m := g.marks
		limit, used, told := int64(1000), int64(0), [2]LevelState{}
		for i := range 500 {
			if rng.IntN(20) == 0 {
				limit = rng.Int64N(2000) // now and then none at all
			}
			used = max(0, min(used+rng.Int64N(201)-100, 2*limit))
			r := reading{used: used, high: max(used, used+rng.Int64N(200)-150), limit: limit}
			before := told[0]
			peak := before
			for _, c := range g.see(at(time.Duration(i)*100*time.Millisecond), r) {
				by, is := 0, c.Level.State
				if c.ByTime {
					by, is = 1, c.Level.TimeState
				}
				if c.Was != told[by] || is == c.Was {
					t.Fatalf("round %d, reading %d: event %+v after state %v", round, i, c, told[by])
				}
				told[by] = is
				if by == 0 {
					peak = max(peak, is)
				}
			}
			high, now := r.share(max(r.high, used)), r.share(used)
			for s := LevelLow; s <= LevelCritical; s++ {
				switch {
				case high >= m.share[s] && peak < s:
					t.Fatalf("round %d, reading %d: it was at %v, over %v, and that was not told", round, i, high, s)
				case now >= m.share[s] && told[0] < s:
					t.Fatalf("round %d, reading %d: at %v, told %v", round, i, now, told[0])
				case now < m.leave(s) && told[0] >= s:
					t.Fatalf("round %d, reading %d: at %v, still told %v", round, i, now, told[0])
				}
			}
			inBand := func(share float64) bool {
				return (before == LevelCritical || share < m.share[before+1]) && (before == LevelNormal || share >= m.leave(before))
			}
			if inBand(high) && inBand(now) && (told[0] != before || peak != before) {
				t.Fatalf("round %d, reading %d: told %v after %v, but nothing was crossed from %v to %v", round, i, told[0], before, high, now)
			}
		}
	}
}

// fill feeds a gauge ten readings a second, each from level, and returns when each state
// of time was first told.
func fill(g *gauge, from, to time.Duration, level func(time.Duration) reading) map[LevelState]time.Duration {
	told := map[LevelState]time.Duration{}
	for d := from; d < to; d += 100 * time.Millisecond {
		for _, c := range g.see(at(d), level(d)) {
			if _, before := told[c.Level.TimeState]; c.ByTime && !before {
				told[c.Level.TimeState] = d
			}
		}
	}
	return told
}

// TestWatermarks_TimeToFull: a level that fills at one rate warns when the time is near
// that is left, however low it is by its share; and what is said is right.
func TestWatermarks_TimeToFull(t *testing.T) {
	const limit, takes = 1 << 40, 3 * time.Hour
	g := newGauge("l", DefaultMarks())
	steady := func(d time.Duration) reading {
		return reading{used: int64(float64(limit) * float64(d) / float64(takes)), limit: limit}
	}
	told := fill(&g, 0, takes, steady)
	for s, want := range map[LevelState]time.Duration{LevelLow: time.Hour, LevelHigh: 10 * time.Minute, LevelCritical: time.Minute} {
		if left := takes - told[s]; left > want || left < want*9/10 {
			t.Errorf("%v was told %v before it was full, where %v was due", s, left, want)
		}
	}
	l := g.level(steady(takes - time.Minute))
	if l.TimeToFull < 55*time.Second || l.TimeToFull > 65*time.Second {
		t.Errorf("a minute before it is full it says %v", l.TimeToFull)
	}
	// It stands still: the warnings are taken back, the shortest first.
	for d, last := takes, LevelCritical; g.fill.state > LevelNormal; d += time.Second {
		g.see(at(d), reading{used: limit / 2, limit: limit})
		if g.fill.state > last || d > takes+12*time.Hour {
			t.Fatalf("after %v it warns %v", d-takes, g.fill.state)
		}
		last = g.fill.state
	}
}

// TestWatermarks_SuddenFill: T10: a level that is full in five seconds warns within one
// of them, while it is not even half full.
func TestWatermarks_SuddenFill(t *testing.T) {
	const limit = 1 << 30
	g := newGauge("l", DefaultMarks())
	fill(&g, 0, time.Minute, func(time.Duration) reading { return reading{used: limit / 10, limit: limit} })
	told := fill(&g, time.Minute, time.Minute+5*time.Second, func(d time.Duration) reading {
		return reading{used: limit/10 + int64(float64(limit)*0.9*float64(d-time.Minute)/float64(5*time.Second)), limit: limit}
	})
	if at, ok := told[LevelCritical]; !ok || at > time.Minute+time.Second {
		t.Fatalf("told at %v", told)
	}
}

// TestWatermarks_NoiseWarnsNobody: what comes and goes, and what fills an empty level.
func TestWatermarks_NoiseWarnsNobody(t *testing.T) {
	const limit = 1 << 30
	for name, level := range map[string]func(time.Duration) reading{
		"comes and goes": func(d time.Duration) reading {
			return reading{used: limit*6/10 + limit/500*int64(d/(100*time.Millisecond)%10), limit: limit}
		},
		"empty": func(d time.Duration) reading {
			return reading{used: limit / 20 * int64(d/time.Second%2), limit: limit}
		},
		"full of nothing": func(d time.Duration) reading { return reading{used: int64(d)} },
	} {
		g := newGauge("l", DefaultMarks())
		if told := fill(&g, 0, 2*time.Hour, level); len(told) > 0 {
			t.Errorf("%s: told %v", name, told)
		}
	}
}

// TestWatermarks_FallingLimit: a file system that others fill is as good as a level that
// fills.
func TestWatermarks_FallingLimit(t *testing.T) {
	g := newGauge("l", DefaultMarks())
	told := fill(&g, 0, 4*time.Minute, func(d time.Duration) reading {
		return reading{used: 100 << 20, limit: 900<<20 - int64(d/time.Second)*(3<<20)}
	})
	if len(told) < 2 || told[LevelHigh] == 0 {
		t.Fatalf("told %v", told)
	}
}

// TestWatermarks_FileSystemIsFull: of temporary storage that should be there nothing is left,
// because others have filled its file system while none of it was in use. That was told as a
// level that is empty. Where there should be none it is.
func TestWatermarks_FileSystemIsFull(t *testing.T) {
	fsys := simfs.New()
	c, none := openOn(t, fsys, 384, 100, nil), open(t, 384, 0, nil)
	look := func(c *Cache, at int64, want LevelState) {
		t.Helper()
		told := c.Watch(time.Unix(at, 0))
		for _, l := range c.Levels() {
			if l.Name == LevelTemporary && l.State != want {
				t.Errorf("temporary storage is %v, want %v: %+v, told %v", l.State, want, l, told)
			}
		}
	}
	look(c, 1, LevelNormal)
	look(none, 1, LevelNormal)
	fsys.SetCapacity(fsys.UsedBytes())
	look(c, 2, LevelCritical)
	fsys.SetCapacity(1 << 40)
	look(c, 3, LevelNormal)
	ok(t, c.Close())
	ok(t, none.Close())
}

// TestMarks_Validate: what is out of order is refused, what is left out is not.
func TestMarks_Validate(t *testing.T) {
	for _, m := range []Marks{{}, {Low: 0.1}, {TimeLow: -1, TimeHigh: time.Hour}, {Low: 1, High: 2, Critical: 4}, {Critical: 1}} {
		if err := m.Validate(); err != nil {
			t.Errorf("%+v: %v", m, err)
		}
	}
	for _, m := range []Marks{{Low: 0.8}, {High: 0.95}, {Critical: 0.5}, {Low: -1}, {TimeHigh: 2 * time.Hour}, {Floor: 2}, {Floor: -1}} {
		if err := m.Validate(); !errors.Is(err, ErrMarks) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}
