//go:build unix && !linux

package vfs

import (
	"errors"
	"os"
)

func allocate(f *os.File, off, n int64) error { return allocateZeros(f, off, n) }

func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }
