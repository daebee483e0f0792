package vfs

import "os"

const zerosBytes = 1 << 20

// allocateZeros reserves by writing: from the end of the file, or from off if
// that is further, to off+n. That holds on file systems that overwrite in
// place; on one that never does (ZFS, btrfs) nothing but its own reservations
// can promise room for a later overwrite. Holes below the file's end stay
// holes: filling them could hit a write that is going on.
func allocateZeros(f *os.File, off, n int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := off + n
	zeros := make([]byte, min(n, zerosBytes))
	for at := max(off, info.Size()); at < end; {
		written, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at)
		if err != nil {
			return err
		}
		at += int64(written)
	}
	return nil
}
