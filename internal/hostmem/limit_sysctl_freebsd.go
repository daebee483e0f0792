package hostmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Limit is the machine's physical memory in bytes. Limits of a jail or of
// rctl(8) are not seen.
func Limit() (int64, error) {
	total, err := unix.SysctlUint64("hw.physmem")
	if err != nil {
		return 0, fmt.Errorf("sysctl hw.physmem: %w", err)
	}
	return int64(total), nil
}

// Available is the memory, in bytes, of pages that are free or were not used
// lately.
func Available() (int64, error) {
	return pages("vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count")
}

// Stall is errors.ErrUnsupported on this system.
func Stall() (float64, error) { return 0, errors.ErrUnsupported }

// SwapInBytes is how much the host has read back from swap since it was
// started.
func SwapInBytes() (int64, error) { return pages("vm.stats.vm.v_swappgsin") }

// pages adds up counters of pages and returns bytes.
func pages(counters ...string) (int64, error) {
	var sum int64
	for _, name := range counters {
		n, err := unix.SysctlUint32(name)
		if err != nil {
			return 0, fmt.Errorf("sysctl %s: %w", name, err)
		}
		sum += int64(n)
	}
	return sum * int64(os.Getpagesize()), nil
}
