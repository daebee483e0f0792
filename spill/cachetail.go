package spill

import "github.com/spillwaydb/spillway/internal/vfs"

// cacheTailRuns bounds what temporary storage leaves in the page cache of a
// directory: as many runs of at most stageBytes (8 MiB).
const cacheTailRuns = 32

// cacheTail keeps spill writes from filling the page cache (R17). A page can be
// dropped only once it is clean, so each run is asked for twice: when it was
// written, which starts its writeback, and when cacheTailRuns others were
// written behind it, which drops it.
type cacheTail struct {
	runs [cacheTailRuns]struct{ off, n int64 }
	next int
}

func (t *cacheTail) written(f vfs.File, off, n int64) {
	f.DropCache(off, n)
	oldest := &t.runs[t.next]
	if oldest.n > 0 {
		f.DropCache(oldest.off, oldest.n)
	}
	oldest.off, oldest.n = off, n
	t.next = (t.next + 1) % cacheTailRuns
}
