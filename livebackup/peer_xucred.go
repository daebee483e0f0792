//go:build darwin || freebsd

package livebackup

import "golang.org/x/sys/unix"

// socketPeer is the user at the other end, as the kernel noted it at connect
// or listen.
func socketPeer(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
