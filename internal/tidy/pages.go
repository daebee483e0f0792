package tidy

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The laws and rules that docs/laws.md must have a row for.
const (
	lawsFile = "docs/laws.md"
	lawsMax  = 14 // L1 to L14
	rulesMax = 21 // R1 to R21

	// untested stands in a row that names no test.
	untested = "no test yet"
)

var (
	lawRow   = regexp.MustCompile(`^\| ([LR][0-9]+) \|`)
	namedOne = regexp.MustCompile("`((?:[a-z]+/)*[a-z]+)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")
)

// checkLaws proves of the table of laws that it is complete and that the tests
// it names exist.
func checkLaws(t *tree) {
	text, exists := t.texts[lawsFile]
	if !exists {
		t.report(lawsFile, 0, "docs", "the table of laws is missing")
		return
	}
	tests := t.tests()
	var rows []string
	n := 0
	for line := range strings.Lines(text) {
		n++
		named := namedOne.FindAllStringSubmatch(line, -1)
		for _, name := range named {
			if !slices.Contains(tests, name[1]+"."+name[2]) {
				t.report(lawsFile, n, "docs", "there is no %s in %s", name[2], name[1])
			}
		}
		row := lawRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		rows = append(rows, row[1])
		if len(named) == 0 && !strings.Contains(line, untested) {
			t.report(lawsFile, n, "docs", "%s names no test and does not say so: %q", row[1], untested)
		}
	}
	if want := allLaws(); !slices.Equal(rows, want) {
		t.report(lawsFile, 0, "docs", "rows are %v, not %v", rows, want)
	}
}

func allLaws() (all []string) {
	for i := range lawsMax {
		all = append(all, fmt.Sprintf("L%d", i+1))
	}
	for i := range rulesMax {
		all = append(all, fmt.Sprintf("R%d", i+1))
	}
	return all
}

// tests is every top-level function of a test file, as folder.Name.
func (t *tree) tests() (names []string) {
	for _, s := range t.sources {
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				names = append(names, s.dir+"."+f.Name.Name)
			}
		}
	}
	return names
}

// mention is a file of ours, in backticks.
var mention = regexp.MustCompile("`((?:[a-z]+/)+[a-z0-9_]*\\.(?:go|md))`")

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// checkLinks follows the links of our pages within the repository, and looks for
// the files that they mention.
func checkLinks(t *tree) {
	for page, text := range t.texts {
		if !strings.HasSuffix(page, ".md") {
			continue
		}
		n := 0
		for line := range strings.Lines(text) {
			n++
			for _, m := range mention.FindAllStringSubmatch(line, -1) {
				if !t.exists(m[1]) {
					t.report(page, n, "docs", "there is no %s", m[1])
				}
			}
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if !t.exists(path.Join(path.Dir(page), m[1])) {
					t.report(page, n, "docs", "the link to %s leads nowhere", m[1])
				}
			}
		}
	}
}

// exists reports whether name is a text file or a folder with one.
func (t *tree) exists(name string) bool {
	if _, ok := t.texts[name]; ok {
		return true
	}
	for p := range t.texts {
		if strings.HasPrefix(p, strings.TrimSuffix(name, "/")+"/") {
			return true
		}
	}
	return false
}
