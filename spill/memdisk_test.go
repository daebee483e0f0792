package spill

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// memDisk is a file system in memory with room for so many bytes, whose
// operations on temporary files can be made to fail, and whose pages a test can
// see and change (which simfs does not offer for files without a name).
// Directories are names: every one exists, and all share the room. What spill
// does not use panics.
type memDisk struct {
	vfs.FS
	mu    sync.Mutex
	room  int64 // bytes that may still be taken
	ops   int
	open  int
	fault func(op string, n int, dir string) error // nil, or asked before each operation
	files []*memFile
}

const memPage = 4096

// errShort makes a read or write do half of its work and then fail with EIO.
var errShort = fmt.Errorf("half done: %w", errIO)

func newMemDisk(room int64) *memDisk { return &memDisk{room: room} }

type memDirInfo struct{ name string }

func (i memDirInfo) Name() string     { return i.name }
func (memDirInfo) Size() int64        { return 0 }
func (memDirInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o700 }
func (memDirInfo) ModTime() time.Time { return time.Time{} }
func (memDirInfo) IsDir() bool        { return true }
func (memDirInfo) Sys() any           { return nil }

func (m *memDisk) Lstat(name string) (fs.FileInfo, error) { return memDirInfo{name}, nil }

func (m *memDisk) FreeBytes(dir string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.room, m.step("free", dir)
}

func (m *memDisk) OpenTemp(dir string) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step("open", dir); err != nil {
		return nil, err
	}
	f := &memFile{disk: m, dir: dir, pages: map[int64][]byte{}}
	m.files = append(m.files, f)
	m.open++
	return f, nil
}

// step counts an operation and says how it fails. Needs mu.
func (m *memDisk) step(op, dir string) error {
	n := m.ops
	m.ops++
	if m.fault == nil {
		return nil
	}
	return m.fault(op, n, dir)
}

// failAt makes operation n, and no other, fail.
func (m *memDisk) failAt(n int, err error) {
	m.setFault(func(_ string, at int, _ string) error {
		if at == n {
			return err
		}
		return nil
	})
}

// setFault is for when a trimmer may be at work.
func (m *memDisk) setFault(fault func(op string, n int, dir string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

// memFile keeps the pages that have space; a page without reads as zeros.
type memFile struct {
	vfs.File
	disk  *memDisk
	dir   string
	pages map[int64][]byte
	size  int64
}

func (f *memFile) Name() string { return f.dir + "/(temporary)" }

func (f *memFile) begin(op string) error { return f.disk.step(op, f.dir) }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.begin("read")
	switch {
	case err == errShort:
		return f.copyOut(p[:len(p)/2], off), err
	case err != nil:
		return 0, err
	case off+int64(len(p)) > f.size:
		return f.copyOut(p[:max(0, f.size-off)], off), io.EOF
	}
	return f.copyOut(p, off), nil
}

func (f *memFile) copyOut(p []byte, off int64) (n int) {
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(len(p), n+memPage-int(at%memPage))]
		if page := f.pages[at/memPage]; page != nil {
			copy(part, page[at%memPage:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return n
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.begin("write")
	switch {
	case err == errShort:
		p = p[:len(p)/2]
	case err != nil:
		return 0, err
	}
	if e := f.take(off, int64(len(p))); e != nil {
		return 0, e
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		n += copy(f.pages[at/memPage][at%memPage:], p[n:])
	}
	f.size = max(f.size, off+int64(len(p)))
	return len(p), err
}

// take gives the pages of a range space, as many as there is room for.
func (f *memFile) take(off, n int64) error {
	for p := off / memPage; p*memPage < off+n; p++ {
		if f.pages[p] != nil {
			continue
		}
		if f.disk.room < memPage {
			return errNoSpace
		}
		f.disk.room -= memPage
		f.pages[p] = make([]byte, memPage)
	}
	return nil
}

func (f *memFile) drop(from, to int64) {
	for p := range f.pages {
		if p*memPage >= from && (p+1)*memPage <= to {
			delete(f.pages, p)
			f.disk.room += memPage
		}
	}
}

func (f *memFile) Allocate(off, n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin("allocate"); err != nil {
		return err
	}
	if err := f.take(off, n); err != nil {
		return err
	}
	f.size = max(f.size, off+n)
	return nil
}

func (f *memFile) PunchHole(off, n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin("punch"); err != nil {
		return err
	}
	f.drop(off, off+n)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin("truncate"); err != nil {
		return err
	}
	f.drop(size, 1<<62)
	f.size = size
	return nil
}

func (f *memFile) DropCache(off, n int64) {}

func (f *memFile) NoReadAhead() {}

func (f *memFile) WillRead(off, n int64) {}
func (f *memFile) WriteOut(off, n int64) {}

func (f *memFile) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.begin("close"); err != nil {
		return err
	}
	f.drop(0, 1<<62)
	f.disk.open--
	return nil
}

// taken is the space that a file has on the disk.
func (f *memFile) taken() int64 {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.pages)) * memPage
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	if o.BlockSize == 0 {
		o.BlockSize = 4096
	}
	if o.Seed == 0 {
		o.Seed = 7
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
