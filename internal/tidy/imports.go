package tidy

import (
	"slices"
	"strconv"
	"strings"
)

// checkImports holds the table.
func checkImports(t *tree) {
	for _, s := range t.sources {
		r, known := rowOf(s.dir)
		if !known {
			t.report(s.path, 0, "imports", "package %s has no row in the table of layers", s.dir)
			continue
		}
		if s.test {
			continue
		}
		for _, spec := range s.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil || r.allows(p) {
				continue
			}
			t.report(s.path, t.line(spec.Pos()), "imports", "%s may not import %s", s.dir, strings.TrimPrefix(p, module+"/"))
		}
	}
}

func rowOf(dir string) (row, bool) {
	i := slices.IndexFunc(table, func(r row) bool {
		above, all := strings.CutSuffix(r.pkg, "/...")
		return dir == above || all && strings.HasPrefix(dir, above+"/")
	})
	if i < 0 {
		return row{}, false
	}
	return table[i], true
}

func (r row) allows(importPath string) bool {
	if folder, ours := strings.CutPrefix(importPath, module+"/"); ours {
		if r.pkg != "block" && slices.Contains(seams, folder) {
			return true
		}
		return slices.Contains(r.ours, folder) || slices.Contains(r.ours, "*")
	}
	if !strings.Contains(strings.Split(importPath, "/")[0], ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(r.others, func(other string) bool {
		return other == "*" || importPath == other || strings.HasPrefix(importPath, strings.TrimSuffix(other, "/")+"/")
	})
}
