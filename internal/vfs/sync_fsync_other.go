//go:build !linux

package vfs

import "os"

// syncData leaves it to os.File: fsync on BSD, FlushFileBuffers on Windows and
// fcntl(F_FULLFSYNC) on darwin, where fsync stops at the drive's own cache.
func syncData(f *os.File) error { return f.Sync() }
