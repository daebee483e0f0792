package block

import (
	"errors"
	"fmt"
	"strings"
)

// ErrCorrupt matches, by errors.Is, every [CorruptError]: bytes that were read
// without an I/O error and are not what was written.
var ErrCorrupt = errors.New("corrupt data")

// NoBlock is the ID in a [CorruptError] whose damage is in no block.
const NoBlock = ID(^uint64(0))

// CorruptError says where damage was found and what was expected there. All
// packages of Spillway report damage with this one type.
type CorruptError struct {
	Path   string // file
	Offset int64  // byte offset in the file, or -1
	Block  ID     // block number, or NoBlock
	Reason string // what was found, and what was expected
	Cause  error  // what a decoder said, or nil
}

func (e *CorruptError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: %v", e.Path, ErrCorrupt)
	if e.Offset >= 0 {
		fmt.Fprintf(&s, " at offset %d", e.Offset)
	}
	if e.Block != NoBlock {
		fmt.Fprintf(&s, " in block %v", e.Block)
	}
	fmt.Fprintf(&s, ": %s", e.Reason)
	if e.Cause != nil {
		fmt.Fprintf(&s, ": %v", e.Cause)
	}
	return s.String()
}

// Unwrap yields ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.Cause}
}
