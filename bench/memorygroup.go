package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryGroup is a control group (version 1) below that of this process. What is
// read or written by processes in it, page cache included, stays within its limit.
type MemoryGroup struct{ Dir string }

// ErrNoMemoryGroup means that the system has no control groups of version 1, or
// that we may not make one.
var ErrNoMemoryGroup = errors.New("no memory control group (version 1; needs root)")

const memoryGroupRoot = "/sys/fs/cgroup/memory"

// NewMemoryGroup makes a group. Close it when no process is in it any more.
func NewMemoryGroup(limitBytes int64) (*MemoryGroup, error) {
	path, err := memoryGroupOfSelf()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryGroup, err)
	}
	dir, err := os.MkdirTemp(filepath.Join(memoryGroupRoot, path), "spillway-bench-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryGroup, err)
	}
	g := &MemoryGroup{dir}
	limit := []byte(strconv.FormatInt(limitBytes, 10))
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), limit, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoMemoryGroup, err), g.Close())
	}
	return g, nil
}

func memoryGroupOfSelf() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[1] == "memory" {
			return fields[2], nil
		}
	}
	return "", errors.New("/proc/self/cgroup names no memory controller")
}

// Close removes the group.
func (g *MemoryGroup) Close() error { return os.Remove(g.Dir) }

// Join puts this process into the group. What it has taken before is not counted
// there.
func (g *MemoryGroup) Join() error { return joinGroup(g.Dir) }

// KeepOutOfSwap has the kernel take file cache, not pages of processes, when the group is
// full: the setting of docs/operating.md.
func (g *MemoryGroup) KeepOutOfSwap() error {
	if err := os.WriteFile(filepath.Join(g.Dir, "memory.swappiness"), []byte("0"), 0); err != nil {
		return fmt.Errorf("keep memory group out of swap: %w", err)
	}
	return nil
}

func joinGroup(dir string) error {
	pid := []byte(strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), pid, 0); err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	return nil
}

// Number reads one of the group's files that hold a number.
func (g *MemoryGroup) Number(name string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(g.Dir, name))
	if err != nil {
		return 0, fmt.Errorf("read memory group: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// Killed is how often the kernel ended a process because the group was full.
func (g *MemoryGroup) Killed() (int64, error) {
	data, err := os.ReadFile(filepath.Join(g.Dir, "memory.oom_control"))
	if err != nil {
		return 0, fmt.Errorf("read memory group: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, errors.New("the kernel does not count what it kills")
}
