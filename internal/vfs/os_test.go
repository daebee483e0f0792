package vfs_test

import (
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/internal/vfs/vfstest"
)

func TestOSConforms(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) { return vfs.OS, t.TempDir() })
}
