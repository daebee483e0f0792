package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/wal"
)

// faultRun is a workload under one fault. It never stops at an error, so that
// what happens after the fault is seen.
type faultRun struct {
	crashRun
	stale   bool // a sync that failed put old blocks back into the system's cache
	backups int
}

// trusted tells whether reads and backups still have to be right.
func (c *faultRun) trusted() bool { return !c.stale || c.s.state.failure() == nil }

// try is a transaction that may fail. It checks what an error may mean.
func (c *faultRun) try(f func(*writeOp) error) {
	failedBefore := c.s.state.failure() != nil
	base := c.m.newest()
	w, err := begin(c.t, c.s, c.m, c.rng)
	if err != nil {
		c.note(err)
		return
	}
	if err := f(w); err != nil {
		_ = w.tx.Rollback()
		c.note(err)
		return
	}
	lsn, err := w.commit(c.m)
	if err == nil {
		if failedBefore && lsn > base {
			c.t.Fatalf("commit %v is acknowledged by a store that failed before it began (L8)", lsn)
		}
		return
	}
	c.note(err)
	if c.s.state.failure() != nil {
		return // outcome unknown: the model has it as tried
	}
	// Nothing was committed. The LSN is taken if temporary storage failed in
	// the middle of the redo.
	c.m.cutTo(base)
	if c.s.newestLSN() > base {
		c.m.at = append(c.m.at, c.m.at[base].clone())
	}
}

// note checks that an error is one that the API names.
func (c *faultRun) note(err error) {
	for _, known := range []error{ErrPoisoned, ErrNoSpace, ErrTxTooLarge, syscall.EIO, syscall.ENOSPC, wal.ErrFailed, wal.ErrUnknownOutcome, snapshot.ErrBroken, block.ErrCorrupt, ErrEmergency, ErrOptions} {
		if errors.Is(err, known) {
			return
		}
	}
	c.t.Fatalf("an error of no known kind: %v", err)
}

// play is the workload: small and large commits, a reader, a backup,
// checkpoints.
func (c *faultRun) play() {
	c.try(func(w *writeOp) error { return w.some(8, 40) })
	c.try(func(w *writeOp) error {
		for range 110 {
			if err := w.alloc(); err != nil {
				return err
			}
		}
		return nil
	})
	r, err := c.s.BeginRead()
	if err != nil {
		c.note(err)
	}
	b := c.openBackup()
	for i := range 6 {
		c.try(func(w *writeOp) error { return w.some(12, 150) })
		if i%2 == 1 && c.s.state.failure() == nil {
			if err := c.checkpoint(); err != nil {
				c.note(err)
			}
		}
		if b != nil {
			b = c.pull(b, 9)
		}
	}
	c.try(func(w *writeOp) error { return w.some(150, 200) }) // spills
	if r != nil && c.trusted() {
		c.readAll(r)
	}
	if r != nil {
		r.Close()
	}
	for b != nil {
		b = c.pull(b, 30)
	}
}

func (c *faultRun) openBackup() *backupPull {
	b, err := c.s.OpenBackup(context.Background(), BackupOptions{Rescue: c.s.state.failure() != nil})
	if err != nil {
		c.note(err)
		return nil
	}
	return &backupPull{b: b, images: map[block.ID][]byte{}}
}

func (c *faultRun) pull(b *backupPull, n int) *backupPull {
	err := b.pull(c.t, n)
	if err != nil {
		c.note(err)
		err = b.pull(c.t, n) // an I/O error passes; nothing was lost by it
	}
	if err != nil {
		c.note(err)
	} else if !b.done {
		return b
	} else if c.trusted() {
		b.restore(c.t, c.m)
		c.backups++
	}
	ok(c.t, b.b.Close())
	return nil
}

// readAll reads everything a snapshot sees, right or with an error, and right
// at the second try unless the fault is there to stay.
func (c *faultRun) readAll(r *ReadTx) {
	im := c.m.at[r.LSN()]
	for _, id := range im.ids() {
		b, err := r.Block(id)
		if err != nil {
			c.note(err)
			continue
		}
		if got, want := contentOf(b), im.blocks[id]; got != want {
			c.t.Fatalf("block %v at %v is %v, want %v", id, r.LSN(), got, want)
		}
		b.Release()
	}
}

// kinds of faults that the sweep tries at each operation.
func faultKinds() []simfs.Fault {
	return []simfs.Fault{
		{},
		{Err: syscall.ENOSPC},
		{Short: true},
		{Sticky: true},
		{Ops: simfs.OpSync | simfs.OpSyncDir, Sync: simfs.SyncCacheNew},
		{Ops: simfs.OpSync, Sync: simfs.SyncCacheOld},
		{Ops: simfs.OpSync, Late: true},
	}
}

// TestFault_L8_Sweep fails the k-th operation.
func TestFault_L8_Sweep(t *testing.T) {
	seed := chance.Seed(t)
	for i, kind := range faultKinds() {
		t.Run(fmt.Sprintf("%d %+v", i, kind), func(t *testing.T) {
			dog := newWatchdog(t)
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			seen := oneFault(t, dog, simfs.Fault{Ops: kind.Ops, Skip: 1 << 30}, seed)
			runs := min(seen, 20**flagLong/slower)
			if testing.Short() {
				runs = min(seen, 8)
			}
			for n := range runs {
				kind.Skip = (n*seen + rng.IntN(seen)) / runs
				dog.pat()
				oneFault(t, dog, kind, seed)
			}
			t.Logf("%d operations, %d runs", seen, runs)
		})
	}
}

// oneFault runs the workload with a fault, then opens the store again, in the
// same session of the system and after a power cut, and compares.
func oneFault(t *testing.T, dog *watchdog, fault simfs.Fault, seed uint64) (seen int) {
	t.Helper()
	stage := "workload"
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	c := &faultRun{crashRun: crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(seed, 9))}}
	c.stale = fault.Sync == simfs.SyncCacheOld
	what := fmt.Sprintf("fault %+v, seed %d", fault, seed)
	armed := fsys.Fail(fault)
	s, err := Open(testDir, c.o)
	if err == nil {
		c.s = dog.watch(s)
		c.play()
		if s.state.failure() != nil && armed.Fired() == 0 {
			t.Fatalf("%s: failed for nothing: %v", what, s.state.failure())
		}
		for _, class := range []int64{s.cache.Bytes(3), s.cache.Bytes(4)} { // private, reserve
			if class != 0 && s.state.failure() == nil {
				t.Fatalf("%s: frames leak: %s", what, describe(s))
			}
		}
		_ = s.Close()
	} else {
		c.note(err)
	}
	seen = armed.Seen()
	armed.Disarm()
	if open := fsys.OpenFiles(); len(open) > 0 {
		t.Fatalf("%s: left open: %v", what, open)
	}
	defer func() {
		if t.Failed() {
			t.Log(stage, what)
		}
	}()
	stage = "power cut"
	c.checkAfter(fsys.Crash(nil, simfs.DropAll), what+", power cut", nil)
	stage = "reopened"
	c.checkAfter(fsys, what+", reopened", func(s *Store, m *model) {
		m.acked = m.newest()
		again := &crashRun{t: t, o: c.o, s: s, m: m, rng: c.rng}
		ok(t, again.commit(5, 40))
		ok(t, again.checkpoint())
		stage = "reopened, power cut"
		again.checkAfter(fsys.Crash(nil, simfs.DropAll), what+", reopened, power cut", nil)
	})
	return seen
}

// TestFault_R7_NoSpaceResumes fills the disk at every size: commits fail whole,
// nothing is poisoned, and when there is room again the store goes on.
func TestFault_R7_NoSpaceResumes(t *testing.T) {
	seed := chance.Seed(t)
	dog := newWatchdog(t)
	for step := range 12 {
		dog.pat()
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		c := &faultRun{crashRun: crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(seed, uint64(step)))}}
		c.s = dog.watch(mustOpen(t, c.o))
		fsys.SetCapacity(fsys.UsedBytes() + int64(step)*40<<10)
		refused := 0
		for range 40 {
			before := c.m.newest()
			c.try(func(w *writeOp) error { return w.some(20, 400) })
			if c.m.newest() == before {
				refused++
			}
			if err := c.s.state.failure(); err != nil {
				t.Fatalf("a full disk poisons: %v", err)
			}
			checkAll(t, c.s, c.m)
		}
		if refused == 0 {
			t.Fatal("the disk was never full")
		}
		fsys.SetCapacity(1 << 40)
		ok(t, c.commits(5, 20, 400))
		checkAll(t, c.s, c.m)
		mustClose(t, c.s)
	}
}

// TestFault_R7_FullDiskHasTheLogsOwnRoom: the disk is full while the log is young, and most
// of it is needed for what is not in place yet. Commits that change what is there go on,
// because a checkpoint makes room; who deletes something, to have room again, is one of them.
func TestFault_R7_FullDiskHasTheLogsOwnRoom(t *testing.T) {
	for step := range 4 {
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		o := smallOptions(fsys)
		c := &crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(chance.Seed(t), 0))}
		c.s = mustOpen(t, o)
		rewrite := func(w *writeOp) error {
			for _, id := range w.held[:10] {
				if err := w.edit(id); err != nil {
					return err
				}
			}
			return nil
		}
		ok(t, c.allocMany(30))
		for range 10 * step {
			ok(t, c.change(rewrite))
		}
		ok(t, c.s.log.Settle()) // there are two segments, and one is needed
		fsys.SetCapacity(fsys.UsedBytes())
		for range 100 {
			ok(t, c.change(rewrite))
		}
		checkAll(t, c.s, c.m)
		mustClose(t, c.s)
	}
}

// TestFault_L10_TemporaryStorage: whatever happens there, no commit is lost and
// the store does not fail; snapshots break, saying why.
func TestFault_L10_TemporaryStorage(t *testing.T) {
	seed := chance.Seed(t)
	dog := newWatchdog(t)
	for i := range 12 * *flagLong / slower {
		dog.pat()
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		ok(t, fsys.Mkdir("/temp", 0o700))
		o := smallOptions(fsys)
		o.Temp = []TempDir{{Path: "/temp", BytesMax: 8 << 20}}
		o.OverflowMax = -1
		c := &faultRun{crashRun: crashRun{t: t, o: o, m: newModel(), rng: rng}}
		c.s = dog.watch(mustOpen(t, o))
		ok(t, c.allocMany(80))
		ok(t, c.allocMany(80))
		ok(t, c.allocMany(80))
		op := []simfs.Op{simfs.OpRead, simfs.OpWrite, simfs.OpAllocate}[rng.IntN(3)]
		failure := []error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)]
		if op == simfs.OpRead {
			failure = syscall.EIO
		}
		fsys.Fail(simfs.Fault{
			Ops: op, File: "/temp/*", Err: failure, Skip: rng.IntN(8), Sticky: rng.IntN(2) == 0, Short: rng.IntN(2) == 0,
		})
		var readers []*ReadTx
		for range 6 {
			r, err := c.s.BeginRead()
			ok(t, err)
			readers = append(readers, r)
			ok(t, c.editMany(70))
			ok(t, c.checkpoint())
			ok(t, c.commit(5, 300))
		}
		broken := 0
		for _, r := range readers {
			im := c.m.at[r.LSN()]
			for _, id := range im.ids() {
				b, err := r.Block(id)
				switch {
				case errors.Is(err, snapshot.ErrBroken), errors.Is(err, syscall.EIO), errors.Is(err, block.ErrCorrupt):
					broken++
				case err != nil:
					t.Fatal(err)
				default:
					if contentOf(b) != im.blocks[id] {
						t.Fatalf("block %v at %v is wrong", id, r.LSN())
					}
					b.Release()
				}
			}
			r.Close()
		}
		if err := c.s.state.failure(); err != nil {
			t.Fatalf("temporary storage poisons: %v", err)
		}
		checkAll(t, c.s, c.m)
		mustClose(t, c.s)
	}
}

// TestFault_L10_FailedTemporaryStorageIsToldOnce: every frame that is needed from then on
// is asked of it again, and that is no news.
func TestFault_L10_FailedTemporaryStorageIsToldOnce(t *testing.T) {
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.Mkdir("/temp", 0o700))
	var told warnings
	o := smallOptions(fsys)
	o.Temp = []TempDir{{Path: "/temp", BytesMax: 8 << 20}}
	o.OverflowMax = 4 << 20
	o.Logger = told.logger()
	c := &crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(chance.Seed(t), 0))}
	c.s = mustOpen(t, o)
	for range 4 {
		ok(t, c.allocMany(80))
	}
	fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: "/temp/*", Sticky: true})
	var readers []*ReadTx
	for range 12 {
		r, err := c.s.BeginRead()
		ok(t, err)
		readers = append(readers, r)
		ok(t, c.editMany(70))
		ok(t, c.checkpoint())
	}
	for _, r := range readers {
		r.Close()
	}
	mustClose(t, c.s)
	n := 0
	for _, line := range told.list {
		if strings.Contains(line, "input/output error") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told %d times: %q", n, told.list[max(0, len(told.list)-3):])
	}
}
