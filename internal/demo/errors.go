package demo

import "errors"

var (
	// ErrDifferent means that a comparison failed: a snapshot did not repeat
	// itself, or the restored database is not what was backed up.
	ErrDifferent = errors.New("demo found a difference")
	// ErrNotShown means that originals did not spill or overflow, so that the
	// run proves less than it should.
	ErrNotShown = errors.New("originals did not spill and overflow")
	// ErrOptions means that an option is out of its range.
	ErrOptions = errors.New("invalid option of the demo")
)
