package mvcc

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// A commit that was given up behind its frees, in the log and nowhere else: no program of
// ours writes one. The block that it says it frees is in use, and what was committed of it
// before is redone; so it is where the frees fill several records.
func TestR8_FreesOfAVoidCommit(t *testing.T) {
	for _, records := range []int{1, 3} {
		fsys := simfs.New()
		o := smallOptions(fsys)
		s, id := oneBlock(t, o)
		other := anotherBlock(t, s)
		set(t, s, id, 2)
		set(t, s, other, 3)
		s.writer.Lock()
		lsn := s.newestLSN() + 1
		for range records {
			w := &redoWriter{}
			w.free([]block.ID{id, other})
			ok(t, s.log.Append(lsn, w.buf, false))
		}
		ok(t, s.log.Append(lsn, []byte{entryVoid}, true))
		s.newest.Store(uint64(lsn))
		s.writer.Unlock()
		last := set(t, s, other, 4)
		disk := fsys.Crash(nil, simfs.DropAll)
		mustClose(t, s)
		o.FS = disk
		s = mustOpen(t, o)
		r := beginRead(t, s)
		if a, b := value(t, r, id), value(t, r, other); r.LSN() != last || a != 2 || b != 4 {
			t.Errorf("%d records: at LSN %v of %v, %d and %d, not 2 and 4", records, r.LSN(), last, a, b)
		}
		r.Close()
		mustClose(t, s)
	}
}
