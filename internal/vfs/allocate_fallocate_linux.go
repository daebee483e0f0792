package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate uses fallocate: holes within the range are reserved too. On a file
// system that cannot (NFS before 4.2, for one) it writes zeros.
func allocate(f *os.File, off, n int64) error {
	err := fallocate(f, 0, off, n)
	if err == unix.EOPNOTSUPP {
		return allocateZeros(f, off, n)
	}
	return err
}

// punchHole fails with EOPNOTSUPP, which is an errors.ErrUnsupported.
func punchHole(f *os.File, off, n int64) error {
	return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func fallocate(f *os.File, mode uint32, off, n int64) error {
	return control(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fallocate(int(fd), mode, off, n) })
	})
}
