package tidy

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const module = "github.com/spillwaydb/spillway"

// tree is what the rules look at: the files of a repository.
type tree struct {
	fset     *token.FileSet
	sources  []*source
	texts    map[string]string // every text file, Go or not, by path
	findings []Finding
}

// source is one Go file.
type source struct {
	path string
	dir  string // of the package, "." for the root
	test bool
	ast  *ast.File
}

// textBytesMax is the size of the largest file that is looked at; what is larger
// was not written by hand.
const textBytesMax = 1 << 20

func readTree(root string) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: make(map[string]string)}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return passing(err)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.Name() == ".git" { // of a linked worktree it is a file, which says where the repository is
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		return passing(t.add(name, filepath.ToSlash(rel), entry))
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	return t, nil
}

// passing drops what is said about files of others that come and go while the
// tree is read.
func passing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *tree) add(name, rel string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() || info.Size() > textBytesMax {
		return err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return nil // no text
	}
	t.texts[rel] = string(data)
	if !strings.HasSuffix(rel, ".go") || strings.Contains(rel, "testdata/") {
		return nil
	}
	file, err := parser.ParseFile(t.fset, rel, data, parser.ParseComments)
	if err != nil {
		return err
	}
	t.sources = append(t.sources, &source{
		path: rel,
		dir:  path.Dir(rel),
		test: strings.HasSuffix(rel, "_test.go"),
		ast:  file,
	})
	return nil
}

func (t *tree) line(pos token.Pos) int { return t.fset.Position(pos).Line }

func (t *tree) report(path string, line int, rule, format string, args ...any) {
	t.findings = append(t.findings, Finding{path, line, rule, fmt.Sprintf(format, args...)})
}

// imports reports whether the file imports the package of that path, under
// its own name.
func (s *source) imports(importPath string) bool {
	for _, spec := range s.ast.Imports {
		if spec.Path.Value == `"`+importPath+`"` && spec.Name == nil {
			return true
		}
	}
	return false
}

// isCommand reports whether the file is part of a program, whose exported names
// nobody can import.
func (s *source) isCommand() bool { return s.ast.Name.Name == "main" }
