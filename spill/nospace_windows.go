package spill

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// isNoSpace tells a file system (or a quota) that is full from one that fails.
func isNoSpace(err error) bool {
	for _, e := range []error{
		windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL,
		windows.ERROR_DISK_QUOTA_EXCEEDED, syscall.ENOSPC,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
