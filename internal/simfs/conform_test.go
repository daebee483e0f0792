package simfs_test

import (
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/internal/vfs/vfstest"
)

func TestSimulatedConforms(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) (vfs.FS, string) {
		fs := simfs.New()
		t.Cleanup(func() {
			if open := fs.OpenFiles(); len(open) > 0 {
				t.Errorf("still open: %q", open)
			}
		})
		if err := fs.Mkdir("/test", 0o700); err != nil {
			t.Fatal(err)
		}
		return fs, "/test"
	})
}
