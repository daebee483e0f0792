package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/spillwaydb/spillway/internal/chance"
)

var (
	blindRuns  = regexp.MustCompile(`(\d+) executions behind (\d+) seeds`)
	blindStale = regexp.MustCompile(`"(testdata/fuzz/[^"]+)": (?:wrong number of values|mismatched types)`)
)

// blindPiece is how long one run of a target's program is to take: what it says is then
// known, and the next one has other seeds of chance.
const blindPiece = 20 * time.Second

// fuzzBlind gives the targets that pass their bodies through package blindfuzz inputs made
// of their seeds and of all that fuzzing has kept: --executions of each, or for its share
// of the time.
func fuzzBlind(ctx context.Context, s *settings) error {
	targets, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	targets = slices.DeleteFunc(targets, func(t fuzzTarget) bool { return !t.blind })
	build := func(targets []fuzzTarget, dir string, most int) (map[string]string, error) {
		return buildTests(ctx, dir, targets, most)
	}
	return s.fuzzShared(ctx, targets, build, func(t fuzzTarget, program, dir, kept string, each time.Duration) error {
		at := filepath.Join(dir, "seeds", filepath.FromSlash(t.dir))
		if err := seedsOf(t, kept, at); err != nil {
			return err
		}
		return s.blindOne(ctx, t, program, at, each)
	})
}

// seedsOf puts the inputs that a target has in its package, and those that fuzzing has
// kept, where its program finds them when it runs in directory at.
func seedsOf(t fuzzTarget, kept, at string) error {
	to := filepath.Join(at, "testdata", "fuzz", t.name)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, from := range []string{filepath.Join(filepath.FromSlash(t.dir), "testdata", "fuzz", t.name), filepath.Join(kept, filepath.FromSlash(t.dir), t.name)} {
		entries, err := os.ReadDir(from)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(from, e.Name()))
			if err == nil {
				err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o600)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// blindOne runs one target in pieces.
func (s *settings) blindOne(ctx context.Context, t fuzzTarget, program, at string, each time.Duration) error {
	total, behind, began := 0, 100, time.Now()
	for piece := uint64(0); ; piece++ {
		seed, start := s.seed+piece, time.Now()
		cmd := exec.CommandContext(ctx, program, "-test.run=^"+t.name+"$", "-test.v", "-test.timeout=1h", "-blind", strconv.Itoa(behind))
		cmd.Dir = at
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", chance.Variable, seed))
		out, err := cmd.CombinedOutput()
		if stale := blindStale.FindAllSubmatch(out, -1); stale != nil && piece == 0 {
			for _, m := range stale { // kept of a target that had other arguments
				if err := os.Remove(filepath.Join(at, filepath.FromSlash(string(m[1])))); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%s in %s, %s=%d, -blind %d: %w\n%s", t.name, t.dir, chance.Variable, seed, behind, err, out)
		}
		said := blindRuns.FindSubmatch(out)
		if said == nil {
			return fmt.Errorf("%s in %s does not say how often it ran:\n%s", t.name, t.dir, out)
		}
		made, _ := strconv.Atoi(string(said[1])) // digits
		seeds, _ := strconv.Atoi(string(said[2]))
		total += made
		if s.executions > 0 && total >= s.executions || s.executions == 0 && time.Since(began) >= each || ctx.Err() != nil {
			s.say("%s.%s: %d executions behind %d seeds in %v", t.dir, t.name, total, seeds, time.Since(began).Round(time.Second))
			return context.Cause(ctx)
		}
		// Growing slowly: the first piece is mostly the start of the program.
		grown := min(float64(blindPiece)/float64(time.Since(start)), 8)
		behind = max(int(float64(behind)*grown), 1)
		if s.executions > 0 {
			behind = min(behind, (s.executions-total)/max(seeds, 1)+1)
		}
	}
}
