//go:build !unix

package livebackup

import "io/fs"

// devicesAreKnown says that onOtherDevice does not know.
const devicesAreKnown = false

// onOtherDevice does not know: the rename at the end of a restore fails then.
func onOtherDevice(_, _ fs.FileInfo) bool { return false }

// sameOwner does not know: the system refuses to remove what is another user's.
func sameOwner(_, _ fs.FileInfo) bool { return true }
