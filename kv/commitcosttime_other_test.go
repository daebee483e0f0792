//go:build !unix

package kv_test

import "time"

// cpuTime is 0 on this system.
func cpuTime() time.Duration { return 0 }
