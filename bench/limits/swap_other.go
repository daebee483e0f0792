//go:build !linux

package main

import (
	"context"
	"errors"
)

// swapOn is errors.ErrUnsupported on this system.
func swapOn(context.Context, string) (off func() error, err error) { return nil, errors.ErrUnsupported }

// swappedOut is not known on this system.
func swappedOut() int64 { return 0 }
