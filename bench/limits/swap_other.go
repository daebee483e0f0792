//go:build !linux

package main

import (
	"context"
	"errors"
)

// swapOn is errors.ErrUnsupported on this system.
func swapOn(context.Context, string) (off func() error, err error) { return nil, errors.ErrUnsupported }
