//go:build !linux

package main

import "errors"

// countInstructions is errors.ErrUnsupported on this system.
func (c *committer) countInstructions(int) (functionCounts, error) {
	return functionCounts{}, errors.ErrUnsupported
}

// countCalls is errors.ErrUnsupported on this system.
func (c *committer) countCalls(int) (int, error) { return 0, errors.ErrUnsupported }
