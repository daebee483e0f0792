//go:build unix && !linux

package livebackup

import (
	"fmt"
	"os"
	"path/filepath"
)

// shortPath is a path to name in dir that fits into a socket address, which
// holds 103 bytes. A long one goes through a symbolic link in a private
// temporary directory.
func shortPath(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= socketPathMax {
		return path, func() {}, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	temp, err := os.MkdirTemp("", "spw")
	if err != nil {
		return "", nil, fmt.Errorf("make a short path to %s: %w", dir, err)
	}
	done = func() { os.RemoveAll(temp) } // removes the link, not what it leads to
	link := filepath.Join(temp, "d")
	if err := os.Symlink(abs, link); err != nil {
		done()
		return "", nil, fmt.Errorf("make a short path to %s: %w", dir, err)
	}
	return filepath.Join(link, name), done, nil
}
