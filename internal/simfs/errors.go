package simfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// ErrPowerCut is how every operation ends after the power was cut or the
// process was killed.
var ErrPowerCut = errors.New("the power is cut")

// wrap makes err one of the kind that package os returns.
func (ev *Event) wrap(err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case ev.To != "":
		return &os.LinkError{Op: ev.Op.String(), Old: ev.File, New: ev.To, Err: err}
	}
	return &fs.PathError{Op: ev.Op.String(), Path: ev.File, Err: err}
}
