//go:build !linux

package kv_test

// threadID is 0: nobody traces threads on this system.
func threadID() int { return 0 }

// markThread does nothing on this system.
func markThread() error { return nil }
