package demo

import (
	"context"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// sampleTime is how often the levels are looked at.
const sampleTime = 100 * time.Millisecond

// sampler looks at the database while the story is told.
type sampler struct {
	began time.Time
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu         sync.Mutex
	samples    []Sample            // guarded by mu
	watermarks []Watermark         // guarded by mu
	marks      []mark              // guarded by mu
	peaks      map[string]int64    // guarded by mu; by level
	levels     []mvcc.Level        // guarded by mu; as last seen
	live       func(Sample) string // guarded by mu; what the live line says
}

// mark is a moment that the plot names.
type mark struct {
	at     time.Duration
	letter byte
}

// startSampler begins to look; draw shows the live line.
func (d *demo) startSampler(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	s := &d.sampler
	s.mu.Lock()
	s.began, s.stop, s.peaks = time.Now(), cancel, map[string]int64{}
	s.mu.Unlock()
	s.done.Go(func() {
		tick := time.NewTicker(sampleTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.sample()
			case <-ctx.Done():
				return
			}
		}
	})
}

func (s *sampler) end() {
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
}

func (d *demo) sample() {
	st := d.db.Store().Status()
	now := Sample{Commits: d.writers.commits.Load()}
	s := &d.sampler
	s.mu.Lock()
	now.At = time.Since(s.began)
	s.levels = st.Levels
	for _, l := range st.Levels {
		s.peaks[l.Name] = max(s.peaks[l.Name], l.Used)
		switch l.Name {
		case mvcc.LevelTemporary:
			now.Temporary = l.Used
		case mvcc.LevelOverflow:
			now.Overflow = l.Used
		}
	}
	now.RAM = max(0, st.Cache.Originals*int64(st.BlockSize)-now.Overflow)
	s.samples = append(s.samples, now)
	live := s.live
	s.mu.Unlock()
	if live != nil {
		d.story.draw(live(now))
	}
}

// show sets what the live line says; nil: nothing.
func (d *demo) show(live func(Sample) string) {
	d.sampler.mu.Lock()
	d.sampler.live = live
	d.sampler.mu.Unlock()
	if live == nil {
		d.story.clear()
	}
}

// mark notes a moment for the plot.
func (s *sampler) mark(letter byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, mark{time.Since(s.began), letter})
}

// event notes the watermarks that are crossed. The host's are left out: they are
// not of our making.
func (s *sampler) event(e mvcc.Event) {
	if e.Kind != mvcc.EventWatermark || e.Level.Name == mvcc.LevelHost {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began.IsZero() {
		return
	}
	state := e.Level.State
	if e.ByTime {
		state = e.Level.TimeState
	}
	s.watermarks = append(s.watermarks, Watermark{time.Since(s.began), e.Level.Name, e.Was, state})
}
