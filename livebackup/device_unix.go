//go:build unix

package livebackup

import (
	"io/fs"
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

// sameOwner reports whether one user owns both files.
func sameOwner(a, b fs.FileInfo) bool {
	sa, ok1 := a.Sys().(*syscall.Stat_t)
	sb, ok2 := b.Sys().(*syscall.Stat_t)
	return !ok1 || !ok2 || sa.Uid == sb.Uid
}
