package mutants

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
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

// TestRun_TellsWhatIsFound: the tool itself, on a module of its own: a bug that the
// tests find, one that they do not, one that does not build, one that does not fit.
func TestRun_TellsWhatIsFound(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":        "module example.org/sum\n\ngo 1.25\n",
		"sum/a.go":      "package sum\n\nfunc Sum(a, b int) int { return a + b }\n\nfunc Twice(a int) int { return a * 2 }\n",
		"sum/a_test.go": "package sum\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n\tt.Run(\"small\", func(t *testing.T) {\n\t\tif Sum(2, 3) != 5 {\n\t\t\tt.Fatal(\"wrong\")\n\t\t}\n\t})\n}\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-mod=mod")
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
			if _, err := Plant("../..", t.TempDir(), m); err != nil {
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
