package spill

import "github.com/spillwaydb/spillway/internal/vfs"

// cacheTailBytes is how much is written to a directory between two sweeps of
// its file out of the page cache.
const cacheTailBytes = 8 << 20

// cacheTail keeps temporary storage from filling the page cache (R17). A page
// can be dropped only once it is clean, and a fast writer runs ahead of the
// device. So each run is dropped when it was written, which only starts its
// writeback, and every cacheTailBytes the whole file is: that finds what has
// become clean since, and what reads brought in, and costs what is cached.
type cacheTail struct {
	since int64 // bytes written since the last sweep
}

// written follows a write of n bytes to f, which may be fileBytesMax long.
func (t *cacheTail) written(f vfs.File, off, n, fileBytesMax int64) {
	f.DropCache(off, n)
	t.since += n
	if t.since >= cacheTailBytes {
		t.since = 0
		f.DropCache(0, fileBytesMax)
	}
}
