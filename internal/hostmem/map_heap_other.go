//go:build !unix

package hostmem

import "fmt"

func mapMemory(n int) ([]byte, error) {
	if n <= 0 {
		return nil, fmt.Errorf("map %d bytes: %w", n, errInvalidSize)
	}
	return make([]byte, n), nil
}

func unmapMemory([]byte) error { return nil }

// SmallPages does nothing: the heap has its own mind.
func SmallPages([]byte) {}

// Populate does nothing: the heap's memory was cleared.
func Populate([]byte) {}

// Discard does nothing: the heap cannot give part of an object back.
func Discard([]byte) error { return nil }
