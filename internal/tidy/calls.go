package tidy

import (
	"go/ast"
	"slices"
	"strings"
)

// engine is the packages that touch files only by package vfs, so that tests
// can fail every operation and cut the power at it.
var engine = []string{"block", "blockcache", "kv", "livebackup", "mvcc", "snapshot", "spill", "wal"}

// fileCalls are the functions of package os that touch a file.
var fileCalls = []string{
	"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "DirFS", "Lchown", "Link", "Lstat", "Mkdir", "MkdirAll",
	"MkdirTemp", "NewFile", "Open", "OpenFile", "OpenInRoot", "OpenRoot", "ReadDir", "ReadFile", "Readlink", "Remove",
	"RemoveAll", "Rename", "Stat", "Symlink", "Truncate", "WriteFile",
}

func checkCalls(t *tree) {
	for _, s := range t.sources {
		for _, decl := range s.ast.Decls {
			checkCallsIn(t, s, decl)
		}
	}
}

func checkCallsIn(t *tree, s *source, decl ast.Decl) {
	ast.Inspect(decl, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if what := forbidden(t, s, decl, call); what != "" {
			t.report(s.path, t.line(call.Pos()), "call", "%s", what)
		}
		return true
	})
}

// forbidden says what is wrong with a call, or nothing.
func forbidden(t *tree, s *source, within ast.Decl, call *ast.CallExpr) string {
	receiver, name := callee(call)
	switch {
	case receiver == "time" && name == "Sleep" && s.imports("time") && !sleeps(s):
		return "time.Sleep makes code slow or wrong: wait for what must happen, in tests by testing/synctest"
	case receiver == "" && name == "panic" && !s.test && !saysWhy(t, s, within, call):
		return "panic without a comment behind it that says whose mistake it is"
	case receiver == "os" && !s.test && slices.Contains(engine, s.dir) && slices.Contains(fileCalls, name):
		return "os." + name + " in the engine: files are reached through package vfs"
	case receiver == "rand" && name == "Uint64" && s.test:
		return "a test takes its seed from package chance, or nobody can repeat it"
	case receiver == "t" && (name == "SkipNow" || name == "Skip" && len(call.Args) == 0):
		return "a skipped test says why"
	}
	return ""
}

// sleeps reports whether a file may sleep: time is that of a bubble there, or it
// measures how engines do in real time.
func sleeps(s *source) bool {
	return s.imports("testing/synctest") || strings.HasPrefix(s.dir, "bench/")
}

func callee(call *ast.CallExpr) (receiver, name string) {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return "", f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name, f.Sel.Name
		}
	}
	return "?", ""
}

// saysWhy reports whether a panic has a reason behind it on its line, or belongs
// to the checks of builds with tag invariants.
func saysWhy(t *tree, s *source, within ast.Decl, call *ast.CallExpr) bool {
	for _, c := range s.ast.Comments {
		if c.Pos() > call.Pos() && t.line(c.Pos()) == t.line(call.Pos()) {
			return true
		}
	}
	f, ok := within.(*ast.FuncDecl)
	if !ok {
		return false
	}
	if f.Doc != nil && strings.Contains(f.Doc.Text(), "invariants") {
		return true
	}
	return mentions(f, "invariants")
}

func mentions(f *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && id.Name == name
		return !found
	})
	return found
}
