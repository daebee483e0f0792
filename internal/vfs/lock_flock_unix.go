//go:build unix

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// systemLock uses flock, which belongs to the open file: closing another
// descriptor of the same file does not drop it, as it would a POSIX lock.
func systemLock(f *os.File) error {
	err := control(f, func(fd uintptr) error {
		return retryEINTR(func() error {
			return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB)
		})
	})
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

// systemUnlock gives the lock up for all copies of the descriptor. If it fails, the lock
// ends with the last of them.
func systemUnlock(f *os.File) {
	_ = control(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Flock(int(fd), unix.LOCK_UN) })
	})
}

func identify(f *os.File) (fileID, error) {
	var stat unix.Stat_t
	err := control(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fstat(int(fd), &stat) })
	})
	return fileID{volume: uint64(stat.Dev), index: stat.Ino}, err
}

// retryEINTR repeats a call that a signal interrupted; the Go runtime itself
// sends signals.
func retryEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
