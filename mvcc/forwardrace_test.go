package mvcc

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// manyBlocks makes a store of n blocks that are in place.
func manyBlocks(t *testing.T, o Options, n int) (*Store, *model, *rand.Rand) {
	t.Helper()
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	s, m := mustOpen(t, o), newModel()
	w, err := begin(t, s, m, rng)
	ok(t, err)
	for range n {
		ok(t, w.alloc())
	}
	_, err = w.commit(m)
	ok(t, err)
	settle(t, s)
	return s, m, rng
}

// editAll changes blocks in one commit.
func editAll(t *testing.T, s *Store, m *model, rng *rand.Rand, ids ...block.ID) {
	t.Helper()
	w, err := begin(t, s, m, rng)
	ok(t, err)
	for _, id := range ids {
		ok(t, w.edit(id))
	}
	_, err = w.commit(m)
	ok(t, err)
}

// fall has a backup fall forward, which holds an original.
func (p *forwardPull) fall(t *testing.T) {
	t.Helper()
	if !p.b.s.snapshots.BreakVictim() || !p.b.live.FellForward() {
		t.Fatal("it did not fall forward")
	}
}

// freeOrder is in which order the store's next commit frees two blocks.
func freeOrder(t *testing.T, s *Store, m *model, a, b block.ID) (first, second block.ID) {
	t.Helper()
	w, err := begin(t, s, m, nil)
	ok(t, err)
	ok(t, errors.Join(w.free(a), w.free(b)))
	var order []block.ID
	for _, h := range w.tx.away.AppendAll(nil) {
		order = append(order, s.cache.Entry(h).ID)
	}
	ok(t, w.tx.Rollback())
	return order[0], order[1]
}

// isFreed reports whether a block's newest version, durable or not, is that it is free.
func isFreed(s *Store, id block.ID) bool {
	l := s.cache.Latch(id)
	defer l.Unlock()
	h := l.Head(id)
	return h != nil && h.Freed
}

// TestR12_EndCoversWhatIsBeingPublished: a commit that frees blocks is half published when
// the backup comes to one of them, finds that it is free, and has looked at everything.
// The commit has no number for others yet. Were E below it, the block would be in use at
// E, changed in (S, F], and in hand as it was before: nobody would find out.
func TestR12_EndCoversWhatIsBeingPublished(t *testing.T) {
	s, m, rng := manyBlocks(t, smallOptions(newDisk(t)), 64)
	ids := m.at[m.newest()].ids()
	goes, waits := freeOrder(t, s, m, ids[20], ids[40])
	p := openForward(t, s, BackupOptions{FileOrder: true})
	for len(p.images) < int(p.b.info.Blocks)-1 {
		ok(t, p.pull(t, 1))
	}
	editAll(t, s, m, rng, ids[0], goes, ids[63])
	p.fall(t)
	ok(t, p.pull(t, 1)) // it tells
	ok(t, p.pull(t, 1)) // and has listed what it will look at, of which this is the first
	w, err := begin(t, s, m, rng)
	ok(t, err)
	ok(t, errors.Join(w.free(goes), w.free(waits)))

	l := s.cache.Latch(waits)
	var lsn block.LSN
	var failed, ended error
	committed := async(func() { lsn, failed = w.commit(m) })
	eventually(t, func() string {
		if !isFreed(s, goes) {
			return "the commit is not on its way"
		}
		return ""
	})
	taken := async(func() { ended = p.rest(t) })
	mustWait(t, taken, "the end of a backup")
	l.Unlock()
	<-committed
	<-taken
	ok(t, errors.Join(failed, ended))
	if end := p.b.Final().LSN; end < lsn {
		t.Fatalf("E = %v, and commit %v was seen", end, lsn)
	}
	ok(t, p.build(t, m, nil))
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR12_HighWaterIsReadBehindF: F is durable, and readers do not see it yet: the log
// knows a horizon before it tells. A high-water mark of before F would leave out groups
// that came with F.
func TestR12_HighWaterIsReadBehindF(t *testing.T) {
	s, m, rng := manyBlocks(t, smallOptions(newDisk(t)), 32)
	ids := m.at[m.newest()].ids()
	p := openForward(t, s, BackupOptions{})
	editAll(t, s, m, rng, ids[1])
	p.b.live.CanFallForward(func(int64, snapshot.Reason, error) {}) // who has it fall is not through with that
	p.fall(t)
	other, err := s.OpenBackup(context.Background(), BackupOptions{})
	ok(t, err)
	editAll(t, s, m, rng, ids[2])

	stuck, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	narrowed := async(func() { // somebody has the lock that the horizon waits for
		other.live.Narrow(m.newest(), func(block.ID) bool {
			once.Do(func() { close(stuck); <-goOn })
			return true
		})
	})
	<-stuck
	w, err := begin(t, s, m, rng)
	ok(t, err)
	ok(t, w.alloc())
	at := w.tx.Base() + 1
	committed := async(func() { _, err = w.commit(m) })
	eventually(t, func() string {
		if s.log.Durable() < at {
			return "the commit is not durable"
		}
		return ""
	})
	var tells error
	told := async(func() { tells = p.pull(t, 1) })
	mustWait(t, told, "what is to be read behind F")
	close(goOn)
	<-narrowed
	<-committed
	<-told
	ok(t, errors.Join(err, tells))
	r := beginRead(t, s)
	if p.fell.LSN != at || p.b.fwd.highWater != r.meta.highWater {
		t.Fatalf("F = %v with the high-water mark %v, want %v and %v", p.fell.LSN, p.b.fwd.highWater, at, r.meta.highWater)
	}
	r.Close()
	ok(t, p.rest(t))
	ok(t, p.build(t, m, nil))
	ok(t, errors.Join(p.b.Close(), other.Close()))
	mustClose(t, s)
}

// TestL8_NoEndForwardOnAFailedStore: a sync of the data file fails while a backup that
// fell forward catches up, and the system shows what was there before. Blocks and marks
// that were read since may be old ones: it must not say that it is whole.
func TestL8_NoEndForwardOnAFailedStore(t *testing.T) {
	fsys := newDisk(t)
	s, m, rng := manyBlocks(t, smallOptions(fsys), 32)
	ids := m.at[m.newest()].ids()
	p := openForward(t, s, BackupOptions{})
	editAll(t, s, m, rng, ids...)
	p.fall(t)
	ok(t, p.pull(t, 1))
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: simfs.SyncCacheOld})
	err := s.cleaner.round()
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("the round: %v", err)
	}
	fault.Disarm()
	_ = s.fail(err) // as the cleaner's own goroutine does
	if err := p.rest(t); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("it ended at %v: %v", p.b.Final().LSN, err)
	}
	ok(t, p.b.Close())
	_ = s.Close()
}

// TestR14_NobodyComesBackForAFall: log that is held for a backup that fell forward, or for
// a repair, is held for someone who dies with the process: who opens the store again
// keeps nothing for him. Nor does a repair count as the return of who followed before.
func TestR14_NobodyComesBackForAFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := newDisk(t)
		o := smallOptions(fsys)
		s, m, rng := manyBlocks(t, o, 32)
		ids := m.at[m.newest()].ids()
		p := openForward(t, s, BackupOptions{})
		editAll(t, s, m, rng, ids...)
		p.fall(t)
		ok(t, p.pull(t, 1))
		repair, err := s.OpenLogTail(RepairTail, s.log.Durable())
		ok(t, err)
		for range 3 {
			editAll(t, s, m, rng, ids[0])
			settle(t, s)
		}
		o.FS = fsys.Crash(nil, simfs.DropAll)
		again := mustOpen(t, o)
		if list := again.log.Holders(); len(list) > 0 || again.anchor.now.keep != 0 {
			t.Fatalf("log is kept from %v on for %+v", again.anchor.now.keep, list)
		}
		tail := openTail(t, again, again.log.Durable())
		for range 3 {
			editAll(t, again, m, rng, ids[0])
			settle(t, again)
		}
		repair.Close()
		ok(t, p.b.Close())
		_ = s.Close() // its power is cut

		o.FS = o.FS.(*simfs.FS).Kill()
		tail.Close()
		_ = again.Close()
		last := mustOpen(t, o)
		repair, err = last.OpenLogTail(RepairTail, last.log.Durable())
		ok(t, err)
		time.Sleep(3 * keptGrace)
		if list := last.log.Holders(); len(list) != 2 {
			t.Fatalf("a repair is taken for who followed before: %+v", list)
		}
		repair.Close()
		mustClose(t, last)
	})
}

// TestR14_ClosedWhileItFallsForward: a backup that is given up behind F holds no log any more.
func TestR14_ClosedWhileItFallsForward(t *testing.T) {
	s, m, rng := manyBlocks(t, smallOptions(newDisk(t)), 32)
	p := openForward(t, s, BackupOptions{})
	editAll(t, s, m, rng, m.at[m.newest()].ids()...)
	p.fall(t)
	ok(t, p.pull(t, 1))
	if list := s.log.Holders(); len(list) != 1 {
		t.Fatalf("while it falls forward %+v hold log", list)
	}
	ok(t, p.b.Close())
	if list := s.log.Holders(); len(list) > 0 {
		t.Fatalf("it is closed, and %+v hold log", list)
	}
	mustClose(t, s)
}

// TestR12_NothingOlderIsTakenWhenItFalls: a backup rests before it reads. Meanwhile a block
// is freed whose version of S never got in place, and the backup falls forward: the place
// shows an older version, sound, and there is nothing that would say so. Who goes on with
// a run that is cut off then would take it for that of S.
func TestR12_NothingOlderIsTakenWhenItFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, rng := manyBlocks(t, smallOptions(newDisk(t)), 32)
		ids := m.at[m.newest()].ids()
		editAll(t, s, m, rng, ids[1]) // not in place
		at := m.newest()
		p := openForward(t, s, BackupOptions{FileOrder: true})
		ok(t, p.pull(t, 2)) // meta block and bitmap
		p.b.pace.owed = restMax
		var failed error
		next := async(func() { failed = p.pull(t, 8) })
		synctest.Wait()
		editAll(t, s, m, rng, ids[2])
		w, err := begin(t, s, m, rng)
		ok(t, err)
		ok(t, w.free(ids[1]))
		_, err = w.commit(m)
		ok(t, err)
		p.fall(t)
		<-next
		ok(t, failed)
		for id, image := range p.images {
			tr, _ := block.Verify(image, id, s.data.seed)
			if want, had := m.at[at].blocks[id]; had && contentOf(Block{&blockcache.Version{Type: tr.Type}, image, nil}) != want {
				t.Fatalf("block %v of LSN %v is not what it was at %v", id, tr.LSN, at)
			}
		}
		ok(t, p.rest(t))
		ok(t, p.build(t, m, nil))
		ok(t, p.b.Close())
		mustClose(t, s)
	})
}
