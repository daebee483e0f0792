//go:build unix

package livebackup

import (
	"io/fs"
	"os"
	"syscall"
)

// devicesAreKnown says that onOtherDevice knows.
const devicesAreKnown = true

// onOtherDevice reports whether a and b lie on different file systems.
func onOtherDevice(a, b fs.FileInfo) bool {
	sa, ok1 := a.Sys().(*syscall.Stat_t)
	sb, ok2 := b.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && sa.Dev != sb.Dev
}

// isOurs reports whether the user that this process runs as owns a file.
func isOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(st.Uid) == os.Geteuid()
}
