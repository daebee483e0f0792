package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// file is one record to load.
type file struct {
	path string
	read func() ([]byte, error)
	size int64
}

// tree is what to load.
type tree struct {
	name      string
	generated bool
	files     []file
	bytes     int64
}

// findTree lists the files of a directory: the one named, or the sources of the
// Go toolchain, or generated ones. Files of more than fileBytesMax are left out.
func findTree(ctx context.Context, dir string, bytesMax, fileBytesMax int64) (*tree, error) {
	if dir != "" {
		return listTree(ctx, dir, dir, bytesMax, fileBytesMax)
	}
	if root := goRoot(ctx); root != "" {
		t, err := listTree(ctx, filepath.Join(root, "src"), "the Go source tree ("+runtime.Version()+")", bytesMax, fileBytesMax)
		if err == nil && t.bytes >= loadBytesLeast || ctx.Err() != nil {
			return t, err
		}
	}
	return generateTree(bytesMax), nil
}

// goRoot is where the Go toolchain is, or "".
func goRoot(ctx context.Context) string {
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return os.Getenv("GOROOT")
}

func listTree(ctx context.Context, dir, name string, bytesMax, fileBytesMax int64) (*tree, error) {
	t := &tree{name: name}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if err := t.addFile(dir, path, e, fileBytesMax); err != nil {
			return err
		}
		if bytesMax > 0 && t.bytes >= bytesMax {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && t.bytes < loadBytesLeast {
		err = fmt.Errorf("%d bytes in %d files are too little", t.bytes, len(t.files))
	}
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", dir, err)
	}
	return t, nil
}

// addFile adds a file of the directory, unless it is too large or gone meanwhile.
func (t *tree) addFile(dir, path string, e fs.DirEntry, fileBytesMax int64) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > fileBytesMax {
		return nil
	}
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(dir, path)
	if err == nil {
		t.add(file{filepath.ToSlash(rel), func() ([]byte, error) { return os.ReadFile(path) }, info.Size()})
	}
	return err
}

func (t *tree) add(f file) {
	t.files = append(t.files, f)
	t.bytes += f.size
}

// generatedBytes is how much is generated where no tree is found.
const generatedBytes = 96 << 20

// generateTree makes files of words, the same ones on every machine.
func generateTree(bytesMax int64) *tree {
	t := &tree{name: "generated files (no Go source tree was found)", generated: true}
	if bytesMax == 0 {
		bytesMax = generatedBytes
	}
	for i := 0; t.bytes < bytesMax; i++ {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		size := 500 + int(rng.ExpFloat64()*10_000)
		t.add(file{fmt.Sprintf("generated/%02x/%06d.txt", i%256, i), func() ([]byte, error) { return words(rng, size), nil }, int64(size)})
	}
	return t
}

// words is text of a size that compresses about as well as sources do.
func words(rng *rand.Rand, size int) []byte {
	out := make([]byte, 0, size+16)
	for len(out) < size {
		word := rng.Uint64() >> rng.IntN(60) // short words are frequent
		out = fmt.Appendf(out, "%x ", word)
	}
	return out[:size]
}
