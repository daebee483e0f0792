package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData uses fdatasync, which covers data, size and the extents that lead
// to the data, and leaves out times.
func syncData(f *os.File) error {
	return control(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fdatasync(int(fd)) })
	})
}
