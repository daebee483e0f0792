//go:build unix && !linux

package hostmem

import "golang.org/x/sys/unix"

// adviseDiscard lets the system free the pages when it needs them; until then
// they hold what they held and may still count as used.
const adviseDiscard = unix.MADV_FREE

func keepFromDumps([]byte) error { return nil }

func preferLargePages([]byte) {}

// SmallPages does nothing: no large pages were asked for.
func SmallPages([]byte) {}

// Populate does nothing: whoever touches b first has the system put memory behind it.
func Populate([]byte) {}
