//go:build unix && !linux

package vfs

import "os"

func openTemp(dir string) (*os.File, error) { return openTempUnlinked(dir) }
