package main

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// countingFS counts the bytes that are written through it. The kernel's own count
// (write_bytes) will not do: where the page cache has large folios it charges a
// whole one, up to megabytes, for each write of a few bytes into it.
type countingFS struct {
	vfs.FS
	written atomic.Int64
}

func (c *countingFS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	return &countingFile{f, c}, err
}

func (c *countingFS) OpenTemp(dir string) (vfs.File, error) {
	f, err := c.FS.OpenTemp(dir)
	return &countingFile{f, c}, err
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

// WriteAt leaves the prewriting of the log out: segments are used again, so it
// is no cost per commit.
func (f *countingFile) WriteAt(b []byte, off int64) (int, error) {
	prewriting := filepath.Ext(f.Name()) == ".wal" && len(bytes.TrimLeft(b, "\x00")) == 0
	if !prewriting {
		f.fs.written.Add(int64(len(b)))
	}
	return f.File.WriteAt(b, off)
}
