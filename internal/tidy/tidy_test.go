package tidy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHouseRules applies the rules to this repository.
func TestHouseRules(t *testing.T) {
	found, err := Check("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// findingsIn applies the rules to files, without the findings that any small
// tree has.
func findingsIn(t *testing.T, files map[string]string) []string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, f := range found {
		if _, ours := files[f.Path]; ours || !strings.Contains(f.Path, ".") {
			texts = append(texts, f.String())
		}
	}
	return texts
}

const blockDoc = "// Package block is short.\npackage block\n"

// TestEachRuleFindsItsBreach plants one breach each, beside what is right.
func TestEachRuleFindsItsBreach(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		want       string // of the only finding; "": nothing is wrong
	}{
		"nothing":          {"block/a.go", "package block\n", ""},
		"upward":           {"block/a.go", "package block\nimport _ \"" + module + "/mvcc\"\n", "block/a.go:2: imports: block may not import mvcc"},
		"other system":     {"block/a_windows.go", "package block\nimport _ \"" + module + "/kv\"\n", "imports: block may not import kv"},
		"third party":      {"block/a.go", "package block\nimport _ \"github.com/google/btree\"\n", "may not import github.com/google/btree"},
		"test goes up":     {"block/a_test.go", "package block_test\nimport _ \"" + module + "/mvcc\"\n", ""},
		"no row":           {"util2/doc.go", "// Package util2 is new.\npackage util2\n", "util2 has no row"},
		"long function":    {"block/a.go", "package block\nfunc f() {" + strings.Repeat("\n", 70) + "}\n", "length: f has 71 lines"},
		"right length":     {"block/a.go", "package block\nfunc f() {" + strings.Repeat("\n", 69) + "}\n", ""},
		"long file":        {"block/a.go", "package block\n" + strings.Repeat("\n", 700), "length: 701 lines"},
		"no package doc":   {"wal/doc.go", "package wal\n", "wal: doc: no comment says"},
		"detached doc":     {"block/a.go", "// Package block was told.\n\npackage block\n", "cuts this comment off"},
		"doc elsewhere":    {"block/a.go", "// Package block twice.\npackage block\n", "belongs in doc.go"},
		"export":           {"block/a.go", "package block\nfunc F() {}\n", "doc: F has no comment"},
		"method":           {"block/a.go", "package block\ntype t int\nfunc (t) F() {}\n", ""},
		"exported method":  {"block/a.go", "package block\n// T is.\ntype T[K any] struct{}\nfunc (*T[K]) F() {}\n", "doc: F has no comment"},
		"interface":        {"block/a.go", "package block\n// T is.\ntype T interface{\nF()\n}\n", ""},
		"interface of two": {"block/a.go", "package block\n// T is.\ntype T interface{\nF()\nG() // does\n}\n", "doc: T.F has no comment"},
		"enumeration":      {"block/a.go", "package block\n// T is.\ntype T int\nconst (\nA T = iota\nB\n)\n", ""},
		"group":            {"block/a.go", "package block\n// All of them.\nconst (\nA = 1\nB = 2\n)\n", ""},
		"const":            {"block/a.go", "package block\nconst A = 1\n", "doc: A has no comment"},
		"package name":     {"cmd/x/doc.go", "// Package util is.\npackage util\n", "name: util is no name"},
		"sleep":            {"block/a_test.go", "package block\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "time.Sleep"},
		"bubble":           {"block/a_test.go", "package block\nimport (\n\"testing/synctest\"\n\"time\"\n)\nvar _ = synctest.Wait\nfunc f() { time.Sleep(1) }\n", ""},
		"panic":            {"block/a.go", "package block\nfunc f() { panic(1) }\n", "panic without"},
		"panic with why":   {"block/a.go", "package block\nfunc f() {\npanic(1) // cannot be\n}\n", ""},
		"invariant":        {"block/a.go", "package block\nfunc f() {\nif invariants {\npanic(1)\n}\n}\n", ""},
		"file":             {"block/a.go", "package block\nimport \"os\"\nvar _, err = os.Open(\"x\")\n", "os.Open in the engine"},
		"file in test":     {"block/a_test.go", "package block\nimport \"os\"\nvar _, err = os.Open(\"x\")\n", ""},
		"seed":             {"block/a_test.go", "package block\nimport \"math/rand/v2\"\nvar seed = rand.Uint64()\n", "takes its seed from package chance"},
		"skip":             {"block/a_test.go", "package block\nimport \"testing\"\nfunc f(t *testing.T) { t.SkipNow() }\n", "says why"},
		"note":             {"block/a.txt", "is right, TO" + "DO later\n", "leftover: a note"},
		"machine":          {"block/a.txt", "see /wo" + "rk/x\n", "leftover: a path"},
		"no machine":       {"block/a.txt", "see net/wo" + "rk/x and https://x.org/ro" + "ot/\n", ""},
		"linked worktree":  {".git", "gitdir: /wo" + "rk/main/.git/worktrees/x\n", ""},
		"dead link":        {"block/a.md", "see [it](b.md)\n", "leads nowhere"},
		"dead mention":     {"block/a.md", "see `block/gone.go`\n", "there is no block/gone.go"},
		"mention":          {"block/a.md", "see `block/doc.go` and `log/`\n", ""},
		"link":             {"block/a.md", "see [it](doc.go) and [web](https://x.org)\n", ""},
		"law":              {lawsFile, "| L1 | x | `block.TestNo` |\n", "docs/laws.md: docs: rows are [L1]"},
		"law's test":       {lawsFile, "none `block.TestNo`\n", "there is no TestNo in block"},
		"law without":      {lawsFile, "| L1 | x | y |\n", "L1 names no test"},
		"empty mission":    {missionFile, "| S1-01 K | x |  | y |\n", "S1-01 has an empty cell"},
		"short mission":    {missionFile, "| S1-01 K | x | y |\n", "S1-01 has an empty cell"},
		"mission":          {missionFile, "| S1-01 K | x | y | z |\n", ""},
		"mission twice":    {missionFile, "| S1-01 K | x | y | z |\n| S1-01 B | x | y | z |\n", "S1-01 is there twice"},
		"no such flag":     {operatingFile, "use `--no-such 1`\n", "there is no flag --no-such"},
		"no such option":   {operatingFile, "set `NoSuch`\n", "there is no option NoSuch"},
		"example":          {readmeFile, "# none\n", "its example is not func app"},
	} {
		t.Run(name, func(t *testing.T) {
			found := findingsIn(t, map[string]string{"block/doc.go": blockDoc, test.file: test.text})
			switch {
			case test.want == "" && len(found) > 0:
				t.Fatalf("found %q", found)
			case test.want != "" && !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, test.want) }):
				t.Fatalf("found %q, not %q", found, test.want)
			}
		})
	}
}

func TestExampleOfTheREADMEIsCompared(t *testing.T) {
	example := "package spillway_test\n\nfunc app() {\n\t_ = 1\n}\n"
	for text, right := range map[string]bool{
		"# x\n\n```go\nfunc app() {\n\t_ = 1\n}\n```\n":                                  true,
		"# x\n\n```go\nfunc app() {\n\t_ = 2\n}\n```\n":                                  false,
		"# x\n\n```go\nfunc app() {\n\t_ = 1\n}\n```\n\n```go\nfunc other() {\n}\n```\n": false,
	} {
		found := findingsIn(t, map[string]string{readmeFile: text, exampleFile: example})
		if (len(found) == 0) != right {
			t.Errorf("%q: found %q", text, found)
		}
	}
}

// TestOperatingNamesEveryWarning: an event, a level, a flag and an option that there are.
func TestOperatingNamesEveryWarning(t *testing.T) {
	files := map[string]string{
		"mvcc/doc.go":           "// Package mvcc is.\npackage mvcc\n\n// EventKind is.\ntype EventKind string\n\n// Those.\nconst (\n\tA EventKind = \"gone\"\n\tLevelA = \"pool\"\n)\n\n// Options are.\ntype Options struct{ Most int }\n",
		"cmd/livebackup/doc.go": "// Command livebackup is.\npackage main\n\nvar f = \"max-held\"\n",
	}
	for text, want := range map[string]string{
		"`gone` and `pool`, `Most`, `--max-held 2GB`\n": "",
		"`gone` and `Most`\n":                           `it does not say what "pool" means`,
		"`pool` and gone\n":                             `it does not say what "gone" means`,
	} {
		files[operatingFile] = text
		found := findingsIn(t, files)
		if want == "" && len(found) > 0 || want != "" && !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%q: found %q", text, found)
		}
	}
}

// unreached is what is found of a level that no test reaches.
const unreached = `no test is named that reaches "pool"`

// TestReached_EachHasATest: a row that names a test, or says that there is nobody to warn, in
// the section for that.
func TestReached_EachHasATest(t *testing.T) {
	for text, reached := range map[string]bool{
		"| `pool` | `block.TestA` |\n":                    false,
		reachedTitle + "| `pool` | by hand |\n":           false,
		reachedTitle + "| `pond` | `block.TestA` |\n":     false,
		reachedTitle + "| `pool` | `block.TestA` |\n":     true,
		reachedTitle + "| `pool` | warns nobody | |\n":    true,
		reachedTitle + "\n## x\n| `pool` | `a.TestA` |\n": false,
	} {
		found := findingsIn(t, map[string]string{
			"mvcc/doc.go": "// Package mvcc is.\npackage mvcc\n\n// It is.\nconst LevelA = \"pool\"\n", operatingFile: "`pool`\n", lawsFile: text,
		})
		if slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, unreached) }) == reached {
			t.Errorf("%q: found %q", text, found)
		}
	}
}
