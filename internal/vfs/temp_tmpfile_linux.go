package vfs

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openTemp makes a file that never had a name (O_TMPFILE) and, by O_EXCL,
// never gets one.
func openTemp(dir string) (*os.File, error) {
	var fd int
	err := retryEINTR(func() (err error) {
		const flags = unix.O_TMPFILE | unix.O_EXCL | unix.O_RDWR | unix.O_CLOEXEC
		fd, err = unix.Open(dir, flags, 0o600)
		return err
	})
	switch err {
	case nil:
		f := os.NewFile(uintptr(fd), filepath.Join(dir, "(temporary)"))
		if err := f.Chmod(0o600); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	case unix.EOPNOTSUPP, unix.EISDIR: // the file system, or an old kernel
		return openTempUnlinked(dir)
	}
	return nil, &fs.PathError{Op: "open temporary file", Path: dir, Err: err}
}
