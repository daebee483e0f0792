//go:build invariants

package prove

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/blockcache"
)

// BudgetOptions of a sweep over refused requests to the memory budget.
type BudgetOptions struct {
	Seed     uint64
	Each     int           // requests of each kind that are refused, spread over all; 0: every one
	Duration time.Duration // how long to begin new rounds; 0: one round
	Progress func(BudgetCounts)
}

// BudgetCounts are what such a sweep has done.
type BudgetCounts struct {
	Runs     int
	Requests map[string]int // of the run without a refusal, by kind
	Refused  map[string]int // runs in which one, or some behind each other, were refused
	Errors   int            // operations that failed for it
	Elapsed  time.Duration
}

func (c BudgetCounts) String() string {
	return fmt.Sprintf("%d runs, requests %v, refused %v, %d operations failed for it; %v", c.Runs, c.Requests, c.Refused, c.Errors, c.Elapsed.Round(time.Second))
}

// refusedAtOnce is how many requests behind each other are refused where not only one
// is: a frame that is refused for good would be waited for for good.
const refusedAtOnce = 24

// Budget runs a workload again and again, each time with another request to the memory
// budget refused, once or some times behind each other: what fails says why, nothing is
// acknowledged that is not there, and afterwards the store is as the model says.
func Budget(ctx context.Context, o BudgetOptions) (BudgetCounts, error) {
	b := &budgetSweep{ctx: ctx, o: o, began: time.Now()}
	b.counts.Requests, b.counts.Refused = map[string]int{}, map[string]int{}
	defer blockcache.SetRefusal(nil)
	for round := o.Seed; ; round++ {
		if err := b.round(round); err != nil {
			return b.done(), err
		}
		if o.Duration == 0 || time.Since(b.began) > o.Duration || ctx.Err() != nil {
			return b.done(), context.Cause(ctx)
		}
	}
}

type budgetSweep struct {
	ctx    context.Context
	o      BudgetOptions
	began  time.Time
	counts BudgetCounts
}

func (b *budgetSweep) done() BudgetCounts {
	c := b.counts
	c.Elapsed = time.Since(b.began)
	return c
}

func (b *budgetSweep) round(seed uint64) error {
	seen, err := b.run(seed, "", 0, 0)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 71))
	for what, n := range seen {
		b.counts.Requests[what] = n
		step := 1
		if b.o.Each > 0 {
			step = max(n/b.o.Each, 1)
		}
		for k := rng.IntN(step); k < n && b.ctx.Err() == nil; k += step {
			for _, times := range []int{1, refusedAtOnce} {
				if _, err := b.run(seed, what, k, times); err != nil {
					return err
				}
				b.counts.Refused[what]++
			}
			if b.o.Progress != nil {
				b.o.Progress(b.done())
			}
		}
	}
	return nil
}

// run is one run, in which so many requests of a kind are refused from number k on. It
// returns how many of each kind there were.
func (b *budgetSweep) run(seed uint64, what string, k, times int) (seen map[string]int, err error) {
	fs, err := newDisk()
	if err != nil {
		return nil, err
	}
	seen = map[string]int{}
	var mu sync.Mutex
	blockcache.SetRefusal(func(asked string) bool {
		mu.Lock()
		defer mu.Unlock()
		n := seen[asked]
		seen[asked]++
		return asked == what && n >= k && n < k+times
	})
	w := &faultWorld{world: world{ctx: b.ctx, rng: rand.New(rand.NewPCG(seed, 9)), fs: fs, o: smallOptions(fs), m: newBlockModel(), cover: &Coverage{}}}
	w.first = w.buffers
	err = w.playFaulty()
	blockcache.SetRefusal(nil)
	b.counts.Runs++
	b.counts.Errors += w.errors
	if err == nil && w.failed {
		err = fmt.Errorf("the store has failed: %w", w.last)
	}
	if err == nil && what == "" && w.errors > 0 {
		err = fmt.Errorf("%d errors and no refusal, the last: %w", w.errors, w.last)
	}
	if err == nil && what == "" {
		err = allAsked(seen)
	}
	if err == nil {
		f := &faultSweep{ctx: b.ctx, sites: newFaultSites()}
		err = f.afterwards(seed, w, fs)
	}
	if err != nil {
		return seen, &Failure{What: fmt.Sprintf("a run in which %d requests for a %s are refused from number %d on", times, what, k), Seed: seed, Err: err}
	}
	return seen, nil
}
