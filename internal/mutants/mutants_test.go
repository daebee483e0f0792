package mutants

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPlant_EachFits: the text that each planted bug changes is there exactly once, so
// that none is left behind by a change of the code.
func TestPlant_EachFits(t *testing.T) {
	names := map[string]bool{}
	for _, m := range All() {
		if names[m.Name] {
			t.Errorf("two mutants are named %q", m.Name)
		}
		names[m.Name] = true
		if m.Breaks == "" || len(m.Packages) == 0 {
			t.Errorf("%q does not say what it breaks, or who should find it", m.Name)
		}
		if _, err := Plant("../..", t.TempDir(), m); err != nil {
			t.Error(err)
		}
	}
	if len(names) < 40 {
		t.Errorf("%d planted bugs, at least 40", len(names))
	}
}

// TestKillers_AreThere: each test that is asked first is there, and finds a bug that is.
func TestKillers_AreThere(t *testing.T) {
	due := map[string]bool{}
	for _, m := range All() {
		due[m.Name] = true
	}
	for bug, by := range killers {
		if !due[bug] {
			t.Errorf("no planted bug is named %q", bug)
		}
		pkg, name, _ := strings.Cut(by, ".")
		files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(text), "func "+name+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%q: there is no test %s", bug, by)
		}
	}
}

// newModule is a module of its own, of these files.
func newModule(t *testing.T, files map[string]string) (root string) {
	root = t.TempDir()
	files["go.mod"] = "module example.org/sum\n\ngo 1.25\n"
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-mod=mod")
	return root
}

// TestRun_TellsWhatIsFound: the tool itself, on a module of its own: a bug that the
// tests find, one that they do not, one that does not build, one that does not fit.
func TestRun_TellsWhatIsFound(t *testing.T) {
	root := newModule(t, map[string]string{
		"sum/a.go":      "package sum\n\nfunc Sum(a, b int) int { return a + b }\n\nfunc Twice(a int) int { return a * 2 }\n",
		"sum/a_test.go": "package sum\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n\tt.Run(\"small\", func(t *testing.T) {\n\t\tif Sum(2, 3) != 5 {\n\t\t\tt.Fatal(\"wrong\")\n\t\t}\n\t})\n}\n",
	})
	run := func(old, changed string) (Result, error) {
		return Run(context.Background(), root, Mutant{Name: old, File: "sum/a.go", Old: old, New: changed, Packages: []string{"sum"}}, Options{})
	}
	if res, err := run("a + b", "a - b"); err != nil || !res.Killed || res.By != "sum.TestSum/small" {
		t.Errorf("a bug that a test finds: %+v, %v", res, err)
	}
	if res, err := run("a * 2", "a * 3"); err != nil || res.Killed {
		t.Errorf("a bug that no test finds: %+v, %v", res, err)
	}
	if res, err := run("a * 2", "a * nothing"); !errors.Is(err, ErrUnfit) || res.Killed {
		t.Errorf("a bug that does not build: %+v, %v", res, err)
	}
	if res, err := run("a / b", "a % b"); !errors.Is(err, ErrStale) || res.Killed {
		t.Errorf("a bug that does not fit: %+v, %v", res, err)
	}
}

// wovenCode has a place for each kind of bug, some within others, and some that do not
// build: a sum of texts, and of what must not be evaluated twice.
const wovenCode = `package sum

import "errors"

type size int64

var calls int

func next() int { calls++; return calls }

// Sum is what the test looks at.
func Sum(list []int, most size) (sum size, err error) {
	for i := 0; i < len(list); i++ {
		sum += size(list[i])
		if sum > most && most != 0 || list[i] < 0 {
			err = errors.New("too" + " much")
			return sum - 1, err
		}
	}
	return sum + 1 - size(next()-calls), nil
}

func name(a, b string) string { return a + b }

func any(a, b, c bool) bool { return a || b || c }

func unused(a int) int {
	if a > 3 {
		a--
	}
	return a + 1
}
`

const wovenTests = `package sum

import "testing"

func TestSum(t *testing.T) {
	if s, err := Sum([]int{1, 2}, 3); s != 4 || err != nil {
		t.Fatal(s, err)
	}
	if s, err := Sum([]int{1, 2, 9}, 3); s != 11 || err == nil {
		t.Fatal(s, err)
	}
	if _, err := Sum([]int{-1}, 3); err == nil {
		t.Fatal(err)
	}
	if s, err := Sum([]int{7}, 0); s != 8 || err != nil {
		t.Fatal(s, err)
	}
}

func TestName(t *testing.T) {
	if name("a", "b") != "ab" {
		t.Fatal()
	}
}

// What tells (a || b) && c from a || b && c.
func TestAny(t *testing.T) {
	if !any(true, false, false) {
		t.Fatal()
	}
}
`

// TestWeave_SaysTheSame: many bugs in one program, each woken by itself: what is found,
// what no test reaches, and what does not build.
func TestWeave_SaysTheSame(t *testing.T) {
	root := newModule(t, map[string]string{"sum/a.go": wovenCode, "sum/a_test.go": wovenTests})
	list, err := Generate(root, Part{Name: "sum", Files: []string{"sum/a.go"}, Packages: []string{"sum"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Weave(context.Background(), root, list, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	of := map[string]int{}
	for i, m := range list {
		_, text, _ := strings.Cut(m.Name, " ")
		res, err := w.Try(context.Background(), i)
		what := "SURVIVES"
		switch {
		case errors.Is(err, ErrUnfit):
			what = "unfit"
		case err != nil:
			t.Error(err)
		case res.Killed:
			what = "killed"
		case res.Unreached:
			what = "unreached"
		}
		of[what]++
		if due, ok := wovenDue[text]; what != due && (ok || what != "killed") {
			t.Errorf("%s: %s, want %s; found by %q", text, what, due, res.By)
		}
	}
	t.Log(of)
	if of["killed"] < 10 {
		t.Errorf("%d are found", of["killed"])
	}
}

// wovenDue is what becomes of those that are not simply found.
var wovenDue = map[string]string{
	"Sum: <= for < in: list[i] < 0":                 "SURVIVES", // zero is not tried
	"Sum: + for - in: sum + 1 - size(next()-calls)": "SURVIVES", // of a zero
	"name: - for + in: a + b":                       "unfit",
	"unused: >= for > in: a > 3":                    "unreached",
	"unused: negated: a > 3":                        "unreached",
	"unused: left out: a--":                         "unreached",
	"unused: - for + in: a + 1":                     "unreached",
	"next: left out: calls++":                       "SURVIVES",
}

// TestSwap_SidesStayTogether: what stands beside && and || does, where none of it is a bug
// as well: in a bug that is planted, and in one that is woven.
func TestSwap_SidesStayTogether(t *testing.T) {
	root := newModule(t, map[string]string{"sum/a.go": wovenCode, "sum/a_test.go": wovenTests})
	list, err := Generate(root, Part{Name: "sum", Files: []string{"sum/a.go"}, Packages: []string{"sum"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	list = slices.DeleteFunc(list, func(m Made) bool { return !strings.HasSuffix(m.Name, " any: && for || in: a || b || c") })
	if len(list) != 1 {
		t.Fatalf("%d bugs", len(list))
	}
	if res, err := Run(context.Background(), root, list[0].Mutant, Options{}); err != nil || !res.Killed {
		t.Errorf("planted: %+v, %v", res, err)
	}
	w, err := Weave(context.Background(), root, list, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if res, err := w.Try(context.Background(), 0); err != nil || !res.Killed {
		t.Errorf("woven: %+v, %v", res, err)
	}
}

// TestFailing_NamesTheTest, whatever way it ends.
func TestFailing_NamesTheTest(t *testing.T) {
	for out, want := range map[string]string{
		"--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/b (0.1s)\n":                          "TestA/b",
		"panic: test timed out after 1s\n\trunning tests:\n\t\tTestA (1s)\n\ngoroutine 1": "TestA (hangs)",
		"panic: no\n\ngoroutine 7 [running]:\nexample.org/sum.TestA(0xc0)\n":              "TestA (panics)",
		"signal: killed\n": "(the process ends: signal: killed)",
	} {
		if got := failing([]byte(out)); got != want {
			t.Errorf("%q: %q, want %q", out, got, want)
		}
	}
}

// TestGenerate_EachFits: every part has files, each bug that is made of them fits, and
// they are many.
func TestGenerate_EachFits(t *testing.T) {
	for _, p := range Parts() {
		list, err := Generate("../..", p, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) < 200 {
			t.Errorf("%s: %d bugs, at least 200", p.Name, len(list))
		}
		for _, m := range list[:20] {
			if _, err := Plant("../..", t.TempDir(), m.Mutant); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestFuzzBugs_EachTargetHasOne: every fuzz target of the module has a bug planted for
// it, and each of them fits.
func TestFuzzBugs_EachTargetHasOne(t *testing.T) {
	due := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "peers") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f`).FindAllSubmatch(text, -1) {
			dir, _ := filepath.Rel("../..", filepath.Dir(path))
			due[filepath.ToSlash(dir)+"."+string(name[1])] = true
		}
		return err
	})
	if err != nil || len(due) < 20 {
		t.Fatalf("%d fuzz targets are found: %v", len(due), err)
	}
	for _, b := range FuzzBugs() {
		if !due[b.Name] {
			t.Errorf("%s: there is no such target, or it has two bugs", b.Name)
		}
		delete(due, b.Name)
		if _, err := Plant("../..", t.TempDir(), b.Mutant); err != nil {
			t.Error(err)
		}
	}
	for name := range due {
		t.Errorf("no bug is planted for %s", name)
	}
}
