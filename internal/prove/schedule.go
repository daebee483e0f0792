package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// # The explorer of schedules
//
// A [script] is a few actors on one store: one that commits, one that reads, one that
// backs up. Each of their steps is a place to yield, and so is each operation on the
// simulated disk, whoever does it: an actor, the goroutine that syncs, the cleaner, the
// spiller. Whoever comes to such a place is parked there. When nobody moves any more,
// one of those who are parked is chosen, and goes on to its next one.
//
// So one run is a list of choices. All lists are gone through, depth first, where that
// ends (two actors of few steps), and otherwise chance chooses. Which goroutine gets a
// lock first when several wait for it is not chosen; the holder of a lock may well be
// parked, and the others then wait for it, and are not among those to be chosen.
//
// What every reader sees is compared with the model; at one of the places the power is
// cut, and what that leaves is opened and compared, too.

// ScheduleOptions of a run of the explorer.
type ScheduleOptions struct {
	Seed      uint64
	Duration  time.Duration // how long new schedules begin; 0: until there are Schedules
	Schedules int           // of all scripts together; 0: no bound
	Depth     int           // how many choices of a schedule are gone through one by one; beyond it the first is taken. 0: all
	Progress  func(ScheduleCounts)
}

// ScheduleCounts are what the explorer has done.
type ScheduleCounts struct {
	Schedules int   // different lists of choices, or drawn by chance
	Steps     int64 // choices among at least two who were parked
	Whole     int   // scripts of which every schedule was gone through, to the depth
	Scripts   int
	Cuts      int // of the power, at a place to yield
	Broken    int // snapshots
	Places    int // different ones to yield: an operation on a kind of file, or a step of an actor
	Elapsed   time.Duration
}

func (c ScheduleCounts) String() string {
	return fmt.Sprintf("%d schedules of %d scripts (%d of these gone through whole), %d choices at %d places, %d power cuts within them, %d snapshots broken; %v",
		c.Schedules, c.Scripts, c.Whole, c.Steps, c.Places, c.Cuts, c.Broken, c.Elapsed.Round(time.Second))
}

// script is what meets in a schedule.
type script struct {
	name   string
	actors []func(*stage) error
}

// stage is a store that a script plays on.
type stage struct {
	*world
	sched  *scheduler
	broken *atomic.Int64
}

// step parks the actor before it does something.
func (s *stage) step(name string) { s.sched.park("step "+name, 0) }

func scripts() []script {
	return []script{
		{"commit, read", []func(*stage) error{committing(2, 2), reading(1)}},
		{"commit, checkpoint", []func(*stage) error{committing(2, 2), checkpointing}},
		{"commit, back up", []func(*stage) error{committing(1, 3), backingUp}},
		{"commit a lot, read", []func(*stage) error{committing(1, 90), reading(2)}},
		{"free and allocate, read", []func(*stage) error{reusing, reading(1)}},
		{"commit, read, checkpoint", []func(*stage) error{committing(2, 3), reading(2), checkpointing}},
		{"commit, commit, read", []func(*stage) error{committing(2, 2), committing(2, 2), reading(2)}},
		{"commit a lot, read, back up", []func(*stage) error{committing(2, 90), reading(2), backingUp}},
		{"free and allocate, back up, checkpoint", []func(*stage) error{reusing, backingUp, checkpointing}},
		{"commit a lot, read, read, checkpoint", []func(*stage) error{committing(2, 70), reading(1), reading(2), checkpointing}},
	}
}

// committing makes commits that change some blocks each.
func committing(commits, blocks int) func(*stage) error {
	return func(s *stage) error {
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), 3))
		for range commits {
			s.step("commit")
			err := s.commitBy(rng, func(e *edit) error { return e.sweepAll(blocks) })
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// reusing frees blocks and takes them again.
func reusing(s *stage) error {
	rng := rand.New(rand.NewPCG(s.rng.Uint64(), 4))
	s.step("free")
	n := 0
	err := s.commitBy(rng, func(e *edit) error { n = len(e.held); return e.shrink(n - 6) })
	if err != nil {
		return err
	}
	s.step("allocate")
	return s.commitBy(rng, func(e *edit) error { return e.grow(4) })
}

// reading opens a snapshot, and reads the blocks that others change, so many times.
func reading(times int) func(*stage) error {
	return func(s *stage) error {
		s.step("open")
		r := readers{w: s.world}
		v, err := r.open()
		if err != nil || v.tx == nil {
			return err
		}
		defer v.tx.Close()
		raise(&s.m.seen, v.tx.LSN())
		for range times {
			s.step("read")
			for _, id := range v.ids[:min(3, len(v.ids))] {
				b, err := v.tx.Block(id)
				if errors.Is(err, snapshot.ErrBroken) {
					s.broken.Add(1)
					return nil
				}
				if err != nil {
					return fmt.Errorf("block %v at LSN %v: %w", id, v.tx.LSN(), err)
				}
				got := contentOf(b)
				b.Release()
				if got != v.im.blocks[id] {
					return fmt.Errorf("block %v at LSN %v is another version than that of the commit", id, v.tx.LSN())
				}
			}
		}
		s.step("close")
		return nil
	}
}

func checkpointing(s *stage) error {
	s.step("checkpoint")
	return s.checkpoint()
}

func backingUp(s *stage) error {
	s.step("back up")
	r := readers{w: s.world}
	err := r.pull(s.ctx)
	if errors.Is(err, snapshot.ErrBroken) {
		s.broken.Add(1)
		return nil
	}
	return err
}

// scheduler parks everybody who comes to a place to yield.
type scheduler struct {
	mu     sync.Mutex
	on     bool
	parked []*parked
	came   int // how many were ever parked
}

type parked struct {
	where string // place and offset
	place string
	goOn  chan struct{}
}

func (s *scheduler) park(place string, at int64) {
	s.mu.Lock()
	if !s.on {
		s.mu.Unlock()
		return
	}
	p := &parked{fmt.Sprintf("%s at %d", place, at), place, make(chan struct{})}
	s.parked = append(s.parked, p)
	s.came++
	s.mu.Unlock()
	<-p.goOn
}

// before is the disk's place to yield.
func (s *scheduler) before(ev simfs.Event) {
	if ev.Op&(simfs.Events|simfs.OpRead) != 0 {
		s.park(fmt.Sprintf("%v of %s", ev.Op, roleOf(ev.File)), ev.Off)
	}
}

// off lets everybody go, for good.
func (s *scheduler) off() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = false
	for _, p := range s.parked {
		close(p.goOn)
	}
	s.parked = nil
}

// waiting lists who is parked, in an order that chance has no part in.
func (s *scheduler) waiting() []*parked {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.parked)
	slices.SortStableFunc(list, func(a, b *parked) int { return cmp.Compare(a.where, b.where) })
	return list
}

func (s *scheduler) release(p *parked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked = slices.DeleteFunc(s.parked, func(q *parked) bool { return q == p })
	close(p.goOn)
}

// settle waits until no goroutine of the process moves but this one.
func (s *scheduler) settle() {
	sample := []metrics.Sample{{Name: "/sched/goroutines/running:goroutines"}, {Name: "/sched/goroutines/runnable:goroutines"}}
	still, turns, last := 0, 0, -1
	for still < 3 && turns < 100_000 {
		runtime.Gosched()
		turns++
		s.mu.Lock()
		came := s.came
		s.mu.Unlock()
		isStill := turns > 300 // where the system does not tell
		if metrics.Read(sample); sample[0].Value.Kind() == metrics.KindUint64 {
			isStill = sample[0].Value.Uint64() <= 1 && sample[1].Value.Uint64() == 0
		}
		if still++; !isStill || came != last {
			still, last = 0, came
		}
	}
}

// Schedules explores all scripts, one by one those that end, the others by chance.
func Schedules(ctx context.Context, o ScheduleOptions) (ScheduleCounts, error) {
	x := &explorer{ctx: ctx, o: o, began: time.Now(), places: map[string]bool{}}
	if err := x.build(); err != nil {
		return x.counts, err
	}
	all := scripts()
	x.counts.Scripts = len(all)
	for i, sc := range all {
		if len(sc.actors) > 2 {
			continue
		}
		if err := x.each(sc, x.share(i+1, 2*len(all))); err != nil {
			return x.done(), err
		}
	}
	for n := uint64(0); !x.isOver(1); n++ {
		sc := all[n%uint64(len(all))]
		rng := rand.New(rand.NewPCG(o.Seed+n, 61))
		if err := x.play(sc, o.Seed+n, func(_, options int) int { return rng.IntN(options) }); err != nil {
			return x.done(), err
		}
	}
	return x.done(), context.Cause(ctx)
}

type explorer struct {
	ctx    context.Context
	o      ScheduleOptions
	began  time.Time
	counts ScheduleCounts

	sound  *simfs.FS // a database to begin with
	m      *blockModel
	places map[string]bool
}

func (x *explorer) done() ScheduleCounts {
	x.counts.Elapsed, x.counts.Places = time.Since(x.began), len(x.places)
	return x.counts
}

// share is which part of all is to be over after part n of so many.
func (x *explorer) share(n, of int) float64 { return float64(n) / float64(of) }

// isOver reports whether a part of the schedules was played, or of the time is over.
func (x *explorer) isOver(part float64) bool {
	switch {
	case x.ctx.Err() != nil:
		return true
	case x.o.Duration > 0:
		return time.Since(x.began) > time.Duration(part*float64(x.o.Duration))
	}
	return x.counts.Schedules >= int(part*float64(x.o.Schedules))
}

// build makes a database of which all blocks just fit into memory.
func (x *explorer) build() error {
	disk, err := newDisk()
	if err != nil {
		return err
	}
	w := &world{ctx: x.ctx, rng: rand.New(rand.NewPCG(x.o.Seed, 62)), fs: disk, o: smallOptions(disk), m: newBlockModel(), cover: &Coverage{}}
	err = inOrder(w.open, func() error { return w.grow(100) }, func() error { return w.grow(100) }, func() error { return w.grow(100) },
		w.checkpoint, func() error { return w.s.Close() })
	x.sound, x.m = disk.Crash(nil, simfs.DropAll), w.m
	return err
}

// each goes through the schedules of a script one by one, depth first: the next list of
// choices is the last one with its last choice that has another one changed.
func (x *explorer) each(sc script, part float64) error {
	var list []int
	for !x.isOver(part) {
		var options []int
		err := x.play(sc, x.o.Seed, func(step, n int) int {
			options = append(options, n)
			if step < len(list) {
				return min(list[step], n-1)
			}
			list = append(list, 0)
			return 0
		})
		if err != nil {
			return err
		}
		list = list[:min(len(list), len(options))]
		if x.o.Depth > 0 {
			list = list[:min(len(list), x.o.Depth)]
		}
		for len(list) > 0 && list[len(list)-1]+1 >= options[len(list)-1] {
			list = list[:len(list)-1]
		}
		if len(list) == 0 {
			x.counts.Whole++
			return nil
		}
		list[len(list)-1]++
	}
	return nil
}

// play is one schedule.
func (x *explorer) play(sc script, seed uint64, choose func(step, options int) int) error {
	disk := x.sound.Crash(nil, simfs.KeepAll)
	sched := &scheduler{}
	disk.Before(sched.before)
	m := &blockModel{at: slices.Clone(x.m.at)}
	m.acked.Store(x.m.acked.Load())
	rng := rand.New(rand.NewPCG(seed, 63))
	s := &stage{world: &world{ctx: x.ctx, rng: rng, fs: disk, o: smallOptions(disk), m: m, cover: &Coverage{}}, sched: sched, broken: new(atomic.Int64)}
	err := s.open()
	if err == nil {
		err = x.perform(s, sc, choose)
		err = errors.Join(err, s.s.Close(), leftOpen(disk))
	}
	x.counts.Schedules++
	x.counts.Broken += int(s.broken.Load())
	if err != nil {
		return &Failure{What: fmt.Sprintf("a schedule of %q", sc.name), Seed: seed, Err: err}
	}
	if x.o.Progress != nil {
		x.o.Progress(x.done())
	}
	return nil
}

// stuckAfter is how long nobody may be parked while actors are not done.
const stuckAfter = 30 * time.Second

// begin starts the actors of a script, each with chance of its own.
func (s *stage) begin(sc script) (ended chan error) {
	s.sched.on = true
	ended = make(chan error, len(sc.actors))
	for _, act := range sc.actors {
		one := *s
		one.world = &world{ctx: s.ctx, rng: rand.New(rand.NewPCG(s.rng.Uint64(), 5)), fs: s.fs, o: s.o, s: s.s, m: s.m, cover: s.cover}
		go func() { ended <- act(&one) }()
	}
	return ended
}

// perform runs the actors by the choices.
func (x *explorer) perform(s *stage, sc script, choose func(step, options int) int) error {
	ended := s.begin(sc)
	cutAt := rand.New(rand.NewPCG(x.o.Seed, uint64(x.counts.Schedules))).IntN(24)
	var trace []string
	var errs []error
	var cut *simfs.FS
	var due promises
	step, moved := 0, time.Now()
	for len(errs) < len(sc.actors) {
		s.sched.settle()
		waiting := s.sched.waiting()
		if len(waiting) == 0 {
			select {
			case err := <-ended:
				errs = append(errs, err)
				moved = time.Now()
			default:
				if time.Since(moved) > stuckAfter {
					s.sched.off()
					return fmt.Errorf("nobody moves, %d actors are not done, after %v", len(sc.actors)-len(errs), trace)
				}
			}
			continue
		}
		at := 0
		if len(waiting) > 1 {
			at = choose(step, len(waiting))
			step++
			x.counts.Steps++
		}
		if len(trace) == cutAt {
			due, cut = s.promised(), s.fs.Crash(nil, simfs.DropAll)
		}
		trace = append(trace, waiting[at].where)
		x.places[waiting[at].place] = true
		s.sched.release(waiting[at])
		moved = time.Now()
	}
	s.sched.off()
	errs = append(errs, s.look())
	if cut != nil {
		x.counts.Cuts++
		errs = append(errs, x.recover(s, cut, due))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("after %q: %w", trace, err)
	}
	return nil
}

// recover opens what the cut within a schedule left.
func (x *explorer) recover(s *stage, cut *simfs.FS, due promises) error {
	v := &verifier{s: &sweep{r: &recording{o: s.o, m: s.m}}, rng: s.rng}
	var counts CrashCounts
	if err := v.whole(x.ctx, cut, &moment{promises: due}, &counts); err != nil {
		return fmt.Errorf("after a power cut: %w", err)
	}
	return nil
}
