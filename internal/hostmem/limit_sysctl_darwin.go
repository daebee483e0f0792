package hostmem

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Limit is the machine's physical memory in bytes.
func Limit() (int64, error) {
	total, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, fmt.Errorf("sysctl hw.memsize: %w", err)
	}
	return int64(total), nil
}

// Available is the share of physical memory, in bytes, that the kernel counts
// as free when it decides about memory pressure; it tells whole percents.
func Available() (int64, error) {
	total, err := Limit()
	if err != nil {
		return 0, err
	}
	percent, err := unix.SysctlUint32("kern.memorystatus_level")
	if err != nil {
		return 0, fmt.Errorf("sysctl kern.memorystatus_level: %w", err)
	}
	return total / 100 * int64(min(percent, 100)), nil
}

// Stall is errors.ErrUnsupported on this system.
func Stall() (float64, error) { return 0, errors.ErrUnsupported }

// SwapInBytes is errors.ErrUnsupported on this system.
func SwapInBytes() (int64, error) { return 0, errors.ErrUnsupported }
