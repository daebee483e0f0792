package vfs

import (
	"io/fs"
	"os"
)

// OS is the file system of the operating system. Each mechanism it uses, and
// what it is worth where the system has none, stands in a file of its own.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	// Truncation waits until the file is known to be one that we may touch.
	f, err := openExact(name, flag&^os.O_TRUNC, perm)
	if err != nil {
		return nil, err
	}
	file, err := adopt(f, name)
	if err != nil {
		return nil, err
	}
	if flag&os.O_TRUNC != 0 {
		if err := file.Truncate(0); err != nil {
			file.Close()
			return nil, err
		}
	}
	return file, nil
}

func (osFS) OpenTemp(dir string) (File, error) {
	f, err := openTemp(dir)
	if err != nil {
		return nil, err
	}
	return adopt(f, f.Name())
}

func (osFS) Mkdir(name string, perm fs.FileMode) error {
	if err := os.Mkdir(name, perm); err != nil {
		return err
	}
	if err := chmodDir(name, perm); err != nil {
		os.Remove(name) // it is ours and empty; the first error is the one to tell
		return err
	}
	return nil
}

func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) Rename(oldname, newname string) error       { return rename(oldname, newname) }
func (osFS) Link(oldname, newname string) error         { return os.Link(oldname, newname) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(name) }
func (osFS) SyncDir(name string) error                  { return syncDir(name) }
func (osFS) FreeBytes(dir string) (int64, error)        { return freeBytes(dir) }
