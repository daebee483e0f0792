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

// SwapInBytes is how much was read back from swap since the start: by the process's own
// control group if it is counted there, else by the whole host, in which others may swap.
// It only grows: that it grows is the sign of trouble.
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

// swapKeys are under which a group counts pages that come back from swap: as such since
// Linux 6.12, before that as what was evicted, is not file cache, and was needed again. In
// version 1 those that begin with total_ have the groups below in them, as in version 2 all.
var (
	unifiedSwapKeys = []string{"pswpin", "workingset_refault_anon"}
	legacySwapKeys  = []string{"total_pswpin", "total_workingset_refault_anon"}
)

func (h host) swapInBytes() (int64, error) {
	m, err := h.membership()
	if err != nil {
		return 0, err
	}
	type source struct {
		file string
		keys []string
	}
	var sources []source
	if m.legacy != nil {
		sources = append(sources, source{filepath.Join(m.legacy.dir(), "memory.stat"), legacySwapKeys})
	}
	if m.unified != nil {
		sources = append(sources, source{filepath.Join(m.unified.dir(), "memory.stat"), unifiedSwapKeys})
	}
	sources = append(sources, source{"/proc/vmstat", []string{"pswpin"}})
	for _, s := range sources {
		data, err := h.read(s.file)
		if notThere(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for _, key := range s.keys {
			pages, err := parseKeyed(data, key)
			if errors.Is(err, errMissing) {
				continue
			}
			return min(pages, math.MaxInt64/int64(os.Getpagesize())) * int64(os.Getpagesize()), inFile(s.file, err)
		}
	}
	return 0, fmt.Errorf("what comes back from swap: %w", errors.ErrUnsupported)
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
