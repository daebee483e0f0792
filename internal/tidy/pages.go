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

// checkLaws proves of the table of laws that it is complete.
func checkLaws(t *tree) {
	text, exists := t.texts[lawsFile]
	if !exists {
		t.report(lawsFile, 0, "docs", "the table of laws is missing")
		return
	}
	var rows []string
	n := 0
	for line := range strings.Lines(text) {
		n++
		row := lawRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		rows = append(rows, row[1])
		if !namedOne.MatchString(line) && !strings.Contains(line, untested) {
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

// missionFile has a row for each line of what others do.
const missionFile = "docs/mission.md"

var missionRow = regexp.MustCompile(`^\| (S[0-9]-[0-9V]+) [KB/]+ \|`)

// checkMission proves that no row of the mission is empty, and none twice.
func checkMission(t *tree) {
	seen := make(map[string]bool)
	n := 0
	for line := range strings.Lines(t.texts[missionFile]) {
		n++
		row := missionRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		empty := slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" })
		if len(cells) != 4 || empty {
			t.report(missionFile, n, "docs", "%s has an empty cell", row[1])
		}
		if seen[row[1]] {
			t.report(missionFile, n, "docs", "%s is there twice", row[1])
		}
		seen[row[1]] = true
	}
}

// checkNamedTests proves that the tests exist which our pages name.
func checkNamedTests(t *tree) {
	tests := t.tests()
	for page, text := range t.texts {
		if !strings.HasSuffix(page, ".md") {
			continue
		}
		n := 0
		for line := range strings.Lines(text) {
			n++
			for _, name := range namedOne.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(tests, name[1]+"."+name[2]) {
					t.report(page, n, "docs", "there is no %s in %s", name[2], name[1])
				}
			}
		}
	}
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
