package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PressureGroup is a control group (version 2) below that of this process, in which the
// kernel counts apart what processes wait for. It limits nothing.
type PressureGroup struct{ Dir string }

// ErrNoPressureGroup means that the system has no control groups of version 2, that it does
// not count pressure in them, or that we may not make one.
var ErrNoPressureGroup = errors.New("no control group that counts pressure (version 2; needs root)")

// pressureRoots are where control groups of version 2 are mounted: beside those of version 1,
// or alone.
var pressureRoots = []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}

// NewPressureGroup makes a group. Close it when no process is in it any more.
func NewPressureGroup() (*PressureGroup, error) {
	path, err := pressureGroupOfSelf()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPressureGroup, err)
	}
	for _, root := range pressureRoots {
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue // none of version 2
		}
		dir, err := os.MkdirTemp(filepath.Join(root, path), "spillway-bench-")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoPressureGroup, err)
		}
		g := &PressureGroup{dir}
		if _, err := os.ReadFile(filepath.Join(dir, "memory.pressure")); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoPressureGroup, err), g.Close())
		}
		return g, nil
	}
	return nil, ErrNoPressureGroup
}

// Close removes the group.
func (g *PressureGroup) Close() error { return os.Remove(g.Dir) }

// Join puts this process into the group.
func (g *PressureGroup) Join() error { return joinGroup(g.Dir) }

func pressureGroupOfSelf() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("/proc/self/cgroup names no group of version 2")
}
