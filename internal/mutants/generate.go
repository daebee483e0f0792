package mutants

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Part is a part of the product whose every statement is worth a bug, and the packages
// whose tests should find it.
type Part struct {
	Name     string
	Files    []string // from the root of the module
	Packages []string
}

// Parts are what [Generate] is for: log, checkpoint, recovery, snapshots, backup.
func Parts() []Part {
	return []Part{
		{"log", []string{"wal/append.go", "wal/format.go", "wal/sync.go", "wal/reader.go", "wal/release.go", "wal/segment.go", "wal/spare.go", "wal/cursor.go"}, []string{"wal", "mvcc", "internal/prove"}},
		{"recovery", []string{"wal/recover.go", "mvcc/recovery.go", "mvcc/redo.go", "mvcc/encode.go", "mvcc/moves.go"}, []string{"wal", "mvcc", "internal/prove"}},
		{"checkpoint", []string{"mvcc/cleaner.go", "mvcc/checkpoint.go", "mvcc/doublewrite.go", "mvcc/changemap.go"}, []string{"mvcc", "livebackup", "internal/prove"}},
		{"snapshot", []string{"snapshot/set.go", "snapshot/point.go", "snapshot/tally.go", "snapshot/original.go", "snapshot/backup.go", "snapshot/victim.go"}, []string{"snapshot", "mvcc", "livebackup", "internal/prove"}},
		{"backup", []string{"mvcc/backup.go", "mvcc/increment.go", "livebackup/run.go", "livebackup/local.go", "livebackup/prune.go", "livebackup/retention.go"}, []string{"livebackup", "mvcc", "internal/prove"}},
	}
}

// Made is a bug that the tool made. It can be planted like any other, or woven into one
// program with others: see [Weave].
type Made struct {
	Mutant
	Part string

	kind     kind
	from, to int // in the file: the statement or expression that is changed
	op       token.Token
	opAt     int // in the file
}

// kind is what a bug does to its place.
type kind int

const (
	negated kind = iota
	swapped      // an operator of logic or order
	summed       // + and -
	leftOut
)

// Generate makes a bug of every place of a part where a small edit parses and may
// matter: a condition is negated, a comparison goes one too far, && and || or + and -
// trade places, a statement is left out. They come in an order drawn by the seed.
//
// What only speaks (text of errors, the log that people read, status) is left alone.
func Generate(root string, p Part, seed uint64) (list []Made, err error) {
	for _, file := range p.Files {
		of, err := generateFile(root, file, p)
		if err != nil {
			return nil, err
		}
		list = append(list, of...)
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, nil
}

// generator makes the bugs of one file.
type generator struct {
	file string
	part Part
	text string
	fset *token.FileSet
	list []Made

	of       string // the function
	from, to int    // of it in text
}

func generateFile(root, file string, p Part) ([]Made, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		return nil, fmt.Errorf("make bugs of %s: %w", file, err)
	}
	g := &generator{file: file, part: p, text: string(text), fset: token.NewFileSet()}
	parsed, err := parser.ParseFile(g.fset, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("make bugs of %s: %w", file, err)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil || onlySpeaks(f.Name.Name) {
			continue
		}
		g.of, g.from, g.to = f.Name.Name, g.offset(f.Pos()), g.offset(f.End())
		ast.Inspect(f.Body, g.visit)
	}
	return g.list, nil
}

// onlySpeaks names functions that decide nothing.
func onlySpeaks(name string) bool {
	switch name {
	case "String", "Error", "Unwrap", "Stats", "Status", "stats", "status", "List", "Counters", "Cost":
		return true
	}
	return false
}

func (g *generator) offset(p token.Pos) int { return g.fset.Position(p).Offset }

func (g *generator) source(n ast.Node) string { return g.text[g.offset(n.Pos()):g.offset(n.End())] }

// add notes that the text of n becomes another one, if that parses.
func (g *generator) add(n ast.Node, k kind, what, by string) *Made {
	from, to := g.offset(n.Pos()), g.offset(n.End())
	m := Made{kind: k, from: from, to: to, Part: g.part.Name, Mutant: Mutant{
		Name:   fmt.Sprintf("%s:%d %s: %s", g.file, g.fset.Position(n.Pos()).Line, g.of, what),
		Breaks: "unknown", File: g.file, Packages: g.part.Packages,
		Old: g.text[g.from:g.to],
		New: g.text[g.from:from] + by + g.text[to:g.to],
	}}
	if _, err := parser.ParseFile(token.NewFileSet(), g.file, "package p\n"+m.New, parser.SkipObjectResolution); err != nil {
		return &Made{} // a statement where only some may stand
	}
	g.list = append(g.list, m)
	return &g.list[len(g.list)-1]
}

// swaps are operators that become others.
var swaps = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LAND: token.LOR, token.LOR: token.LAND, token.ADD: token.SUB, token.SUB: token.ADD,
}

func (g *generator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		if !isSwapped(n.Cond) { // that is the same bug
			g.add(n.Cond, negated, "negated: "+brief(g.source(n.Cond)), "!("+g.source(n.Cond)+")")
		}
	case *ast.BinaryExpr:
		if to, ok := swaps[n.Op]; ok && !isText(n.X) && !isText(n.Y) {
			g.swap(n, to)
		}
	case *ast.ExprStmt:
		if call, ok := n.X.(*ast.CallExpr); ok && !isNoise(g.source(call.Fun)) {
			g.leaveOut(n)
		}
	case *ast.IncDecStmt:
		g.leaveOut(n)
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			g.leaveOut(n)
		}
	case *ast.CallExpr:
		return !isNoise(g.source(n.Fun))
	}
	return true
}

// swap puts another operator. What stands on its sides stays together: in a || b || c the
// second one is that of (a || b) && c, not of a || b && c.
func (g *generator) swap(n *ast.BinaryExpr, to token.Token) {
	at := g.offset(n.OpPos)
	k := swapped
	if n.Op == token.ADD || n.Op == token.SUB {
		k = summed
	}
	by := fmt.Sprintf("((%s)%s(%s))", g.text[g.offset(n.Pos()):at], to, g.text[at+len(n.Op.String()):g.offset(n.End())])
	m := g.add(n, k, fmt.Sprintf("%s for %s in: %s", to, n.Op, brief(g.source(n))), by)
	m.op, m.opAt = n.Op, at
}

// leaveOut takes a statement away, and keeps what it names used.
func (g *generator) leaveOut(n ast.Stmt) {
	g.add(n, leftOut, "left out: "+brief(g.source(n)), "if false {\n"+g.source(n)+"\n}")
}

// isNoise reports whether a call only tells people something, or hands a lock back,
// without which every test hangs.
func isNoise(fun string) bool {
	for _, text := range []string{"Logger.", "fmt.", "errors.", ".Lock", ".Unlock", "RLock", "RUnlock", "panic", ".stats", "runtime."} {
		if strings.Contains(fun, text) {
			return true
		}
	}
	return false
}

func isSwapped(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	return ok && (b.Op == token.EQL || b.Op == token.NEQ)
}

func isText(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

func brief(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 70 {
		return string(r[:67]) + "..."
	}
	return text
}
