package simfs

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// lookup finds a node, or nil; a way that leads through no directory is an
// error.
func (f *FS) lookup(name string) (*node, error) {
	n := f.root
	for part := range strings.SplitSeq(clean(name), "/") {
		if part == "" {
			continue
		}
		if !n.isDir() {
			return nil, syscall.ENOTDIR
		}
		if n = n.dir.live[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

// parent finds the directory that a name is in, and the last part of the name.
func (f *FS) parent(name string) (*directory, string, error) {
	dir, base := path.Split(clean(name))
	if base == "" {
		return nil, "", fs.ErrInvalid
	}
	d, err := f.directory(dir)
	return d, base, err
}

func (f *FS) directory(name string) (*directory, error) {
	n, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, syscall.ENOTDIR
	}
	return n.dir, nil
}

func clean(name string) string { return path.Clean("/" + filepath.ToSlash(name)) }

// Mkdir implements vfs.FS.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	return f.run(Event{Op: OpMkdir, File: name}, func(*Event) error {
		d, base, err := f.parent(name)
		if err != nil {
			return err
		}
		if d.live[base] != nil {
			return fs.ErrExist
		}
		n := f.newNode(fs.ModeDir | perm.Perm())
		n.links = 1
		d.change(entry{base, n})
		return nil
	})
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	return f.run(Event{Op: OpRemove, File: name}, func(*Event) error {
		d, base, err := f.parent(name)
		if err != nil {
			return err
		}
		n := d.live[base]
		if n == nil {
			return fs.ErrNotExist
		}
		if n.isDir() && len(n.dir.live) > 0 {
			return syscall.ENOTEMPTY
		}
		d.change(entry{base, nil})
		f.unlink(n)
		return nil
	})
}

func (f *FS) unlink(n *node) {
	n.links--
	f.forget(n)
}

// Rename implements vfs.FS. A directory can be renamed only in place.
func (f *FS) Rename(oldname, newname string) error {
	return f.run(Event{Op: OpRename, File: oldname, To: newname}, func(*Event) error {
		from, oldbase, err := f.parent(oldname)
		if err != nil {
			return err
		}
		to, newbase, err := f.parent(newname)
		if err != nil {
			return err
		}
		n, replaced := from.live[oldbase], to.live[newbase]
		if err := mayRename(n, replaced, from == to); err != nil || n == replaced {
			return err
		}
		if from == to {
			from.change(entry{oldbase, nil}, entry{newbase, n})
		} else {
			to.change(entry{newbase, n})
			from.change(entry{oldbase, nil})
		}
		if replaced != nil {
			f.unlink(replaced)
		}
		return nil
	})
}

func mayRename(n, replaced *node, inPlace bool) error {
	switch {
	case n == nil:
		return fs.ErrNotExist
	case n.isDir() && !inPlace:
		return errors.ErrUnsupported
	case replaced == nil:
		return nil
	case n.isDir() != replaced.isDir():
		return fs.ErrExist
	case replaced.isDir() && len(replaced.dir.live) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// Link implements vfs.FS.
func (f *FS) Link(oldname, newname string) error {
	return f.run(Event{Op: OpLink, File: oldname, To: newname}, func(*Event) error {
		n, err := f.lookup(oldname)
		if err != nil {
			return err
		}
		d, base, err := f.parent(newname)
		if err != nil {
			return err
		}
		switch {
		case n.isDir():
			return fs.ErrPermission
		case d.live[base] != nil:
			return fs.ErrExist
		}
		d.change(entry{base, n})
		n.links++
		return nil
	})
}

// ReadDir implements vfs.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	err := f.run(Event{Op: OpReadDir, File: name}, func(*Event) error {
		d, err := f.directory(name)
		if err != nil {
			return err
		}
		for base, n := range d.live {
			entries = append(entries, fs.FileInfoToDirEntry(n.info(base)))
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		return nil
	})
	return entries, err
}

// Lstat implements vfs.FS.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := f.run(Event{Op: OpLstat, File: name}, func(*Event) error {
		n, err := f.lookup(name)
		if err == nil {
			info = n.info(path.Base(clean(name)))
		}
		return err
	})
	return info, err
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(name string) error {
	return f.run(Event{Op: OpSyncDir, File: name}, func(*Event) error {
		d, err := f.directory(name)
		if err == nil {
			d.sync()
		}
		return err
	})
}

// FreeBytes implements vfs.FS.
func (f *FS) FreeBytes(dir string) (int64, error) {
	var free int64
	err := f.run(Event{Op: OpFreeBytes, File: dir}, func(*Event) error {
		free = f.freePages() * pageBytes
		_, err := f.directory(dir)
		return err
	})
	return free, err
}

// OpenTemp implements vfs.FS.
func (f *FS) OpenTemp(dir string) (vfs.File, error) {
	name := path.Join(dir, tempName)
	var opened *file
	err := f.run(Event{Op: OpTemp, File: name}, func(*Event) error {
		if _, err := f.directory(dir); err != nil {
			return err
		}
		n := f.newNode(0o600)
		n.temp = true
		opened = f.openNode(n, name, true)
		return nil
	})
	return asFile(opened, err)
}

const tempName = "(temporary)"
