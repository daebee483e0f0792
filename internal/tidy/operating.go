package tidy

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// operatingFile tells operators what to set and what each warning means.
const operatingFile = "docs/operating.md"

// warnings are the constants whose values are the names of what operators are told:
// those of these types, and those whose names begin so.
var (
	warningTypes    = []string{"EventKind", "Rung", "Guard"}
	warningPrefixes = []string{"Level"}
	warningDirs     = []string{"mvcc", "blockcache"}
)

// optionDirs are the packages whose options and constants the page names.
var optionDirs = []string{"mvcc", "livebackup", "kv"}

var (
	code       = regexp.MustCompile("`([^`]+)`")
	goName     = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	flagInText = regexp.MustCompile(`--([a-z]+(?:-[a-z]+)*)`)
)

// checkOperating proves that the page for operators names every event, rung, guard and
// level that there is, and no option and no flag that there is not.
func checkOperating(t *tree) {
	text, exists := t.texts[operatingFile]
	if !exists {
		return // a tree without operators
	}
	var named []string
	n := 0
	goNames, flags := t.optionNames(), t.flagNames()
	for line := range strings.Lines(text) {
		n++
		for _, m := range code.FindAllStringSubmatch(line, -1) {
			named = append(named, m[1])
			if goName.MatchString(m[1]) && !slices.Contains(goNames, m[1]) {
				t.report(operatingFile, n, "docs", "there is no option %s", m[1])
			}
		}
		for _, m := range flagInText.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(flags, m[1]) {
				t.report(operatingFile, n, "docs", "there is no flag --%s", m[1])
			}
		}
	}
	for _, w := range t.warnings(warningTypes...) {
		if !slices.Contains(named, w) {
			t.report(operatingFile, 0, "docs", "it does not say what %q means", w)
		}
	}
}

// warnings are the values of the constants of these types, and of those whose names begin
// like levels.
func (t *tree) warnings(types ...string) (values []string) {
	t.eachConst(warningDirs, func(kind, name, value string) {
		typed := slices.Contains(types, kind)
		begins := kind == "" && slices.ContainsFunc(warningPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		if typed || begins {
			values = append(values, value)
		}
	})
	slices.Sort(values)
	return slices.Compact(values)
}

// reachedTitle is the section of the page of laws that says which tests reach each rung,
// guard and level; nobodyWarned stands in the row of a level that warns nobody.
const (
	reachedTitle = "\n## Rungs, guards and watermarks\n"
	nobodyWarned = "warns nobody"
)

var reachedRow = regexp.MustCompile("^\\| `([^`]+)` \\|")

// checkReached proves that for every rung, guard and level there is a test that reaches it.
func checkReached(t *tree) {
	if _, exists := t.texts[operatingFile]; !exists {
		return // a tree without operators
	}
	_, section, _ := strings.Cut(t.texts[lawsFile], reachedTitle)
	section, _, _ = strings.Cut(section, "\n## ")
	var reached []string
	for line := range strings.Lines(section) {
		if m := reachedRow.FindStringSubmatch(line); m != nil && (namedOne.MatchString(line) || strings.Contains(line, nobodyWarned)) {
			reached = append(reached, m[1])
		}
	}
	for _, w := range t.warnings("Rung", "Guard") {
		if !slices.Contains(reached, w) {
			t.report(lawsFile, 0, "docs", "no test is named that reaches %q", w)
		}
	}
}

// eachConst calls f with type, name and value of the constants of some packages that are
// texts.
func (t *tree) eachConst(dirs []string, f func(kind, name, value string)) {
	for _, s := range t.sources {
		if s.test || !slices.Contains(dirs, s.dir) {
			continue
		}
		for _, decl := range s.ast.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.CONST {
				constsOf(d, f)
			}
		}
	}
}

func constsOf(d *ast.GenDecl, f func(kind, name, value string)) {
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		kind := ""
		if id, ok := v.Type.(*ast.Ident); ok {
			kind = id.Name
		}
		for i, name := range v.Names {
			if i >= len(v.Values) {
				break
			}
			if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if value, err := strconv.Unquote(lit.Value); err == nil {
					f(kind, name.Name, value)
				}
			}
		}
	}
}

// optionNames are the exported fields and constants of the packages with options.
func (t *tree) optionNames() (names []string) {
	for _, s := range t.sources {
		if s.test || !slices.Contains(optionDirs, s.dir) {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				names = appendNames(names, n.Names)
			case *ast.ValueSpec:
				names = appendNames(names, n.Names)
			}
			return true
		})
	}
	return names
}

func appendNames(list []string, more []*ast.Ident) []string {
	for _, id := range more {
		list = append(list, id.Name)
	}
	return list
}

// flagNames are all texts of the command that could be names of flags.
func (t *tree) flagNames() (names []string) {
	for _, s := range t.sources {
		if s.test || s.dir != "cmd/livebackup" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if value, err := strconv.Unquote(lit.Value); err == nil {
					names = append(names, value)
				}
			}
			return true
		})
	}
	return names
}
