package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Woven is programs of tests that have many bugs in them, each asleep until a process
// is told to wake it. Close it. Its methods are safe for concurrent use.
type Woven struct {
	root, dir string
	list      []Made
	unfit     map[int]bool // by number: index in list plus 1
	packages  []string
	tests     map[string][]*wovenTest // by package

	mu    sync.Mutex
	kills map[string]int // by package and test
}

// wovenTest is a test, and the places that it passes.
type wovenTest struct {
	pkg, name string
	took      time.Duration // with nothing awake
	reached   map[int]bool
	broken    bool // it fails with nothing awake
}

// Weave builds the tests of all packages that should find one of the bugs, with all of
// these bugs in them. A bug that does not build is left out: see [Woven.Fits]. say is
// told what is being done; nil: nobody.
func Weave(ctx context.Context, root string, list []Made, say func(format string, args ...any)) (*Woven, error) {
	if say == nil {
		say = func(string, ...any) {}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("weave: %w", err)
	}
	dir, err := os.MkdirTemp("", "woven")
	if err != nil {
		return nil, fmt.Errorf("weave: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // tests have helpers that run as other users
		return nil, errors.Join(fmt.Errorf("weave: %w", err), os.RemoveAll(dir))
	}
	w := &Woven{root: root, dir: dir, list: list, unfit: map[int]bool{}, tests: map[string][]*wovenTest{}, kills: map[string]int{}}
	for _, m := range list {
		for _, pkg := range m.Packages {
			if !slices.Contains(w.packages, pkg) {
				w.packages = append(w.packages, pkg)
			}
		}
	}
	for _, step := range []func(context.Context, func(string, ...any)) error{w.build, w.reach} {
		if err := step(ctx, say); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// Close removes the programs.
func (w *Woven) Close() error { return os.RemoveAll(w.dir) }

// Fits reports whether bug i of the list builds.
func (w *Woven) Fits(i int) bool { return !w.unfit[i+1] }

func (w *Woven) program(pkg string) string {
	return filepath.Join(w.dir, flat(pkg)+".test")
}

// flat is a name that holds no other's.
func flat(name string) string { return strings.ReplaceAll(name, "/", "_") }

// tooManyErrors is how often a build may fail because of bugs that do not build.
const tooManyErrors = 50

// build builds the programs, and leaves out what does not.
func (w *Woven) build(ctx context.Context, say func(string, ...any)) error {
	for _, pkg := range w.packages {
		say("building the tests of %s with %d bugs in them", pkg, len(w.list)-len(w.unfit))
		for tries := 0; ; tries++ {
			woven, err := weaveAll(w.read, w.list, w.unfit)
			if err != nil {
				return err
			}
			out, err := w.buildOne(ctx, pkg, woven)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if left := w.leaveOut(out, woven); left == 0 || tries == tooManyErrors {
				return fmt.Errorf("weave bugs into %s: %w\n%s", pkg, err, tail(out))
			}
		}
	}
	return nil
}

func (w *Woven) read(file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(w.root, file))
	return string(text), err
}

// buildOne builds the tests of one package over the files in woven.
func (w *Woven) buildOne(ctx context.Context, pkg string, woven map[string]string) ([]byte, error) {
	replace := map[string]string{}
	for file, text := range woven {
		to := filepath.Join(w.dir, flat(file))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return nil, err
		}
		replace[filepath.Join(w.root, filepath.FromSlash(file))] = to
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(w.dir, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "invariants", "-overlay", overlay, "-vet=off", "-o", w.program(pkg), "./"+pkg)
	cmd.Dir = w.root
	return cmd.CombinedOutput()
}

var (
	buildError = regexp.MustCompile(`(?m)^(\S+\.go):(\d+):\d+: `)
	wovenPlace = regexp.MustCompile(`mutant(?:Is|Sum|Difference)\((\d+)`)
)

// leaveOut leaves out the bugs of the lines that a build complains of, and returns how
// many these are.
func (w *Woven) leaveOut(out []byte, woven map[string]string) (n int) {
	for _, m := range buildError.FindAllSubmatch(out, -1) {
		at, err := strconv.Atoi(string(m[2]))
		if err != nil {
			continue
		}
		for file, text := range woven {
			lines := strings.Split(text, "\n")
			if base := filepath.Base(string(m[1])); base != filepath.Base(file) && base != flat(file) || at > len(lines) {
				continue
			}
			for _, id := range wovenPlace.FindAllStringSubmatch(lines[at-1], -1) {
				if k, err := strconv.Atoi(id[1]); err == nil && !w.unfit[k] {
					w.unfit[k] = true
					n++
				}
			}
		}
	}
	return n
}

// reach runs each test alone, with nothing awake, and notes which places it passes, and
// how long it takes.
func (w *Woven) reach(ctx context.Context, say func(string, ...any)) error {
	for _, pkg := range w.packages {
		out, err := w.run(ctx, pkg, time.Minute, nil, "-test.list", "^Test")
		if err != nil {
			return fmt.Errorf("list the tests of %s: %w\n%s", pkg, err, tail(out))
		}
		for _, name := range strings.Fields(string(out)) {
			if !strings.HasPrefix(name, "Test") {
				continue
			}
			file := filepath.Join(w.dir, "reached")
			_ = os.Remove(file)
			began := time.Now()
			t := &wovenTest{pkg: pkg, name: name, reached: map[int]bool{}}
			out, err := w.run(ctx, pkg, 10*time.Minute, []string{envReached + "=" + file}, "-test.run", "^"+name+"$")
			t.took = time.Since(began)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if t.broken = err != nil; t.broken {
				say("%s.%s fails with no bug awake, and does not count:\n%s", pkg, name, tail(out))
			}
			reached, _ := os.ReadFile(file) // none is no error
			for _, n := range strings.Fields(string(reached)) {
				k, _ := strconv.Atoi(n)
				t.reached[k] = true
			}
			w.tests[pkg] = append(w.tests[pkg], t)
		}
		say("%d tests of %s have been run one by one", len(w.tests[pkg]), pkg)
	}
	return nil
}

// run runs the program of a package's tests. They have found nothing if err is nil.
func (w *Woven) run(ctx context.Context, pkg string, timeout time.Duration, env []string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+30*time.Second) // its own timeout comes first, and says where it hangs
	defer cancel()
	tmp, err := os.MkdirTemp(w.dir, "tmp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	args = append([]string{"-test.short", "-test.failfast", "-test.timeout", timeout.String()}, args...)
	cmd := exec.CommandContext(ctx, w.program(pkg), args...)
	if runtime.GOOS == "linux" { // a bug may ask for memory without end
		cmd = exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -v 8000000; exec "$0" "$@"`, w.program(pkg)}, args...)...)
	}
	cmd.Dir = filepath.Join(w.root, filepath.FromSlash(pkg))
	cmd.Env = append(append(os.Environ(), "TMPDIR="+tmp), env...)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	limited := &firstBytes{b: &out, left: 1 << 20}
	cmd.Stdout, cmd.Stderr = limited, limited
	err = cmd.Run()
	return out.Bytes(), err
}

// firstBytes keeps the first bytes of what a test prints, which may be without end.
type firstBytes struct {
	b    *bytes.Buffer
	left int
}

// Write keeps what there is room for.
func (f *firstBytes) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	f.b.Write(p[:n])
	return len(p), nil
}
