package vfs

import (
	"io/fs"
	"math"

	"golang.org/x/sys/windows"
)

// freeBytes is what the caller's quota leaves, not what the volume has.
func freeBytes(dir string) (int64, error) {
	dir16, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, &fs.PathError{Op: "free bytes", Path: dir, Err: err}
	}
	var available, total, free uint64
	if err := windows.GetDiskFreeSpaceEx(dir16, &available, &total, &free); err != nil {
		return 0, &fs.PathError{Op: "free bytes", Path: dir, Err: err}
	}
	return int64(min(available, math.MaxInt64)), nil
}
