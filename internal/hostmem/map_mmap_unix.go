//go:build unix

package hostmem

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func mapMemory(n int) ([]byte, error) {
	if n <= 0 {
		return nil, fmt.Errorf("map %d bytes: %w", n, errInvalidSize)
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	if err := keepFromDumps(b); err != nil {
		return nil, errors.Join(err, unmapMemory(b))
	}
	preferLargePages(b)
	return b, nil
}

func unmapMemory(b []byte) error {
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("unmap %d bytes: %w", len(b), err)
	}
	return nil
}

// Discard gives the memory behind b, a part of what [Map] gave, back to the
// system until it is touched again. Only whole pages within b go; what b holds
// afterwards is undefined (zeros or what was there).
func Discard(b []byte) error {
	whole := wholePages(b, os.Getpagesize())
	if len(whole) == 0 {
		return nil
	}
	if err := unix.Madvise(whole, adviseDiscard); err != nil {
		return fmt.Errorf("discard %d bytes: %w", len(whole), err)
	}
	return nil
}

// wholePages cuts b down to the pages that it covers entirely: the system
// itself would round the end up, into what lies behind b.
func wholePages(b []byte, pageBytes int) []byte {
	if len(b) == 0 {
		return nil
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	page := uintptr(pageBytes)
	skip := int((page - start%page) % page)
	if skip >= len(b) {
		return nil
	}
	b = b[skip:]
	return b[:len(b)-len(b)%pageBytes]
}
