package livebackup

import (
	"errors"

	"golang.org/x/sys/windows"
)

// nobodyListens reports whether a connection found a socket, and nobody behind it.
func nobodyListens(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
