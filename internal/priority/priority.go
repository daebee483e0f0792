package priority

import (
	"errors"
	"fmt"
)

// IOClass is how a process waits for the disk.
type IOClass string

// The classes. The others that there are need rights that a backup should not have.
const (
	IODefault    IOClass = ""
	IOBestEffort IOClass = "best-effort" // with the lowest priority that is served at all times
	IOIdle       IOClass = "idle"        // only when nobody else wants the disk
)

// ErrUnsupported means that the system has no such priorities.
var ErrUnsupported = fmt.Errorf("priorities: %w", errors.ErrUnsupported)

// NiceMax is the most that a process can give way.
const NiceMax = 19

// Validate refuses what Set could not set without rights.
func Validate(nice int, class IOClass) error {
	if nice < 0 || nice > NiceMax {
		return fmt.Errorf("nice must be 0 to %d", NiceMax)
	}
	switch class {
	case IODefault, IOBestEffort, IOIdle:
		return nil
	}
	return fmt.Errorf("I/O class %q is none of %s, %s", class, IOBestEffort, IOIdle)
}
