package vfs

import (
	"errors"
	"os"
)

// allocate extends the file: NTFS and ReFS give a file that is not sparse its
// clusters as soon as its size is set, and read them as zeros until written.
// Files are never made sparse here, so there are no holes to fill.
func allocate(f *os.File, off, n int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= off+n {
		return err
	}
	return f.Truncate(off + n)
}

func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }
