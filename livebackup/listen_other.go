//go:build !unix

package livebackup

import (
	"errors"
	"net"
)

// listenPrivate relies on the access list of the directory: sockets have no
// mode of their own here.
func listenPrivate(dir, path string) (net.Listener, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // Server.Close removes what is ours
	return ln, nil
}

func dirOwner(string) (uint32, error) { return 0, errors.ErrUnsupported }
