package tidy

import (
	"go/ast"
	"strings"
)

const (
	functionLinesMax = 70
	fileLinesMax     = 700
)

func checkLengths(t *tree) {
	for _, s := range t.sources {
		if n := strings.Count(t.texts[s.path], "\n"); n > fileLinesMax {
			t.report(s.path, 0, "length", "%d lines, at most %d", n, fileLinesMax)
		}
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.line(f.End()) - t.line(f.Pos()) + 1; n > functionLinesMax {
				t.report(s.path, t.line(f.Pos()), "length", "%s has %d lines, at most %d", f.Name.Name, n, functionLinesMax)
			}
		}
	}
}
