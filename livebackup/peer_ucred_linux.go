package livebackup

import "golang.org/x/sys/unix"

// socketPeer is the user at the other end, as the kernel noted it at connect
// or listen.
func socketPeer(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
