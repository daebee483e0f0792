//go:build !linux && !darwin && !freebsd && !windows

package hostmem

import "errors"

// Limit is errors.ErrUnsupported on this system.
func Limit() (int64, error) { return 0, errors.ErrUnsupported }

// Available is errors.ErrUnsupported on this system.
func Available() (int64, error) { return 0, errors.ErrUnsupported }

// Stall is errors.ErrUnsupported on this system.
func Stall() (float64, error) { return 0, errors.ErrUnsupported }

// SwapInBytes is errors.ErrUnsupported on this system.
func SwapInBytes() (int64, error) { return 0, errors.ErrUnsupported }
