//go:build unix

package vfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openExact opens name without following a link in its last part. os.OpenFile
// adds O_CLOEXEC. O_NONBLOCK means nothing to a regular file; to a pipe it
// means that the open returns, so that the pipe can be refused.
func openExact(name string, flag int, perm fs.FileMode) (*os.File, error) {
	const safe = unix.O_NOFOLLOW | unix.O_NONBLOCK
	for {
		if flag&os.O_EXCL == 0 || flag&os.O_CREATE == 0 {
			f, err := os.OpenFile(name, flag&^os.O_CREATE|safe, 0)
			if flag&os.O_CREATE == 0 || !errors.Is(err, fs.ErrNotExist) {
				return f, explainLink(err)
			}
		}
		f, err := os.OpenFile(name, flag|os.O_EXCL|safe, perm)
		if err == nil {
			return exactMode(f, name, perm)
		}
		if flag&os.O_EXCL != 0 || !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		// Somebody created the file in between: open theirs. A dangling
		// link is both absent and in the way, and must not loop for ever.
		if info, lerr := os.Lstat(name); lerr == nil && !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
		}
	}
}

// exactMode gives a file that was just created the mode that the umask may
// have cut down. It was never wider than asked.
func exactMode(f *os.File, name string, perm fs.FileMode) (*os.File, error) {
	if err := f.Chmod(perm); err != nil {
		f.Close()
		os.Remove(name)
		return nil, err
	}
	return f, nil
}

// explainLink says what the system means by its odd answers to O_NOFOLLOW.
func explainLink(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && (pathErr.Err == unix.ELOOP || pathErr.Err == unix.EMLINK) {
		pathErr.Err = ErrNotRegular
	}
	return err
}

func checkDescriptor(fd uintptr) error {
	if fd <= 2 {
		return ErrStandardDescriptor
	}
	return nil
}

// chmodDir changes the mode of the directory itself, not of what somebody may
// have put in its place.
func chmodDir(name string, perm fs.FileMode) error {
	d, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Chmod(perm)
}

func rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// syncDir reports every error, also from file systems that know no sync of a
// directory: names there would not be safe, and nobody would have been told.
func syncDir(name string) error {
	d, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
