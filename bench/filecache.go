package bench

import (
	"io/fs"
	"os"
	"path/filepath"
)

// DropFileCache makes the files below dir cold: it syncs them and asks the
// kernel to forget their pages, which it does for pages that nobody has mapped.
// Nothing is dropped where the system knows no such advice.
func DropFileCache(dir string) error {
	return eachFile(dir, func(f *os.File) error {
		if err := f.Sync(); err != nil {
			return err
		}
		return dropFilePages(f)
	})
}

// syncFiles makes the files below dir durable.
func syncFiles(dir string) error { return eachFile(dir, (*os.File).Sync) }

// eachFile calls fn with each file below dir, open.
func eachFile(dir string, fn func(*os.File) error) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return fn(f)
	})
}

// DirBytes is the size of all files below dir.
func DirBytes(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
