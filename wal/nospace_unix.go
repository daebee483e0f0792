//go:build unix

package wal

import (
	"errors"
	"syscall"
)

// isNoSpace reports that an operation lacked space, not health.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
