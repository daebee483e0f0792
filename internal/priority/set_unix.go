//go:build unix && !linux

package priority

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Set gives this process a niceness, unless it is 0. An I/O class is ErrUnsupported.
func Set(nice int, class IOClass) error {
	if err := Validate(nice, class); err != nil {
		return err
	}
	if nice > 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
			return fmt.Errorf("set niceness: %w", err)
		}
	}
	if class != IODefault {
		return ErrUnsupported
	}
	return nil
}
