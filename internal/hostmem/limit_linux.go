package hostmem

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// Limit is the most memory, in bytes, that this process may ever use: the
// least of physical memory and the limits of its control group and of those
// above it. Swap does not count.
func Limit() (int64, error) { return host{root: "/"}.limit() }

// Available is how many bytes this process could take now without swapping and
// without meeting a limit: the least of what the kernel estimates for the whole
// host (MemAvailable) and the room left under each control group limit, where
// file cache that nobody used lately counts as room.
func Available() (int64, error) { return host{root: "/"}.available() }

// Stall is the share of the last 10 seconds, in percent, during which all tasks waited
// for memory at once and nothing was done: in the process's own control group if it is
// counted there, else on the host. errors.ErrUnsupported if the kernel does not count.
func Stall() (float64, error) { return host{root: "/"}.stall() }

// SwapInBytes is how much the whole host has read back from swap since it was
// started. It only grows: that it grows is the sign of trouble.
func SwapInBytes() (int64, error) { return host{root: "/"}.swapInBytes() }

// host reads the kernel's files below root, which is "/" except in tests.
type host struct{ root string }

func (h host) limit() (int64, error) {
	limit, err := h.meminfo("MemTotal")
	if err != nil {
		return 0, err
	}
	groups, err := h.groups()
	for _, g := range groups {
		limit = min(limit, g.limitBytes)
	}
	return limit, err
}

func (h host) available() (int64, error) {
	available, err := h.meminfo("MemAvailable")
	if err != nil {
		return 0, err
	}
	groups, err := h.groups()
	for _, g := range groups {
		available = min(available, g.headroom())
	}
	return available, err
}

func (h host) stall() (float64, error) {
	files := []string{"/proc/pressure/memory"}
	membership, err := h.membership()
	if err != nil {
		return 0, err
	}
	if membership.unified != nil {
		own := filepath.Join(membership.unified.dir(), "memory.pressure")
		files = []string{own, files[0]}
	}
	for _, name := range files {
		data, err := h.read(name)
		if notThere(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		percent, err := parseStall(data)
		return percent, inFile(name, err)
	}
	return 0, fmt.Errorf("memory pressure: %w", errors.ErrUnsupported)
}

func (h host) swapInBytes() (int64, error) {
	const name = "/proc/vmstat"
	data, err := h.read(name)
	if err != nil {
		return 0, err
	}
	pages, err := parseKeyed(data, "pswpin")
	if err != nil {
		return 0, inFile(name, err)
	}
	return min(pages, math.MaxInt64/int64(os.Getpagesize())) * int64(os.Getpagesize()), nil
}

func (h host) meminfo(key string) (int64, error) {
	const name = "/proc/meminfo"
	data, err := h.read(name)
	if err != nil {
		return 0, err
	}
	bytes, err := parseMeminfo(data, key)
	return bytes, inFile(name, err)
}

// read reads a kernel file; its errors name it.
func (h host) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(h.root, name))
}

// notThere tells whether a kernel lacks what a file stands for. Pressure files
// exist but cannot be opened where counting is switched off.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported)
}

func inFile(name string, err error) error {
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}
