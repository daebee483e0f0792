//go:build !windows

package livebackup

import (
	"errors"
	"syscall"
)

// nobodyListens reports whether a connection found a socket, and nobody behind it.
func nobodyListens(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
