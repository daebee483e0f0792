//go:build unix

package spill

import (
	"errors"
	"syscall"
)

// isNoSpace tells a file system (or a quota, or what one file may take) that is full from
// one that fails.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
