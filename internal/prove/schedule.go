package prove

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/internal/hostmem"
)

// # The explorer of schedules
//
// A [script] is a few actors on one store: those that change and free blocks, read, take
// full backups or incrementals, checkpoint, repair. Each of their steps is a place to
// yield. So is, in the second way to explore, each operation on the simulated disk,
// whoever does it: an actor, the goroutine that syncs, the cleaner, the spiller; and, with
// the tag invariants, each place that the store names (package yield). Whoever comes to such a place is parked there. When nobody moves any more (scheduler.go), one of
// those who are parked is chosen, and goes on to the next one.
//
// So one run is a list of choices. Of steps all lists are gone through, in an order that
// chance makes, if the time reaches. Of operations there are too many; chance chooses, in
// one of three ways: each time anew; or whoever was chosen goes on, until now and then
// another is drawn, so that one gets far while another one stands still; or each has a
// rank, the first one goes on, and a few times in between the one who goes on becomes the
// last. Which goroutine gets a lock first when several wait for it is not chosen; the
// holder of a lock may well be parked, and the others then wait for it, and are not
// among those to be chosen.
//
// What every reader sees is compared with the model, also a second time; so is each block
// of a backup, and of an incremental what it makes of its base (incremental.go). In some
// schedules the power is cut at one of the places, and what that leaves is opened and
// compared, too. A failure names the choices, and they can be made again.

// ScheduleOptions of a run of the explorer.
type ScheduleOptions struct {
	Seed      uint64
	Duration  time.Duration // how long new schedules begin; 0: until there are Schedules
	Schedules int           // of all scripts together; 0: no bound
	Only      string        // scripts whose name has this in it
	Repeat    string        // one schedule, as a failure names it, and no other
	Progress  func(ScheduleCounts)
}

// ScheduleCounts are what the explorer has done.
type ScheduleCounts struct {
	Schedules int   // lists of choices that were followed
	OfSteps   int   // of these, such that chose among steps; each another one
	Choices   int64 // among at least two who were parked
	Whole     int   // scripts of which every order of steps was gone through
	Scripts   int
	Places    int   // different ones to yield: an operation on a kind of file, or a step
	Cuts      int   // of the power, at a place to yield
	Broken    int64 // snapshots
	Fell      int64 // backups that fell forward
	Spilled   int64 // originals that went to temporary storage
	Switches  int   // schedules in which the log went on in another segment
	Elapsed   time.Duration
}

func (c ScheduleCounts) String() string {
	return fmt.Sprintf("%d schedules of %d scripts, %d of these orders of steps (of %d scripts all of them), %d choices at %d places, %d power cuts; %d snapshots broken, %d backups fell forward, %d originals spilled, %d log switches; %v",
		c.Schedules, c.Scripts, c.OfSteps, c.Whole, c.Choices, c.Places, c.Cuts, c.Broken, c.Fell, c.Spilled, c.Switches, c.Elapsed.Round(time.Second))
}

// missing names what a run of many schedules should have reached and did not.
func (c ScheduleCounts) missing() (names []string) {
	for _, x := range []struct {
		name string
		n    int64
	}{{"power cuts", int64(c.Cuts)}, {"broken snapshots", c.Broken}, {"backups that fall forward", c.Fell}, {"spilled originals", c.Spilled}, {"log switches", int64(c.Switches)}} {
		if x.n == 0 {
			names = append(names, x.name)
		}
	}
	return names
}

// oneAtATime keeps two explorers of one process from disturbing each other.
var oneAtATime sync.Mutex

// Schedules explores the scripts: each has its share of the time, most of it for orders of
// steps as long as there are some that were not tried.
func Schedules(ctx context.Context, o ScheduleOptions) (ScheduleCounts, error) {
	x, err := newExplorer(ctx, o)
	if err != nil {
		return ScheduleCounts{}, err
	}
	defer x.close()
	if o.Repeat != "" {
		p, choose, err := parsePerformance(o.Repeat)
		if err == nil {
			err = x.play(p, choose)
		}
		return x.done(), err
	}
	if len(x.ways) == 0 {
		return x.done(), fmt.Errorf("no script is named %q", o.Only)
	}
	for !x.isOver() {
		if err := x.next(); err != nil {
			return x.done(), err
		}
	}
	if missed := x.done().missing(); o.Only == "" && x.counts.Schedules >= 2000 && missed != nil {
		return x.done(), fmt.Errorf("never reached: %v", missed)
	}
	return x.done(), context.Cause(ctx)
}

// explorer is a run.
type explorer struct {
	ctx    context.Context
	o      ScheduleOptions
	began  time.Time
	counts ScheduleCounts
	places map[string]bool
	idle   uint64 // goroutines outside of Go

	procs, percent int // what there was before

	small, large *opening
	ways         []*way
}

// newExplorer has the process for itself, until close.
func newExplorer(ctx context.Context, o ScheduleOptions) (*explorer, error) {
	oneAtATime.Lock()
	x := &explorer{ctx: ctx, o: o, began: time.Now(), places: map[string]bool{}}
	x.procs, x.percent = runtime.GOMAXPROCS(1), debug.SetGCPercent(400)
	_ = hostmem.Reuse(2)
	x.idle = outside()
	if err := x.build(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func (x *explorer) close() {
	_ = hostmem.Reuse(0)
	debug.SetGCPercent(x.percent)
	runtime.GOMAXPROCS(x.procs)
	oneAtATime.Unlock()
}

// way is a script that is explored in one of two ways.
type way struct {
	script script
	fine   bool
	tried  *orders // of steps; nil when all were tried
	number uint64
	n      uint64
	spent  time.Duration
	length int // choices of its last schedule
}

// weight is how much of the time a way gets: most of it those that have few orders of
// steps, so that these are gone through within seconds.
func (w *way) weight() float64 {
	if w.fine || w.script.large || w.script.orders() > 250 {
		return 1
	}
	return 8
}

func (x *explorer) done() ScheduleCounts {
	x.counts.Elapsed, x.counts.Places = time.Since(x.began), len(x.places)
	return x.counts
}

func (x *explorer) isOver() bool {
	switch {
	case x.ctx.Err() != nil:
		return true
	case x.o.Duration > 0:
		return time.Since(x.began) > x.o.Duration
	}
	return x.counts.Schedules >= x.o.Schedules
}

// build makes the databases to begin with, and the ways to explore.
func (x *explorer) build() (err error) {
	if x.small, err = newOpening(x, 39); err != nil {
		return err
	}
	if x.large, err = newOpening(x, 480); err != nil {
		return err
	}
	for _, sc := range scripts() {
		if strings.Contains(sc.name, x.o.Only) {
			x.counts.Scripts++
			n := uint64(len(x.ways))
			x.ways = append(x.ways, &way{script: sc, number: n, tried: &orders{}}, &way{script: sc, number: n + 1, fine: true})
		}
	}
	return nil
}

// next plays one schedule: of the way that has had the least of its share.
func (x *explorer) next() error {
	w := slices.MinFunc(x.ways, func(a, b *way) int {
		return cmp.Compare(float64(a.spent)/a.weight(), float64(b.spent)/b.weight())
	})
	began := time.Now()
	rng := rand.New(rand.NewPCG(x.o.Seed+w.n, 61+w.number))
	w.n++
	p := &performance{script: w.script, fine: w.fine, seed: rng.Uint64(), cutAt: -1}
	if length := max(w.length, 1); w.fine && rng.IntN(4) == 0 || rng.IntN(16) == 0 {
		p.cutAt = rng.IntN(length)
	}
	var err error
	if w.fine {
		err = x.play(p, strategy(rng, w.length))
	} else {
		err = x.order(w, p, rng)
	}
	w.length = len(p.choices)
	w.spent += time.Since(began)
	return err
}

// order plays an order of steps that was not tried.
func (x *explorer) order(w *way, p *performance, rng *rand.Rand) error {
	at, path := w.tried, []*orders(nil)
	err := x.play(p, func(list []*thread) int {
		i := at.pick(rng, len(list))
		path = append(path, at)
		at = at.below(i)
		return i
	})
	x.counts.OfSteps++
	last := len(path) - 1
	for last >= 0 && path[last].close(p.choices[last]) {
		last--
	}
	if last < 0 {
		x.counts.Whole++
		x.ways = slices.DeleteFunc(x.ways, func(o *way) bool { return o == w })
	}
	return err
}

// orders is a tree of choices: what was tried below each.
type orders struct {
	kids []*orders
	shut []bool // all below was tried
	left int
}

func (o *orders) pick(rng *rand.Rand, n int) int {
	if o.kids == nil {
		o.kids, o.shut, o.left = make([]*orders, n), make([]bool, n), n
	}
	if n = min(n, len(o.kids)); o.left == 0 { // another run of the same choices went another way
		return rng.IntN(n)
	}
	for {
		if i := rng.IntN(n); !o.shut[i] {
			return i
		}
	}
}

func (o *orders) below(i int) *orders {
	if o.kids[i] == nil {
		o.kids[i] = &orders{}
	}
	return o.kids[i]
}

// close notes that all below a choice was tried, and reports whether that was the last.
func (o *orders) close(i int) bool {
	if !o.shut[i] {
		o.shut[i], o.kids[i] = true, nil
		o.left--
	}
	return o.left == 0
}

// strategy chooses among operations, in one of three ways; see above. length is about how
// many choices there will be.
func strategy(rng *rand.Rand, length int) func([]*thread) int {
	switch rng.IntN(4) {
	case 0:
		return func(list []*thread) int { return rng.IntN(len(list)) }
	case 1:
		return ranked(rng, length)
	}
	every := 2 + rng.IntN(30) // choices, between two changes
	now := -1
	return func(list []*thread) int {
		i := slices.IndexFunc(list, func(t *thread) bool { return t.number == now })
		if i < 0 || rng.IntN(every) == 0 {
			i = rng.IntN(len(list))
		}
		now = list[i].number
		return i
	}
}

// ranked lets the first one in rank go on; at a few choices he becomes the last.
func ranked(rng *rand.Rand, length int) func([]*thread) int {
	step, last, changes := 0, -1.0, map[int]bool{}
	for range 1 + rng.IntN(4) {
		changes[rng.IntN(max(length, 1))] = true
	}
	return func(list []*thread) int {
		first := 0
		for i, t := range list {
			if t.rank == 0 {
				t.rank = rng.Float64()
			}
			if t.rank > list[first].rank {
				first = i
			}
		}
		if step++; changes[step] {
			list[first].rank, last = last, last-1
		}
		return first
	}
}
