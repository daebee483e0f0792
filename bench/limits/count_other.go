//go:build !linux

package main

import (
	"context"
	"errors"
)

// commitCounts is what the thread that commits did for a commit, on average.
type commitCounts struct{ instructions, calls float64 }

// countCommits is errors.ErrUnsupported on this system.
func countCommits(context.Context, string, string, int) (commitCounts, error) {
	return commitCounts{}, errors.ErrUnsupported
}
