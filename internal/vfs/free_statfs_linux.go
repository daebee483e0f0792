package vfs

import (
	"io/fs"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"
)

// freeBytes counts what is free to everybody (Bavail), not what the system
// keeps back for the superuser, which can be three times as much.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := st.Frsize
	if unit <= 0 {
		unit = st.Bsize
	}
	return product(st.Bavail, uint64(unit)), nil
}

// product is a*b, or the greatest int64.
func product(a, b uint64) int64 {
	if high, low := bits.Mul64(a, b); high == 0 && low <= math.MaxInt64 {
		return int64(low)
	}
	return math.MaxInt64
}
