package snapshot

import (
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

var (
	// ErrBroken matches every [BrokenError].
	ErrBroken = errors.New("snapshot is broken")
	// ErrTooManyBackups refuses a backup while [BackupsMax] are live. Wait for
	// one to end.
	ErrTooManyBackups = errors.New("too many live backups")
)

// Reason says why a snapshot was broken.
type Reason string

// The reasons.
const (
	ReasonExhausted  Reason = "temporary storage and overflow are used up"
	ReasonUnreadable Reason = "an original could not be read back"
	ReasonClosed     Reason = "the store was closed"
	ReasonReleased   Reason = "it was released by an operator"
	ReasonExpired    Reason = "it was open for longer than it may be"
	ReasonGuard      Reason = "a guard's limit was reached"
	ReasonLogHeld    Reason = "it fell forward, and more redo came than may be held for it"
)

// BrokenError is what every use of a broken snapshot returns (L10).
type BrokenError struct {
	ID           uint64 // 0: readers without a name
	Kind         string // "reader" or "backup"
	Owner, Label string
	LSN          block.LSN
	Reason       Reason
	HeldBytes    int64 // what ending it freed, in bytes
	Cause        error `json:"-"` // or nil
}

func (e *BrokenError) Error() string {
	who := ""
	if e.Owner != "" || e.Label != "" {
		who = fmt.Sprintf(" of %q %q", e.Owner, e.Label)
	}
	s := fmt.Sprintf("%v at LSN %v%s: %s", ErrBroken, e.LSN, who, e.Reason)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap yields ErrBroken and the cause.
func (e *BrokenError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrBroken}
	}
	return []error{ErrBroken, e.Cause}
}
