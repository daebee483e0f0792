package livebackup

import (
	"context"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// Guards end a backup early that costs too much or takes too long: it then fails with a
// *mvcc.GuardError, and is removed, and the database is as if there had been none. Zero
// fields are none.
type Guards struct {
	mvcc.Guards               // what the database watches
	TimeMax     time.Duration // since the backup began
	// RateMin is how many bytes per second the repository must take, averaged over two
	// seconds and more of writing to it. What the backup waits for else, a rate that it
	// keeps to for one, does not count.
	RateMin int64
}

// Margin is how near a backup came to the limit of one of its guards, in the guard's
// unit; see mvcc.Guard.
type Margin struct {
	Guard   string  `json:"guard"`
	Limit   float64 `json:"limit"`
	Closest float64 `json:"closest"`
}

// The guards of the run are looked at every guardEvery, and the rate is that of the
// shortest time up to now in which rateOver was spent writing.
const (
	guardEvery = 250 * time.Millisecond
	rateOver   = 2 * time.Second
	rateSince  = 30 * time.Second // and no longer ago than this
)

// sinkMeter measures how fast the repository takes what is written, also while a write
// does not return. Safe for concurrent use.
type sinkMeter struct {
	pieceMax int // bytes that are written at once, see piece; 0: any number

	mu      sync.Mutex
	began   time.Time // of the writes under way
	writing int
	busy    time.Duration // of those before
	bytes   int64
}

// piece is how many of n bytes are to be written at once. What a write takes counts when
// it returns: of a sink that takes seconds for one nobody could tell what it takes in
// two.
func (m *sinkMeter) piece(n int) int {
	if m.pieceMax > 0 {
		return min(n, m.pieceMax)
	}
	return n
}

// pieceOf is as much as a sink at the least rate takes in an eighth of the time that the
// rate is averaged over: so much may a reading be too low. Without a least rate it is 0.
func pieceOf(rateMin int64) int {
	if rateMin == 0 {
		return 0
	}
	return int(min(max(rateMin*int64(rateOver/time.Second)/8, 512), 1<<20))
}

func (m *sinkMeter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writing == 0 {
		m.began = time.Now()
	}
	m.writing++
}

func (m *sinkMeter) end(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += int64(n)
	if m.writing--; m.writing == 0 {
		m.busy += time.Since(m.began)
	}
}

// sinkSample is a reading of the meter.
type sinkSample struct {
	at    time.Time
	busy  time.Duration
	bytes int64
}

func (m *sinkMeter) read(now time.Time) sinkSample {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := sinkSample{now, m.busy, m.bytes}
	if m.writing > 0 {
		s.busy += now.Sub(m.began)
	}
	return s
}

// runGuards watch one run.
type runGuards struct {
	limits  Guards
	started time.Time
	meter   sinkMeter
	past    []sinkSample

	mu       sync.Mutex
	slowest  float64 // bytes per second; guarded by mu, as the next one
	measured bool
}

// watch ends the context that it returns when a guard has had enough; stop ends the
// watching.
func (g *runGuards) watch(ctx context.Context) (guarded context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if g.limits.TimeMax == 0 && g.limits.RateMin == 0 {
		return ctx, func() { cancel(errStopped) }
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if err := g.look(now); err != nil {
					cancel(err)
					return
				}
			}
		}
	})
	return ctx, func() { cancel(errStopped); wg.Wait() }
}

// look returns the guard whose limit is reached, or nil.
func (g *runGuards) look(now time.Time) error {
	if most, took := g.limits.TimeMax, now.Sub(g.started); most > 0 && took > most {
		return &mvcc.GuardError{Guard: mvcc.GuardTime, Limit: most.Seconds(), Reading: took.Seconds()}
	}
	least := float64(g.limits.RateMin)
	rate, ok := g.rate(now)
	if least > 0 && ok && rate < least {
		return &mvcc.GuardError{Guard: mvcc.GuardRate, Limit: least, Reading: rate}
	}
	return nil
}

// rate is how fast the repository takes what is written; false if too little was
// written to say.
func (g *runGuards) rate(now time.Time) (float64, bool) {
	s := g.meter.read(now)
	for len(g.past) > 0 && now.Sub(g.past[0].at) > rateSince {
		g.past = g.past[1:]
	}
	g.past = append(g.past, s)
	for i := len(g.past) - 1; i >= 0; i-- {
		busy := s.busy - g.past[i].busy
		if busy < rateOver {
			continue
		}
		rate := float64(s.bytes-g.past[i].bytes) / busy.Seconds()
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.measured || rate < g.slowest {
			g.measured, g.slowest = true, rate
		}
		return rate, true
	}
	return 0, false
}

// margins are those of the run's own guards.
func (g *runGuards) margins() (list []Margin) {
	if most := g.limits.TimeMax; most > 0 {
		list = append(list, Margin{string(mvcc.GuardTime), most.Seconds(), time.Since(g.started).Seconds()})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.RateMin > 0 && g.measured {
		list = append(list, Margin{string(mvcc.GuardRate), float64(g.limits.RateMin), g.slowest})
	}
	return list
}
