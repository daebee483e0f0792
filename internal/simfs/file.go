package simfs

import (
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// file is an open file.
type file struct {
	fs       *FS
	node     *node
	name     string
	writable bool
	closed   bool
}

// OpenFile implements vfs.FS.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	op := OpOpen
	if flag&os.O_CREATE != 0 {
		op = OpCreate
	}
	var opened *file
	err := f.run(Event{Op: op, File: name}, func(*Event) error {
		n, err := f.find(name, flag, perm)
		if err == nil {
			opened = f.openNode(n, name, flag&(os.O_RDWR|os.O_WRONLY) != 0)
		}
		return err
	})
	if err == nil && flag&os.O_TRUNC != 0 {
		if err := opened.Truncate(0); err != nil {
			opened.Close()
			return nil, err
		}
	}
	return asFile(opened, err)
}

// find finds the file to open, or makes it.
func (f *FS) find(name string, flag int, perm fs.FileMode) (*node, error) {
	d, base, err := f.parent(name)
	if err != nil {
		return nil, err
	}
	n := d.live[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case n == nil:
		n = f.newNode(perm.Perm())
		n.links = 1
		d.change(entry{base, n})
		return n, nil
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, fs.ErrExist
	case n.isDir():
		return nil, vfs.ErrNotRegular
	}
	return n, nil
}

func (f *FS) openNode(n *node, name string, writable bool) *file {
	opened := &file{fs: f, node: n, name: name, writable: writable}
	n.opens++
	f.open[opened] = struct{}{}
	return opened
}

// asFile keeps a nil *file from becoming a vfs.File that is not nil. A fault
// that strikes late leaves nothing open: the caller could not close it.
func asFile(opened *file, err error) (vfs.File, error) {
	switch {
	case err == nil:
		return opened, nil
	case opened != nil:
		opened.abandon()
	}
	return nil, err
}

// abandon closes the file, if it is open, and tells nobody.
func (f *file) abandon() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return
	}
	f.closed = true
	delete(f.fs.open, f)
	if f.node.locked == f {
		f.node.locked = nil
	}
	if f.node.opens--; f.node.opens == 0 {
		f.node.untold = nil
	}
	f.fs.forget(f.node)
}

// run performs an operation on an open file.
func (f *file) run(ev Event, do func(*Event) error) error {
	ev.File, ev.handle = f.name, f
	return f.fs.run(ev, func(ev *Event) error {
		if f.closed {
			return fs.ErrClosed
		}
		if !f.writable && ev.Op&(OpWrite|OpTruncate|OpAllocate|OpPunch) != 0 {
			return syscall.EBADF
		}
		if ev.Off < 0 || ev.Len < 0 || ev.Off > math.MaxInt64-chunkBytes-ev.Len {
			return fs.ErrInvalid
		}
		return do(ev)
	})
}

// Name implements vfs.File.
func (f *file) Name() string { return f.name }

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.run(Event{Op: OpRead, Off: off, Len: int64(len(p))}, func(ev *Event) error {
		left := max(f.node.live.size-off, 0)
		n = int(min(ev.Len, left))
		f.node.live.read(p[:n], off)
		if int64(n) < ev.Len {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// WriteAt implements vfs.File. On a full disk it writes what there is room for.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.run(Event{Op: OpWrite, Off: off, Len: int64(len(p))}, func(ev *Event) error {
		n = int(f.fits(off, ev.Len))
		ev.Data = p[:n]
		f.account(func() { f.node.write(p[:n], off) })
		if int64(n) < ev.Len {
			return syscall.ENOSPC
		}
		return nil
	})
	return n, err
}

// fits returns how many of n bytes from off on there is room for.
func (f *file) fits(off, n int64) int64 {
	free := f.fs.freePages()
	if f.node.live.missing(off, n) <= free {
		return n
	}
	end := off
	for end < off+n {
		free -= f.node.live.missing(end, 1)
		if free < 0 {
			break
		}
		end = min((end/pageBytes+1)*pageBytes, off+n)
	}
	return end - off
}

// account keeps the sum of used space right over a change of the file.
func (f *file) account(change func()) {
	before := f.node.live.pages
	change()
	f.fs.used += f.node.live.pages - before
}

// Size implements vfs.File.
func (f *file) Size() (size int64, err error) {
	err = f.run(Event{Op: OpSize}, func(*Event) error {
		size = f.node.live.size
		return nil
	})
	return size, err
}

// Truncate implements vfs.File.
func (f *file) Truncate(size int64) error {
	return f.run(Event{Op: OpTruncate, Len: size}, func(*Event) error {
		f.account(func() { f.node.change(change{kind: changeResize, size: size}) })
		return nil
	})
}

// Allocate implements vfs.File.
func (f *file) Allocate(off, n int64) error {
	return f.run(Event{Op: OpAllocate, Off: off, Len: n}, func(*Event) error {
		free := f.fs.freePages()
		if n == 0 {
			return nil
		}
		// The first test spares the second a walk over a range without end.
		if n/pageBytes-f.node.live.pages > free || f.node.live.missing(off, n) > free {
			return syscall.ENOSPC
		}
		c := change{kind: changeAllocate, off: off, n: n, size: sizeSame}
		if off+n > f.node.live.size {
			c.size = off + n
		}
		f.account(func() { f.node.change(c) })
		return nil
	})
}

// PunchHole implements vfs.File.
func (f *file) PunchHole(off, n int64) error {
	return f.run(Event{Op: OpPunch, Off: off, Len: n}, func(*Event) error {
		if n > 0 {
			f.account(func() { f.node.punch(off, off+n) })
		}
		return nil
	})
}

// Sync implements vfs.File.
func (f *file) Sync() error {
	return f.run(Event{Op: OpSync}, func(*Event) error {
		f.node.sync()
		err := f.node.tell()
		if err != nil {
			f.fs.recount()
		}
		return err
	})
}

// Lock implements vfs.File.
func (f *file) Lock() error {
	return f.run(Event{Op: OpLock}, func(*Event) error {
		if f.node.locked != nil {
			return vfs.ErrLocked
		}
		f.node.locked = f
		return nil
	})
}

// DropCache implements vfs.File: it only shows up in a trace.
func (f *file) DropCache(off, n int64) {
	_ = f.run(Event{Op: OpDropCache, Off: off, Len: n}, func(*Event) error { return nil })
}

// NoReadAhead implements vfs.File: there is nothing to read ahead of.
func (f *file) NoReadAhead() {}

// WillRead implements vfs.File: nothing takes time.
func (f *file) WillRead(int64, int64) {}

// WriteOut implements vfs.File: what is not synced may be on the disk or not anyway.
func (f *file) WriteOut(int64, int64) {}

// Close implements vfs.File. The file is closed whatever it returns.
func (f *file) Close() error {
	err := f.run(Event{Op: OpClose}, func(*Event) error { return nil })
	f.abandon()
	return err
}
