package mvcc

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// A round fails at a sync while somebody waits for the turn to quiet the store. The system
// tells of such a failure once: his own sync would succeed, and what he writes in place
// would have no second copies, or his checkpoint record give up the redo of blocks that
// are on no disk. So the store has failed when he gets the turn.
func TestL8_RoundThatFailedHandsNoTurnOn(t *testing.T) {
	for _, file := range []string{fileData, fileSecond} {
		fsys := simfs.New()
		g := newGates(fsys)
		o := smallOptions(fsys)
		s, id := oneBlock(t, o)
		ok(t, s.cleaner.round()) // its image no longer counts: what follows has a second copy
		lsn := set(t, s, id, 2)
		redo := s.redoStart()
		sync := g.next(simfs.OpSync, file)
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: file, Sync: simfs.SyncCacheNew})
		var failed, quiet error
		round := async(func() { failed = s.cleaner.round() })
		<-sync.reached
		quieted := async(func() {
			q, err := s.Quiesce()
			if quiet = err; err == nil {
				q.Release()
			}
		})
		sync.open()
		<-round
		<-quieted
		fault.Disarm()
		if failed == nil || !errors.Is(quiet, ErrPoisoned) {
			t.Errorf("%s: the round says %v, who was next %v", file, failed, quiet)
		}
		if now := s.redoStart(); now != redo {
			t.Errorf("%s: redo began at %v, and begins at %v", file, redo, now)
		}
		_ = s.Close()
		o.FS = fsys.Crash(nil, simfs.DropAll)
		s = mustOpen(t, o)
		r := beginRead(t, s)
		if got := value(t, r, id); got != 2 {
			t.Errorf("%s: block %v is %d, commit %v was acknowledged", file, id, got, lsn)
		}
		r.Close()
		mustClose(t, s)
	}
}
