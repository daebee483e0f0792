package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/mutants"
)

// kill runs the test that kills processes, in pieces, until the time is over.
func kill(ctx context.Context, s *settings) error {
	return s.inPieces(ctx, "^TestKill_D1_D2_D9$", "-rounds", "processes killed", 400, 1)
}

// power runs the tests that cut the power under processes, the same way.
func power(ctx context.Context, s *settings) error {
	return s.inPieces(ctx, "^TestPowerCut_", "-cuts", "power cuts", 100, 2) // on two file systems
}

// inPieces runs a test of package kv so many rounds at a time.
func (s *settings) inPieces(ctx context.Context, test, flag, what string, each, times int) error {
	rounds, began := 0, time.Now()
	for seed := s.seed; ; seed++ {
		out, err := goTest(ctx, seed, "-run", test, "-count=1", "-timeout", "1h", "-v", "./kv", flag, fmt.Sprint(each))
		if err != nil {
			return fmt.Errorf("seed %d: %w\n%s", seed, err, out)
		}
		if bytes.Contains(out, []byte("--- SKIP")) {
			s.say("NOT RUN:\n%s", out)
			return nil
		}
		rounds += each * times
		s.progress("%d %s", rounds, what)
		if time.Since(began) >= s.duration || ctx.Err() != nil {
			s.say("%d %s", rounds, what)
			return context.Cause(ctx)
		}
	}
}

// histories runs the tests that compare random histories with the model.
func histories(ctx context.Context, s *settings) error {
	return s.repeat(ctx, "./mvcc", "^(TestModel_L1_RandomHistories|TestModel_Metamorphic|TestConcurrent_.*|TestModel_R16_Incrementals)$")
}

// budget runs the sweep over refused requests, which needs a program that is built for it.
func budget(ctx context.Context, s *settings) error {
	args := []string{"-tags", "invariants", "-run", "^TestBudget_", "-count=1", "-timeout", "24h", "-v", "./internal/prove",
		"-each", "0", "-for", fmt.Sprint(s.duration)}
	out, err := goTest(ctx, s.seed, args...)
	s.say("%s", bytes.TrimSpace(out))
	return err
}

// backups runs the tests of random histories of backups, again and again.
func backups(ctx context.Context, s *settings) error {
	return s.repeat(ctx, "./livebackup", "^(TestModel_.*|TestRecover_.*|TestL13_EverybodyAtOnce)$")
}

// repeat runs tests of a package until the time is over.
func (s *settings) repeat(ctx context.Context, pkg, tests string) error {
	began := time.Now()
	for n := uint64(1); ; n++ {
		args, seed := []string{"-run", tests, "-count=1", "-timeout", "30m", "-v", pkg}, s.seed+n-1
		if out, err := goTest(ctx, seed, args...); err != nil {
			return fmt.Errorf("repeat with: %s=%d go test %s: %w\n%s", chance.Variable, seed, strings.Join(args, " "), err, out)
		}
		s.progress("%d runs of %s in %s", n, tests, pkg)
		if time.Since(began) >= s.duration || ctx.Err() != nil {
			s.say("%d runs of %s in %s", n, tests, pkg)
			return context.Cause(ctx)
		}
	}
}

// goTest runs tests, whose seeds all follow from one.
func goTest(ctx context.Context, seed uint64, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test"}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", chance.Variable, seed))
	return cmd.CombinedOutput()
}

// plantedAtOnce is how many planted bugs are tried at once: with one, a processor waits
// for the other to link, or for the disk.
const plantedAtOnce = 2

// plantedBugs runs the tests over each planted bug, or over some of them.
func plantedBugs(ctx context.Context, s *settings) error {
	var list []mutants.Mutant
	for _, m := range mutants.All() {
		if strings.Contains(m.Name, s.only) {
			list = append(list, m)
		}
	}
	if s.sample > 0 && s.sample < len(list) {
		rand.New(rand.NewPCG(s.seed, 0)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:s.sample]
	}
	strangers := map[string]bool{}
	for _, m := range mutants.Strangers() {
		strangers[m.Name] = true
	}
	var t tally
	strange, found := 0, 0
	var mu sync.Mutex // of what became of them
	atOnce(ctx, len(list), plantedAtOnce, func(i int) {
		m := list[i]
		res, err := mutants.Run(ctx, ".", m, mutants.Options{})
		if ctx.Err() != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		s.count(&t, m, res, err)
		if strangers[m.Name] {
			strange++
			if res.Killed {
				found++
			}
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.say("%d of %d planted bugs are found; of these a stranger's: %d of %d", t.killed, len(list), found, strange)
	return errors.Join(t.survivors...)
}

// tally is what became of planted bugs.
type tally struct {
	killed, unfit, unreached int
	survivors                []error
}

// count prints what became of one.
func (s *settings) count(t *tally, m mutants.Mutant, res mutants.Result, err error) {
	switch {
	case errors.Is(err, mutants.ErrUnfit):
		t.unfit++
		s.say("unfit     %s", m.Name)
	case err != nil:
		t.survivors = append(t.survivors, err)
		s.say("unknown   %-55s %v", m.Name, err)
	case res.Killed:
		t.killed++
		s.say("killed    %-55s %s, %v", m.Name, res.By, res.Took.Round(time.Second))
	default:
		t.survivors = append(t.survivors, fmt.Errorf("no test finds %q (%s), which breaks %s: %s", m.Name, m.File, m.Breaks, s.again(m.Name)))
		s.say("SURVIVES  %-55s %v", m.Name, res.Took.Round(time.Second))
	}
}

// fuzzPlanted has each fuzz target look for the bug that is planted for it.
func fuzzPlanted(ctx context.Context, s *settings) error {
	var t tally
	for _, b := range mutants.FuzzBugs() {
		if !strings.Contains(b.Name, s.only) {
			continue
		}
		res, err := mutants.RunFuzz(ctx, ".", b)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.count(&t, b.Mutant, res, err)
	}
	s.say("%d planted bugs are found by fuzzing", t.killed)
	return errors.Join(t.survivors...)
}

// mutate makes bugs of every part, and says which are found: --sample of each part, or
// as many as the time is enough for. What survives is listed; whether it is a bug at all
// a person has to judge.
func mutate(ctx context.Context, s *settings) error {
	list, made, err := s.makeBugs()
	if err != nil {
		return err
	}
	woven, err := mutants.Weave(ctx, ".", list, s.say)
	if err != nil {
		return err
	}
	defer woven.Close()
	results := s.tryAll(ctx, woven, list)
	var all tally
	for _, p := range mutants.Parts() {
		var of tally
		for _, r := range results {
			if r.part == p.Name {
				of.add(r)
			}
		}
		if n := of.tried(); n > 0 {
			s.say("%-10s %d of %d bugs are found, %.1f %% (%d unreached), drawn from %d", p.Name, of.killed, n, 100*float64(of.killed)/float64(n), of.unreached, made[p.Name])
		}
		all.killed, all.unreached, all.survivors = all.killed+of.killed, all.unreached+of.unreached, append(all.survivors, of.survivors...)
	}
	s.say("%d of %d bugs are found", all.killed, all.tried())
	return context.Cause(ctx) // nil, unless somebody has had enough
}

// makeBugs draws the bugs of each part, and says how many can be made of it.
func (s *settings) makeBugs() (list []mutants.Made, made map[string]int, err error) {
	made = map[string]int{}
	for _, p := range mutants.Parts() {
		of, err := mutants.Generate(".", p, s.seed)
		if err != nil {
			return nil, nil, err
		}
		made[p.Name] = len(of)
		if s.sample > 0 && s.sample < len(of) {
			of = of[:s.sample]
		}
		for _, m := range of {
			if strings.Contains(m.Part, s.only) || strings.Contains(m.Name, s.only) {
				list = append(list, m)
			}
		}
	}
	return list, made, nil
}

// tried is what became of a bug of a part.
type tried struct {
	part string
	mutants.Result
	err error
}

// tryAll tries each bug, two at a time, in turns of the parts, until the time is over.
func (s *settings) tryAll(ctx context.Context, woven *mutants.Woven, list []mutants.Made) (results []tried) {
	began := time.Now()
	var group sync.WaitGroup
	var mu sync.Mutex
	order := rand.New(rand.NewPCG(s.seed, 2)).Perm(len(list))
	for range 2 {
		group.Go(func() {
			for {
				mu.Lock()
				if len(order) == 0 || ctx.Err() != nil || s.duration > 0 && time.Since(began) > s.duration {
					mu.Unlock()
					return
				}
				i := order[0]
				order = order[1:]
				mu.Unlock()
				res, err := woven.Try(ctx, i)
				mu.Lock()
				if ctx.Err() != nil && !res.Killed { // nothing is known
					mu.Unlock()
					return
				}
				results = append(results, tried{list[i].Part, res, err})
				s.tell(list[i], res, err)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return results
}

// tell prints what became of a bug that was made.
func (s *settings) tell(m mutants.Made, res mutants.Result, err error) {
	took := res.Took.Round(time.Second / 10)
	switch {
	case errors.Is(err, mutants.ErrUnfit):
		s.say("unfit     %-10s %s", m.Part, m.Name)
	case err != nil:
		s.say("unknown   %-10s %s: %v", m.Part, m.Name, err)
	case res.Killed:
		s.say("killed    %-10s %s (%s, %v)", m.Part, m.Name, res.By, took)
	case res.Unreached:
		s.say("UNREACHED %-10s %s", m.Part, m.Name)
	default:
		s.say("SURVIVES  %-10s %s (%v)", m.Part, m.Name, took)
	}
}

// add counts what became of one that was made.
func (t *tally) add(r tried) {
	switch {
	case errors.Is(r.err, mutants.ErrUnfit):
		t.unfit++
	case r.Killed:
		t.killed++
	default:
		if r.Unreached {
			t.unreached++
		}
		t.survivors = append(t.survivors, fmt.Errorf("no test finds %q: %w", r.Mutant.Name, r.err))
	}
}

// tried is how many are known about.
func (t *tally) tried() int { return t.killed + len(t.survivors) }
