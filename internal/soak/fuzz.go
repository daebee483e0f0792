package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

var (
	fuzzName  = regexp.MustCompile(`(?ms)^func (Fuzz\w+)\(.*?^}`)
	fuzzRuns  = regexp.MustCompile(`execs: (\d+)`)
	fuzzInput = regexp.MustCompile(`Failing input written to (\S+)`)
)

// fuzzEach is what every fuzz target gets at least, of one processor.
const fuzzEach = 5 * time.Second

// fuzz gives each fuzz target its share of the time, as many at once as there are
// processors, each with one of them. A package's program is built once for all of its
// targets: that takes as long as the least share.
func fuzz(ctx context.Context, s *settings) error {
	targets, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	build := func(targets []fuzzTarget, dir string, most int) (map[string]string, error) {
		args := []string{"-fuzz=."}
		overlay, err := sparseCoverage(ctx, dir)
		if err != nil {
			return nil, err
		}
		if overlay != "" {
			args = append(args, "-overlay="+overlay)
		} else {
			s.say("the fuzzer of this Go is another than the one that is known here: it is used as it is, and is slower")
		}
		return buildTests(ctx, dir, targets, most, args...)
	}
	return s.fuzzShared(ctx, targets, build, func(t fuzzTarget, program, _, kept string, each time.Duration) error {
		return s.fuzzOne(ctx, t, program, kept, each)
	})
}

// fuzzShared builds the programs of those targets that are asked for, in a directory that
// goes afterwards, and runs one for each target, as many at once as there are processors.
func (s *settings) fuzzShared(ctx context.Context, targets []fuzzTarget, build func(targets []fuzzTarget, dir string, most int) (map[string]string, error),
	one func(t fuzzTarget, program, dir, kept string, each time.Duration) error) error {
	targets = slices.DeleteFunc(targets, func(t fuzzTarget) bool { return !strings.Contains(t.dir+"."+t.name, s.only) })
	if len(targets) == 0 {
		return fmt.Errorf("no such fuzz target has %q in its name", s.only)
	}
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kept, err := fuzzKept(ctx)
	if err != nil {
		return err
	}
	most := runtime.GOMAXPROCS(0)
	built, err := build(targets, dir, most)
	if err != nil {
		return err
	}
	each := max(s.duration*time.Duration(most)/time.Duration(len(targets)), fuzzEach)
	errs := make([]error, len(targets))
	atOnce(ctx, len(targets), most, func(i int) {
		errs[i] = one(targets[i], built[targets[i].dir], dir, kept, each)
	})
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// fuzzKept is where the go command keeps inputs that reach what others do not, below
// which each package has a directory named after its import path.
func fuzzKept(ctx context.Context) (string, error) {
	var lines []string
	for _, args := range [][]string{{"env", "GOCACHE"}, {"list", "-m"}} {
		out, err := exec.CommandContext(ctx, "go", args...).Output()
		if err != nil {
			return "", fmt.Errorf("go %v: %w", args, err)
		}
		lines = append(lines, strings.TrimSpace(string(out)))
	}
	return filepath.Join(lines[0], "fuzz", filepath.FromSlash(lines[1])), nil
}

// buildTests builds the test program of each package that has targets. With -fuzz it has
// in it what the fuzzer needs to see what an input reaches.
func buildTests(ctx context.Context, to string, targets []fuzzTarget, most int, args ...string) (built map[string]string, err error) {
	var dirs []string
	for _, t := range targets {
		dirs = append(dirs, t.dir)
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	errs := make([]error, len(dirs))
	built = map[string]string{}
	for i, dir := range dirs {
		built[dir] = filepath.Join(to, fmt.Sprint(i))
	}
	atOnce(ctx, len(dirs), most, func(i int) {
		all := append(append([]string{"test", "-c"}, args...), "-o", built[dirs[i]], "./"+dirs[i])
		out, err := exec.CommandContext(ctx, "go", all...).CombinedOutput()
		if err != nil {
			errs[i] = fmt.Errorf("build the fuzz targets of %s: %w\n%s", dirs[i], err, out)
		}
	})
	return built, errors.Join(append(errs, context.Cause(ctx))...)
}

// fuzzOne runs one target. Inputs are hardly made smaller: also those that only reach
// something new would be, one after the other, and nothing else be tried meanwhile. Of what it finds the input is printed, too, which repeats it
// where the directory that it was left in is gone.
func (s *settings) fuzzOne(ctx context.Context, t fuzzTarget, program, kept string, each time.Duration) error {
	cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+each.String(),
		"-test.fuzzminimizetime=10x", "-test.parallel=1", "-test.fuzzcachedir="+filepath.Join(kept, filepath.FromSlash(t.dir)))
	cmd.Dir = filepath.FromSlash(t.dir) // where its seeds are
	out, err := cmd.CombinedOutput()
	// At its end the fuzzer itself now and then reports its own deadline as a failure; one
	// that found something names the input.
	found := bytes.Contains(out, []byte("Failing input")) || bytes.Contains(out, []byte("panic"))
	if err != nil && (found || !bytes.Contains(out, []byte("context deadline exceeded"))) {
		text := ""
		if m := fuzzInput.FindSubmatch(out); m != nil {
			input, _ := os.ReadFile(filepath.Join(cmd.Dir, string(m[1]))) // where it cannot be read its name has to do
			text = fmt.Sprintf("%s in %s is:\n%s", m[1], t.dir, input)
		}
		return fmt.Errorf("%s in %s: %w\n%s%s", t.name, t.dir, err, out, text)
	}
	runs := "0"
	if all := fuzzRuns.FindAllSubmatch(out, -1); len(all) > 0 {
		runs = string(all[len(all)-1][1])
	}
	s.say("%s.%s: %s executions in %v", t.dir, t.name, runs, each)
	return nil
}

type fuzzTarget struct {
	dir, name string
	blind     bool // its body goes through package blindfuzz
}

// fuzzTargets finds them in the tests below root.
func fuzzTargets(root string) (list []fuzzTarget, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range fuzzName.FindAllSubmatch(text, -1) {
			list = append(list, fuzzTarget{filepath.ToSlash(filepath.Dir(path)), string(m[1]), bytes.Contains(m[0], []byte("blindfuzz.Each("))})
		}
		return err
	})
	if err == nil && len(list) == 0 {
		err = errors.New("no fuzz target: run it from the root of the module")
	}
	return list, err
}
