//go:build !unix

package hostmem

import "fmt"

// Map returns n bytes of zeroed memory. On this system it comes from the Go
// heap, so that the collector's slack comes on top of it.
func Map(n int) ([]byte, error) {
	if n <= 0 {
		return nil, fmt.Errorf("map %d bytes: %w", n, errInvalidSize)
	}
	return make([]byte, n), nil
}

// Unmap leaves it to the collector: drop every reference.
func Unmap([]byte) error { return nil }

// SmallPages does nothing: the heap has its own mind.
func SmallPages([]byte) {}

// Populate does nothing: the heap's memory was cleared.
func Populate([]byte) {}

// Discard does nothing: the heap cannot give part of an object back.
func Discard([]byte) error { return nil }
