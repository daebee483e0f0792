//go:build linux && !amd64

package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// returnsTo is errors.ErrUnsupported on this processor: all is stepped through.
func returnsTo(int, *unix.PtraceRegs) (uint64, error) { return 0, errors.ErrUnsupported }

// stopAt is errors.ErrUnsupported on this processor.
func stopAt(int, uint64) error { return errors.ErrUnsupported }

// stopNowhere does nothing on this processor.
func stopNowhere(int) error { return nil }
