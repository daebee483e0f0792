//go:build unix

package spill

import (
	"io/fs"
	"os"
	"syscall"
)

// permissionsCount says that mode bits decide who may write.
const permissionsCount = true

// ownerTrusted reports whether a directory is ours or root's. A file system
// that is simulated has no owners.
func ownerTrusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Uid == 0 || int(st.Uid) == os.Geteuid()
}
