//go:build darwin || freebsd

package vfs

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// freeBytes counts what is free to everybody. That can be negative while the
// superuser eats into the reserve.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return max(int64(st.Bavail), 0) * int64(st.Bsize), nil
}
