package tidy

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// checkDocs looks for comments: of packages, and of what they export.
func checkDocs(t *tree) {
	documented := make(map[string]bool)
	files := t.filesOfPackages()
	for _, s := range t.sources {
		if s.test {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.ast.Doc != nil
		if s.ast.Doc != nil && path.Base(s.path) != "doc.go" && files[s.dir] > 1 {
			t.report(s.path, t.line(s.ast.Package), "doc", "the package's comment belongs in doc.go")
		}
		checkDetached(t, s)
		if !s.isCommand() {
			checkExports(t, s)
		}
	}
	for dir, has := range documented {
		if !has {
			t.report(dir, 0, "doc", "no comment says what the package is for")
		}
	}
}

// filesOfPackages counts files that are no tests.
func (t *tree) filesOfPackages() map[string]int {
	files := make(map[string]int)
	for _, s := range t.sources {
		if !s.test {
			files[s.dir]++
		}
	}
	return files
}

// checkDetached finds a comment that begins like a package's and is none, since
// a blank line follows.
func checkDetached(t *tree, s *source) {
	for _, c := range s.ast.Comments {
		text := c.Text()
		like := strings.HasPrefix(text, "Package ") || strings.HasPrefix(text, "Command ")
		if like && c != s.ast.Doc && c.End() < s.ast.Package {
			t.report(s.path, t.line(c.Pos()), "doc", "a blank line cuts this comment off the package")
		}
	}
}

func checkExports(t *tree, s *source) {
	for _, decl := range s.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && isExportedFunc(d) {
				t.report(s.path, t.line(d.Pos()), "doc", "%s has no comment", d.Name.Name)
			}
		case *ast.GenDecl:
			if isEnumeration(d) {
				continue
			}
			for _, spec := range d.Specs {
				checkSpec(t, s, d, spec)
			}
		}
	}
}

// selfExplanatory are methods that the standard library has explained.
var selfExplanatory = []string{"String", "Error", "Unwrap", "Is", "Timeout", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON"}

// isEnumeration reports whether d is the values of an exported type: the type's
// comment is theirs.
func isEnumeration(d *ast.GenDecl) bool {
	if d.Tok != token.CONST || len(d.Specs) < 2 {
		return false
	}
	first, ok := d.Specs[0].(*ast.ValueSpec)
	if !ok {
		return false
	}
	name, ok := first.Type.(*ast.Ident)
	return ok && name.IsExported()
}

func isExportedFunc(d *ast.FuncDecl) bool {
	if !d.Name.IsExported() {
		return false
	}
	if d.Recv == nil {
		return true
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && name.IsExported() && !slices.Contains(selfExplanatory, d.Name.Name)
}

// checkSpec takes a comment on the group, above the name or behind it.
func checkSpec(t *tree, s *source, d *ast.GenDecl, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil {
			t.report(s.path, t.line(spec.Pos()), "doc", "%s has no comment", spec.Name.Name)
		}
		if i, ok := spec.Type.(*ast.InterfaceType); ok && spec.Name.IsExported() {
			checkMethods(t, s, spec.Name.Name, i)
		}
	case *ast.ValueSpec:
		if spec.Doc != nil || spec.Comment != nil || d.Doc != nil || d.Tok == token.IMPORT {
			return
		}
		for _, name := range spec.Names {
			if name.IsExported() {
				t.report(s.path, t.line(name.Pos()), "doc", "%s has no comment", name.Name)
			}
		}
	}
}

// wellKnown are methods of interfaces that mean what they mean in io, io/fs and os.
var wellKnown = []string{"Close", "Name", "Size", "Truncate", "Remove", "ReadDir", "Lstat"}

// checkMethods wants a comment on each method of an interface that has several;
// the comment of an interface with one is that of its method.
func checkMethods(t *tree, s *source, typeName string, i *ast.InterfaceType) {
	if len(i.Methods.List) == 1 {
		return
	}
	for _, m := range i.Methods.List {
		if len(m.Names) != 1 || m.Doc != nil || m.Comment != nil {
			continue
		}
		if name := m.Names[0].Name; !slices.Contains(selfExplanatory, name) && !slices.Contains(wellKnown, name) {
			t.report(s.path, t.line(m.Pos()), "doc", "%s.%s has no comment", typeName, name)
		}
	}
}
