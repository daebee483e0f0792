package mvcc

import (
	"errors"
	"fmt"
	"time"
)

// ErrGuard matches every [GuardError].
var ErrGuard = errors.New("a guard's limit was reached")

// Guard names one of the conditions under which a backup gives itself up.
type Guard string

// The guards, and the units of their limits and readings.
const (
	GuardHeld       Guard = "held"        // bytes of originals that the backup holds, at most
	GuardTempShare  Guard = "temp-share"  // share of temporary storage in use, 0 to 1, at most
	GuardHostMemory Guard = "host-memory" // bytes that the host can still give, at least
	GuardPressure   Guard = "pressure"    // percent of the time that all tasks waited for memory, at most
	GuardTime       Guard = "time"        // seconds since the backup began, at most
	GuardRate       Guard = "rate"        // bytes per second that the sink takes, at least
)

// atLeast reports whether the guard's limit is a lower one.
func (g Guard) atLeast() bool { return g == GuardHostMemory || g == GuardRate }

// GuardError says which guard ended a backup, or refused one. It matches ErrGuard.
type GuardError struct {
	Guard          Guard
	Limit, Reading float64 // in the guard's unit
}

func (e *GuardError) Error() string {
	side := "above"
	if e.Guard.atLeast() {
		side = "below"
	}
	return fmt.Sprintf("guard %s: %s is %s the limit %s", e.Guard, e.Guard.text(e.Reading), side, e.Guard.text(e.Limit))
}

// Is matches ErrGuard.
func (e *GuardError) Is(target error) bool { return target == ErrGuard }

// text is a reading with its unit.
func (g Guard) text(v float64) string {
	switch g {
	case GuardHeld, GuardHostMemory:
		return fmt.Sprintf("%.0f bytes", v)
	case GuardTempShare:
		return fmt.Sprintf("%.1f%%", 100*v)
	case GuardPressure:
		return fmt.Sprintf("%.1f%%", v)
	case GuardRate:
		return fmt.Sprintf("%.0f bytes/s", v)
	}
	return time.Duration(v * float64(time.Second)).Round(time.Millisecond).String()
}
