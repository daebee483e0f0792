package livebackup

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// socketPathMax is a length that fits into a socket address everywhere.
const socketPathMax = 100

// dialSocket connects to the admin socket in dir.
func dialSocket(dir string) (net.Conn, error) {
	path, done, err := shortPath(dir, SocketName)
	if err != nil {
		return nil, notServed(err)
	}
	defer done()
	nc, err := net.DialTimeout("unix", path, handshakeMax)
	if err != nil {
		return nil, notServed(err)
	}
	return nc, nil
}

// checkClient lets in who could read the database's files anyway: its own user
// and root.
func checkClient(nc net.Conn) error {
	return checkPeer(nc, func(uid uint32) error {
		if self := uint32(os.Geteuid()); uid != self && uid != 0 {
			return fmt.Errorf("%w: the client is user %d, this is user %d", ErrPeerNotAllowed, uid, self)
		}
		return nil
	})
}

// checkServer makes sure that who answers owns the database's directory, or is
// root, and is not somebody who put a socket there.
func checkServer(nc net.Conn, dir string) error {
	return checkPeer(nc, func(uid uint32) error {
		owner, err := dirOwner(dir)
		if err == nil && uid != owner && uid != 0 {
			err = fmt.Errorf("%w: the socket is served by user %d, the directory belongs to user %d", ErrPeerNotAllowed, uid, owner)
		}
		return err
	})
}

// checkPeer asks who is at the other end, and allowed about that. Where the
// system does not tell, the access rights of directory and socket stand alone.
func checkPeer(nc net.Conn, allowed func(uid uint32) error) error {
	uid, err := peerOf(nc)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	return allowed(uid)
}

// peerOf asks the system who is at the other end.
func peerOf(nc net.Conn) (uid uint32, err error) {
	unixConn, ok := nc.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%w: not a unix socket", ErrPeerNotAllowed)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var askErr error
	if err := raw.Control(func(fd uintptr) { uid, askErr = socketPeer(int(fd)) }); err != nil {
		return 0, err
	}
	if askErr != nil {
		return 0, fmt.Errorf("ask who is at the other end: %w", askErr)
	}
	return uid, nil
}
