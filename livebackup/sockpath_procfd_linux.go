package livebackup

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shortPath is a path to name in dir that fits into a socket address, which
// holds 107 bytes. A long one goes through an open directory.
func shortPath(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= socketPathMax {
		return path, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { unix.Close(fd) }, nil
}
