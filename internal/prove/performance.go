package prove

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/yield"
)

// performance is one schedule: what it takes to play it again.
type performance struct {
	script  script
	fine    bool
	seed    uint64
	cutAt   int   // before this choice; negative: never
	choices []int // by number among those who were parked

	trace []string
	cut   *simfs.FS
	due   promises
}

// String is what ScheduleOptions.Repeat takes.
func (p *performance) String() string {
	kind := "steps"
	if p.fine {
		kind = "operations"
	}
	choices := ""
	for _, i := range p.choices {
		choices += strconv.FormatInt(int64(min(i, 35)), 36)
	}
	return fmt.Sprintf("%s;%s;%d;%d;%s", p.script.name, kind, p.seed, p.cutAt, choices)
}

// again is the command that plays it again.
func (p *performance) again() string {
	tags := ""
	if yield.Compiled {
		tags = " -tags invariants" // with fewer places it would go another way
	}
	return fmt.Sprintf("again: go test -count=1%s -run '^TestSchedules_L1_R4_R8$' ./internal/prove -schedule '%v'", tags, p)
}

// parsePerformance is the schedule of a name, and who chooses as it says.
func parsePerformance(name string) (*performance, func([]*thread) int, error) {
	part := strings.Split(name, ";")
	if len(part) != 5 {
		return nil, nil, fmt.Errorf("%q does not name a schedule", name)
	}
	all := scripts()
	i := slices.IndexFunc(all, func(sc script) bool { return sc.name == part[0] })
	seed, err1 := strconv.ParseUint(part[2], 10, 64)
	cutAt, err2 := strconv.Atoi(part[3])
	if err := errors.Join(err1, err2); err != nil || i < 0 {
		return nil, nil, fmt.Errorf("%q does not name a schedule: script %d of %d, %w", name, i, len(all), err)
	}
	n := 0
	choose := func(list []*thread) int {
		if n >= len(part[4]) {
			return 0
		}
		i, _ := strconv.ParseInt(part[4][n:n+1], 36, 0)
		n++
		return min(int(i), len(list)-1)
	}
	return &performance{script: all[i], fine: part[1] == "operations", seed: seed, cutAt: cutAt}, choose, nil
}

// play plays a schedule by the choices, and notes them.
func (x *explorer) play(p *performance, choose func([]*thread) int) error {
	start := x.small
	if p.script.large {
		start = x.large
	}
	disk := start.disk.Crash(nil, simfs.KeepAll)
	sched := newScheduler(x.idle)
	sched.fine = p.fine
	disk.Before(sched.before)
	yield.Set(sched.between)
	defer yield.Set(nil)
	defer p.nameIfItDies()()
	m := &blockModel{at: slices.Clone(start.m.at)}
	m.acked.Store(start.m.acked.Load())
	o := smallOptions(disk)
	if p.script.set != nil {
		p.script.set(&o)
	}
	s := &stage{
		world: &world{ctx: x.ctx, rng: rand.New(rand.NewPCG(p.seed, 63)), fs: disk, o: o, m: m, cover: &Coverage{}},
		sched: sched, start: start, broken: new(atomic.Int64), fell: new(atomic.Int64), rotten: new(atomic.Int64),
	}
	err := s.open()
	if err == nil {
		err = x.perform(s, p, choose)
		x.count(s, p)
		err = errors.Join(err, s.s.Close(), leftOpen(disk))
	}
	if err == nil && p.cut != nil {
		x.counts.Cuts++
		err = x.recover(s, p)
	}
	if err != nil {
		return &Failure{What: "a schedule, " + p.again(), Seed: x.o.Seed, Err: fmt.Errorf("after %q: %w", p.trace, err)}
	}
	if x.o.Progress != nil {
		x.o.Progress(x.done())
	}
	return nil
}

// count adds what a schedule has reached.
func (x *explorer) count(s *stage, p *performance) {
	st := s.s.Status()
	x.counts.Schedules++
	x.counts.Choices += int64(len(p.choices))
	x.counts.Broken += s.broken.Load()
	x.counts.Fell += s.fell.Load()
	x.counts.Spilled += st.Cache.Spilled
	if s.sched.segments() > 1 {
		x.counts.Switches++
	}
}

// stuckAfter is how long nobody may be parked while actors are not done.
const stuckAfter = 30 * time.Second

// begin starts the actors of a script, each with chance of its own, and waits until each is
// at its first step: so they have the first numbers.
func (s *stage) begin(sc script) (ended chan error) {
	s.sched.turn(true)
	ended = make(chan error, len(sc.actors))
	for i, moves := range sc.actors {
		one := *s
		one.world = &world{ctx: s.ctx, rng: rand.New(rand.NewPCG(s.rng.Uint64(), 5)), fs: s.fs, o: s.o, s: s.s, m: s.m, cover: s.cover}
		go actor(i, func() { ended <- one.act(moves) })
		s.sched.settle()
	}
	return ended
}

// perform runs the actors by the choices, and looks at what they leave.
func (x *explorer) perform(s *stage, p *performance, choose func([]*thread) int) error {
	ended := s.begin(p.script)
	var errs []error
	for moved := time.Now(); len(errs) < len(p.script.actors); {
		s.sched.settle()
		waiting := s.sched.waiting()
		if len(waiting) == 0 {
			select {
			case err := <-ended:
				errs = append(errs, err)
				moved = time.Now()
			case <-time.After(time.Millisecond): // somebody waits for the time
				if time.Since(moved) > stuckAfter {
					s.sched.turn(false)
					return fmt.Errorf("nobody moves, %d actors are not done", len(p.script.actors)-len(errs))
				}
			}
			continue
		}
		x.choose(s, p, waiting, choose)
		moved = time.Now()
	}
	s.sched.turn(false)
	s.sched.settle()
	if p.script.end != nil {
		errs = append(errs, p.script.end(s))
	}
	if errs = append(errs, s.look()); errors.Join(errs...) == nil {
		errs = append(errs, s.wantNoOriginals())
	}
	return errors.Join(errs...)
}

// choose lets one of those go on who are parked.
func (x *explorer) choose(s *stage, p *performance, waiting []*thread, choose func([]*thread) int) {
	at := 0
	if len(waiting) > 1 {
		if len(p.choices) == p.cutAt && !p.script.uncut {
			p.due, p.cut = s.promised(), s.fs.Crash(nil, simfs.DropAll)
		}
		at = choose(waiting)
		p.choices = append(p.choices, at)
	}
	p.trace = append(p.trace, waiting[at].String())
	x.places[waiting[at].place] = true
	s.sched.release(waiting[at])
}

// wantNoOriginals: nobody wants one any more (L2).
func (s *stage) wantNoOriginals() error {
	s.sched.settle()
	if n := s.s.Status().Originals.Originals; n > 0 {
		return fmt.Errorf("%d originals are kept, and there is no snapshot (L2)", n)
	}
	return nil
}

// recover opens what the cut within a schedule left.
func (x *explorer) recover(s *stage, p *performance) error {
	v := &verifier{s: &sweep{r: &recording{o: s.o, m: s.m}}, rng: s.rng}
	var counts CrashCounts
	if err := v.whole(x.ctx, p.cut, &moment{promises: p.due}, &counts); err != nil {
		return fmt.Errorf("after a power cut: %w", err)
	}
	return nil
}
