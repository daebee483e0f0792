//go:build !unix

package wal

import (
	"errors"
	"syscall"
)

// What Windows says when a disk, or a handle's disk, is full.
const (
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

// isNoSpace reports that an operation lacked space, not health.
func isNoSpace(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull) || errors.Is(err, syscall.ENOSPC)
}
