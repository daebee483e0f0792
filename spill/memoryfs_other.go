//go:build !linux && !darwin && !freebsd

package spill

// onMemoryFS cannot tell on this system.
func onMemoryFS(string) (bool, error) { return false, nil }
