package spill

import "golang.org/x/sys/unix"

// onMemoryFS reports whether files in dir are RAM (R17).
func onMemoryFS(dir string) (bool, error) {
	var st unix.Statfs_t
	for {
		if err := unix.Statfs(dir, &st); err != unix.EINTR {
			kind := uint32(st.Type) // signed on some machines
			return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC || kind == unix.HUGETLBFS_MAGIC, err
		}
	}
}
