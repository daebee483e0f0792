package tidy

import (
	"go/ast"
	"strings"
)

const (
	readmeFile  = "README.md"
	exampleFile = "example_test.go"
	exampleFunc = "app" // the first of the examples that the README shows
)

// checkExample compares the README's examples with those that are tested.
func checkExample(t *tree) {
	shown, exists := t.texts[readmeFile]
	if !exists {
		t.report(readmeFile, 0, "docs", "it is missing")
		return
	}
	tested := t.functionText(exampleFile, exampleFunc)
	if tested == "" || !strings.Contains(shown, "\n```go\n"+tested+"\n```\n") {
		t.report(readmeFile, 0, "docs", "its example is not func %s of %s", exampleFunc, exampleFile)
	}
	for _, block := range strings.Split(shown, "\n```go\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```\n")
		if !strings.Contains(t.texts[exampleFile], "\n"+block+"\n") {
			t.report(readmeFile, 0, "docs", "one of its examples is not in %s: %.40q", exampleFile, block)
		}
	}
}

// functionText is a function as it stands in its file, or "".
func (t *tree) functionText(file, name string) string {
	for _, s := range t.sources {
		if s.path != file {
			continue
		}
		for _, decl := range s.ast.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == name {
				begin := t.fset.Position(f.Pos()).Offset
				end := t.fset.Position(f.End()).Offset
				return t.texts[file][begin:end]
			}
		}
	}
	return ""
}
