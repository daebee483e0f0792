package mutants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/internal/chance"
)

// Result is what became of a planted bug.
type Result struct {
	Mutant Mutant
	Killed bool
	By     string        // package and test that found it
	Took   time.Duration // all runs together

	Unreached bool // no test passes its place: only [Woven.Try] asks
}

// Options of [Run]. The zero value is good.
type Options struct {
	Timeout time.Duration // of one package's tests; 0: five minutes. A test that hangs has found the bug
	Args    []string      // for go test, behind the package; nil: the short tests

	more uint64 // beyond the number from which seeds follow
}

// ErrUnfit means that a mutant does not build: it proves nothing.
var ErrUnfit = errors.New("does not build")

// seedsMax is with how many seeds a bug is looked for: a test of random histories need not
// meet it in the first.
const seedsMax = 3

// Run plants a bug and runs the tests that should find it, package by package, until
// one fails; if none does, with other seeds. The test that is known to have found it is
// run before all others, by itself. An error means that nothing is known: the bug could
// not be planted, or the program does not build with it.
func Run(ctx context.Context, root string, m Mutant, o Options) (res Result, err error) {
	began := time.Now()
	res.Mutant = m
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return res, fmt.Errorf("run %q: %w", m.Name, err)
	}
	defer os.RemoveAll(dir)
	overlay, err := Plant(root, dir, m)
	if err != nil {
		return res, err
	}
	for _, tests := range runsOf(m, o) {
		by, err := find(ctx, root, overlay, tests.pkg, tests.o)
		res.Took = time.Since(began)
		if err != nil {
			return res, fmt.Errorf("run %q in %s: %w", m.Name, tests.pkg, err)
		}
		if by != "" {
			res.Killed, res.By = true, tests.pkg+"."+by
			return res, nil
		}
	}
	return res, nil
}

// testRun is tests of one package, with one seed.
type testRun struct {
	pkg string
	o   Options
}

// runsOf lists what is to be run with a bug: the test that should find it, with each
// seed, then all tests with each seed.
func runsOf(m Mutant, o Options) (list []testRun) {
	if o.Args != nil { // the caller knows what is to be run
		for _, pkg := range m.Packages {
			list = append(list, testRun{pkg, o})
		}
		return list
	}
	if pkg, name, ok := strings.Cut(killers[m.Name], "."); ok {
		one := o
		one.Args = []string{"-run", "^" + name + "$"}
		for one.more = range uint64(seedsMax) {
			list = append(list, testRun{pkg, one})
		}
	}
	for o.more = range uint64(seedsMax) {
		for _, pkg := range m.Packages {
			list = append(list, testRun{pkg, o})
		}
	}
	return list
}

// otherSeeds is this process's environment, with so much more in the number from which
// the tests' seeds follow. Without one they are others each time.
func otherSeeds(more uint64) []string {
	env := os.Environ()
	if number, err := strconv.ParseUint(os.Getenv(chance.Variable), 0, 64); err == nil {
		env = append(env, fmt.Sprintf("%s=%d", chance.Variable, number+more))
	}
	return env
}

// triesMax is how many tests of a package may fail once and not again.
const triesMax = 3

// find returns the test of a package that finds a bug, or "". A test that fails for a
// reason of its own, on a busy machine, has found nothing: it has to fail again.
func find(ctx context.Context, root, overlay, pkg string, o Options) (by string, err error) {
	var skip []string
	for range triesMax {
		args := o.Args
		if skip != nil {
			args = append([]string{"-skip", "^(" + strings.Join(skip, "|") + ")$"}, args...)
		}
		by, err := test(ctx, root, overlay, pkg, o, args...)
		if by == "" || err != nil {
			return "", err
		}
		top, _, _ := strings.Cut(by, "/")
		if !strings.HasPrefix(top, "Test") || strings.Contains(top, " ") {
			return by, nil // hangs, panics, or ends the process
		}
		again, err := test(ctx, root, overlay, pkg, o, "-run", "^"+top+"$", "-count=4")
		if again != "" || err != nil {
			return by, err
		}
		skip = append(skip, top)
	}
	return "", nil
}

// test runs the tests of one package and returns the one that failed, or "".
func test(ctx context.Context, root, overlay, pkg string, o Options, more ...string) (by string, err error) {
	timeout := o.Timeout
	if timeout == 0 {
		timeout = 5 * time.Minute
	}
	args := []string{"test", "-overlay", overlay, "-count=1", "-failfast", "-vet=off", "-timeout", timeout.String(), "-short", "./" + pkg}
	cmd := exec.CommandContext(ctx, "go", append(args, more...)...)
	cmd.Dir, cmd.Env = root, otherSeeds(o.more)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")) {
		return "", fmt.Errorf("%w:\n%s", ErrUnfit, tail(out))
	}
	return failing(out), nil
}

var (
	failed  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	running = regexp.MustCompile(`(?m)^\s+(Test\S+) \(`)
	inTest  = regexp.MustCompile(`\.(Test\w+)\(`)
)

// failing names the test that failed, by the innermost name that the output has.
func failing(out []byte) string {
	if all := failed.FindAllSubmatch(out, -1); len(all) > 0 {
		return string(all[len(all)-1][1])
	}
	if m := running.FindSubmatch(out); m != nil && bytes.Contains(out, []byte("test timed out")) {
		return string(m[1]) + " (hangs)"
	}
	if m := inTest.FindSubmatch(out); m != nil {
		return string(m[1]) + " (panics)"
	}
	return "(the process ends: " + strings.TrimSpace(firstLine(out)) + ")"
}

func firstLine(out []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return string(line)
}

func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
