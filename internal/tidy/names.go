package tidy

import "slices"

// emptyNames say nothing of what is in a package.
var emptyNames = []string{"util", "utils", "common", "types", "helper", "helpers", "misc", "base", "shared", "lib", "core", "models", "interfaces"}

func checkNames(t *tree) {
	for _, s := range t.sources {
		if slices.Contains(emptyNames, s.ast.Name.Name) {
			t.report(s.path, t.line(s.ast.Package), "name", "%s is no name for a package", s.ast.Name.Name)
		}
	}
}
