//go:build darwin || freebsd

package spill

import "golang.org/x/sys/unix"

// onMemoryFS reports whether files in dir are RAM (R17). A disk made of memory
// (hdiutil, mdconfig) cannot be told from a real one.
func onMemoryFS(dir string) (bool, error) {
	var st unix.Statfs_t
	for {
		if err := unix.Statfs(dir, &st); err != unix.EINTR {
			return unix.ByteSliceToString(st.Fstypename[:]) == "tmpfs", err
		}
	}
}
