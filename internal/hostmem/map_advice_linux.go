package hostmem

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// adviseDiscard frees at once and reads as zeros from then on.
const adviseDiscard = unix.MADV_DONTNEED

// keepFromDumps leaves b out of core dumps: they would be as large as the
// cache and hold what users stored.
func keepFromDumps(b []byte) error {
	if err := unix.Madvise(b, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("keep %d bytes from core dumps: %w", len(b), err)
	}
	return nil
}

// SmallPages has the system put no more large pages behind b, which [Map] gave:
// they would bring back what Discard gave away of them. Only advice.
func SmallPages(b []byte) { _ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) }

// preferLargePages asks for large pages where b is long enough for them: memory
// that is touched at random otherwise costs a walk of the page tables each time.
// Only advice: a kernel without them says no.
func preferLargePages(b []byte) {
	const largePage = 2 << 20
	if len(b) >= largePage {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
}

// Populate has the system put memory behind all of b, a part of what [Map] gave, so that
// whoever touches it first does not wait for that. Only advice: a kernel before 5.14 does
// nothing.
func Populate(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }
