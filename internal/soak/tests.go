package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/internal/mutants"
)

// kill runs the test that kills processes, in pieces, until the time is over.
func kill(ctx context.Context, s *settings) error {
	rounds, began := 0, time.Now()
	for seed := s.seed; ; seed++ {
		const each = 100
		out, err := goTest(ctx, "-run", "^TestKill_D1_D2_D9$", "-count=1", "-timeout", "1h", "-v", "./kv",
			"-rounds", fmt.Sprint(each), "-seed", fmt.Sprint(seed))
		if err != nil {
			return fmt.Errorf("seed %d: %w\n%s", seed, err, out)
		}
		rounds += each
		s.progress("%d processes killed", rounds)
		if time.Since(began) >= s.duration || ctx.Err() != nil {
			s.say("%d processes killed", rounds)
			return context.Cause(ctx)
		}
	}
}

// snapshots runs the tests that compare every read with the model, again and again.
func snapshots(ctx context.Context, s *settings) error {
	return s.repeat(ctx, "./mvcc", "^(TestModel_L1_RandomHistories|TestModel_Metamorphic|TestConcurrent_.*|TestModel_R16_Incrementals)$", "-seed")
}

// backups runs the tests of random histories of backups, again and again.
func backups(ctx context.Context, s *settings) error {
	return s.repeat(ctx, "./livebackup", "^(TestModel_.*|TestRecover_.*|TestL13_EverybodyAtOnce)$", "")
}

// repeat runs tests of a package until the time is over. They print their own seeds.
func (s *settings) repeat(ctx context.Context, pkg, tests, seedFlag string) error {
	began := time.Now()
	for n := uint64(1); ; n++ {
		args := []string{"-run", tests, "-count=1", "-timeout", "30m", "-v", pkg}
		if seedFlag != "" {
			args = append(args, seedFlag, fmt.Sprint(s.seed+n-1))
		}
		if out, err := goTest(ctx, args...); err != nil {
			return fmt.Errorf("repeat with: go test %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		s.progress("%d runs of %s in %s", n, tests, pkg)
		if time.Since(began) >= s.duration || ctx.Err() != nil {
			s.say("%d runs of %s in %s", n, tests, pkg)
			return context.Cause(ctx)
		}
	}
}

var (
	fuzzName = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	fuzzRuns = regexp.MustCompile(`execs: (\d+)`)
)

// fuzz gives each fuzz target its share of the time.
func fuzz(ctx context.Context, s *settings) error {
	targets, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	each := max(s.duration/time.Duration(len(targets)), 5*time.Second)
	for _, t := range targets {
		if !strings.Contains(t.name, s.only) {
			continue
		}
		out, err := goTest(ctx, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "./"+t.dir)
		// At its end the fuzzer itself now and then reports its own deadline.
		if err != nil && (bytes.Contains(out, []byte("Failing input")) || !bytes.Contains(out, []byte("context deadline exceeded"))) {
			return fmt.Errorf("%s in %s: %w\n%s", t.name, t.dir, err, out)
		}
		runs := "0"
		if all := fuzzRuns.FindAllSubmatch(out, -1); len(all) > 0 {
			runs = string(all[len(all)-1][1])
		}
		s.say("%s.%s: %s executions in %v", t.dir, t.name, runs, each)
	}
	return nil
}

type fuzzTarget struct{ dir, name string }

// fuzzTargets finds them in the tests below root.
func fuzzTargets(root string) (list []fuzzTarget, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range fuzzName.FindAllSubmatch(text, -1) {
			list = append(list, fuzzTarget{filepath.ToSlash(filepath.Dir(path)), string(m[1])})
		}
		return err
	})
	if err == nil && len(list) == 0 {
		err = errors.New("no fuzz target: run it from the root of the module")
	}
	return list, err
}

func goTest(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, "go", append([]string{"test"}, args...)...).CombinedOutput()
}

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
	killed := 0
	var survivors []error
	for _, m := range list {
		res, err := mutants.Run(ctx, ".", m, mutants.Options{})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			survivors = append(survivors, err)
			s.say("unknown   %-55s %v", m.Name, err)
		case res.Killed:
			killed++
			s.say("killed    %-55s %s, %v", m.Name, res.By, res.Took.Round(time.Second))
		default:
			survivors = append(survivors, fmt.Errorf("no test finds %q (%s), which breaks %s: %s", m.Name, m.File, m.Breaks, s.again(m.Name)))
			s.say("SURVIVES  %-55s %v", m.Name, res.Took.Round(time.Second))
		}
	}
	s.say("%d of %d planted bugs are found", killed, len(list))
	return errors.Join(survivors...)
}
