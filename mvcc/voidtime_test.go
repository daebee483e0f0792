package mvcc

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// R19: a commit that was given up has a time in the log, too: the next one is later, also if
// the clock was put back meanwhile; else the archive refuses it, and ends for good.
func TestR19_TimeBehindAVoidCommit(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		ok(t, fsys.Mkdir("/temp", 0o700))
		o := smallOptions(fsys)
		o.Temp = []TempDir{{Path: "/temp", BytesMax: 64 << 20}}
		c := &faultRun{crashRun: crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(1, 700))}}
		c.s = mustOpen(t, o)
		ok(t, c.commits(2, 10, 40))
		tail := openTail(t, c.s, 0)
		clock := time.Now().Add(time.Hour)
		c.s.now = func() time.Time { return clock }
		fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: "/temp/*", Skip: 700})
		before := c.s.newestLSN()
		c.try(func(w *writeOp) error {
			for range 900 {
				b, err := w.tx.Alloc(block.TypeLeaf)
				if err != nil {
					return err
				}
				for i := range b.Payload() {
					b.Payload()[i] = byte(c.rng.Uint32())
				}
				w.note(b)
				b.Release()
			}
			return nil
		})
		if c.s.newestLSN() != before+1 {
			t.Fatal("no void commit")
		}
		if _, at := c.s.NewestCommit(); at.UnixNano() < clock.UnixNano() {
			t.Errorf("NewestCommit says %v of the void commit, in the log it has %v", at, clock)
		}
		if reopened {
			mustClose(t, c.s)
			c.s = mustOpen(t, o)
			tail = openTail(t, c.s, before)
		}
		clock = clock.Add(-10 * time.Minute)
		c.s.now = func() time.Time { return clock }
		ok(t, c.commits(2, 1, 1))
		var last time.Time
		for _, r := range records(t, tail) {
			info, err := ScanRecord(r.Body)
			ok(t, err)
			if info.Time.IsZero() {
				continue
			}
			if !info.Time.After(last) {
				t.Errorf("reopened %v: commit %v has time %v, one before %v", reopened, r.LSN, info.Time, last)
			}
			last = info.Time
		}
		tail.Close()
		mustClose(t, c.s)
	}
}
