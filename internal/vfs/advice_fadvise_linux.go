package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCache forgets clean pages and starts to write dirty ones, which a later
// call can then forget.
func dropCache(f *os.File, off, n int64) { advise(f, off, n, unix.FADV_DONTNEED) }

func noReadAhead(f *os.File) { advise(f, 0, 0, unix.FADV_RANDOM) }

func willRead(f *os.File, off, n int64) { advise(f, off, n, unix.FADV_WILLNEED) }

// writeOut waits for nothing but room in the queue of the disk.
func writeOut(f *os.File, off, n int64) {
	_ = control(f, func(fd uintptr) error {
		return unix.SyncFileRange(int(fd), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func advise(f *os.File, off, n int64, advice int) {
	_ = control(f, func(fd uintptr) error {
		return unix.Fadvise(int(fd), off, n, advice)
	})
}
