//go:build unix

package livebackup

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenPrivate makes the socket so that there is no moment at which somebody
// else could connect: its mode is set after bind and before listen, and until
// then a connect is refused.
func listenPrivate(dir, path string) (net.Listener, error) {
	short, done, err := shortPath(dir, SocketName)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := newSocket()
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has a copy
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: short}); err != nil {
		return nil, fmt.Errorf("bind socket: %w", err)
	}
	err = os.Chmod(path, fileMode)
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	var ln net.Listener
	if err == nil {
		ln, err = net.FileListener(f)
	}
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return ln, nil
}

// newSocket makes a socket that no child inherits. ForkLock, because not every
// system can say so in one call.
func newSocket() (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

// dirOwner is the user that a directory belongs to.
func dirOwner(dir string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", dir, err)
	}
	return st.Uid, nil
}
