package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// script is a workload that is cut at every event. It stops at the first error.
type script struct {
	name   string
	set    func(*Options)
	run    func(c *crashRun) error
	spread bool // over several groups
}

// crashRun is one run of a script, with what it committed.
type crashRun struct {
	t   testing.TB
	o   Options
	s   *Store
	m   *model
	rng *rand.Rand
}

func (c *crashRun) commit(n, target int) error {
	w, err := begin(c.t, c.s, c.m, c.rng)
	if err != nil {
		return err
	}
	if err := w.some(n, target); err != nil {
		return errors.Join(err, w.tx.Rollback())
	}
	_, err = w.commit(c.m)
	return err
}

// change runs f in a write transaction.
func (c *crashRun) change(f func(*writeOp) error) error {
	w, err := begin(c.t, c.s, c.m, c.rng)
	if err != nil {
		return err
	}
	if err := f(w); err != nil {
		return errors.Join(err, w.tx.Rollback())
	}
	_, err = w.commit(c.m)
	return err
}

func (c *crashRun) commits(count, n, target int) error {
	for range count {
		if err := c.commit(n, target); err != nil {
			return err
		}
	}
	return nil
}

// checkpoint waits for a whole round.
func (c *crashRun) checkpoint() error { return c.s.cleaner.awaitRound(c.s.cleaner.rounds()) }

func (c *crashRun) reopen() error {
	if err := c.s.Close(); err != nil {
		return err
	}
	s, err := Open(testDir, c.o)
	if err == nil {
		c.s = s
	}
	return err
}

// editMany changes n blocks a little: diffs, and blocks that need second copies.
func (c *crashRun) editMany(n int) error {
	return c.change(func(w *writeOp) error {
		for _, id := range w.held[:min(n, len(w.held))] {
			b, err := w.tx.Edit(id)
			if err != nil {
				return err
			}
			b.Payload()[c.rng.IntN(4000)] ^= 0xff
			w.note(b)
			b.Release()
		}
		return nil
	})
}

func (c *crashRun) freeAll(keep int) error {
	return c.change(func(w *writeOp) error {
		for len(w.held) > keep {
			if err := w.free(w.held[len(w.held)-1]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *crashRun) allocMany(n int) error {
	return c.change(func(w *writeOp) error {
		for range n {
			if err := w.alloc(); err != nil {
				return err
			}
		}
		return nil
	})
}

func inOrder(steps ...func() error) error {
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func scripts() []script {
	return []script{
		{"create and small commits", nil, func(c *crashRun) error { return c.commits(4, 3, 20) }, false},
		{"group commits", nil, groupCommits, false},
		{"checkpoints", nil, func(c *crashRun) error {
			return inOrder(func() error { return c.commits(3, 8, 40) }, c.checkpoint,
				func() error { return c.editMany(10) }, c.checkpoint,
				func() error { return c.commits(3, 5, 40) }, func() error { return c.editMany(20) }, c.checkpoint)
		}, false},
		{"grow, free, shrink", nil, func(c *crashRun) error {
			return inOrder(func() error { return c.allocMany(300) }, c.checkpoint,
				func() error { return c.freeAll(5) }, c.checkpoint,
				func() error { return c.allocMany(20) }, c.checkpoint, func() error { return c.editMany(10) })
		}, false},
		{"large transaction", nil, func(c *crashRun) error {
			return inOrder(func() error { return c.allocMany(150) }, func() error { return c.editMany(130) },
				c.checkpoint, func() error { return c.editMany(140) })
		}, false},
		{"reopen", nil, func(c *crashRun) error {
			return inOrder(func() error { return c.commits(3, 5, 20) }, c.reopen,
				func() error { return c.commits(3, 5, 20) }, c.checkpoint, c.reopen, func() error { return c.commits(2, 5, 20) })
		}, false},
		{"never durable", func(o *Options) { o.Durability = DurableNever }, func(c *crashRun) error {
			return inOrder(func() error { return c.commits(6, 5, 20) }, c.checkpoint, func() error { return c.commits(6, 5, 20) }, c.reopen)
		}, false},
		{"alloc, free, alloc", nil, func(c *crashRun) error {
			for range 4 {
				if err := inOrder(func() error { return c.allocMany(6) }, func() error { return c.editMany(4) }, func() error { return c.freeAll(1) }); err != nil {
					return err
				}
				if c.rng.IntN(2) == 0 {
					if err := c.checkpoint(); err != nil {
						return err
					}
				}
			}
			return nil
		}, false},
		{"backup", nil, backupScript, false},
		{"all over the file", nil, spreadScript, true},
	}
}

// spreadScript touches map blocks of several groups, while they are being written,
// evicted, cut off with the file's tail, and new again.
func spreadScript(c *crashRun) error {
	kicked := func(f func() error) func() error {
		return func() error { c.s.cleaner.kick(); return f() }
	}
	some := func() error { return c.commits(3, 5, 40) }
	edit := func() error { return c.editMany(10) }
	evict := func() error { squeeze(c.t, c.s); return nil }
	return inOrder(func() error { return c.allocMany(24) }, kicked(some), c.checkpoint, evict, kicked(edit), kicked(edit), c.checkpoint,
		func() error { return c.freeAll(8) }, kicked(some), c.checkpoint, func() error { return c.freeAll(3) }, c.checkpoint,
		kicked(func() error { return c.allocMany(20) }), kicked(edit), evict, c.reopen, kicked(edit), some, c.checkpoint)
}

// groupCommits: several writers, so that commits share syncs.
func groupCommits(c *crashRun) error {
	var group sync.WaitGroup
	var mu sync.Mutex // guards the model's acks
	errs := make([]error, 4)
	for i := range errs {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 0))
		group.Go(func() {
			for range 5 {
				w, err := begin(c.t, c.s, c.m, rng)
				if err == nil {
					err = w.some(3, 30)
				}
				if err != nil {
					if w != nil {
						_ = w.tx.Rollback()
					}
					errs[i] = err
					return
				}
				lsn := w.tx.Base() + 1
				if w.tx.unchanged() {
					_ = w.tx.Rollback()
					continue
				}
				c.m.at = append(c.m.at[:lsn:lsn], w.next) // the write transaction's lock guards it
				if _, err := w.tx.Commit(); err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				c.m.acked = max(c.m.acked, lsn)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func backupScript(c *crashRun) error {
	if err := c.commits(3, 10, 40); err != nil {
		return err
	}
	b, err := c.s.OpenBackup(context.Background(), BackupOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	p := &backupPull{b: b, images: map[block.ID][]byte{}}
	for !p.done {
		if err := p.pull(c.t, 7); err != nil {
			return err
		}
		if err := inOrder(func() error { return c.editMany(9) }, c.checkpoint); err != nil {
			return err
		}
	}
	return b.Close()
}

// cutAt runs a script and cuts the power after k events. It returns the disk
// as it was then, and whether the script came to its end before.
func cutAt(t testing.TB, dog *watchdog, sc script, seed uint64, k int) (*simfs.FS, *crashRun, bool) {
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	o := smallOptions(fsys)
	if sc.set != nil {
		sc.set(&o)
	}
	c := &crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(seed, 9))}
	c.m.spread = sc.spread
	fsys.CutAfter(k)
	s, err := Open(testDir, o)
	if err == nil {
		c.s = dog.watch(s)
		err = sc.run(c)
		if e := c.s.Close(); err == nil && !errors.Is(e, ErrClosed) {
			err = e
		}
	}
	if err != nil && !fsys.IsCut() {
		t.Fatalf("%s, cut after %d: %v", sc.name, k, err)
	}
	if open := fsys.OpenFiles(); len(open) > 0 && !fsys.IsCut() {
		t.Fatalf("left open: %v", open)
	}
	return fsys, c, err == nil
}

// checkAfter opens a disk as a crash left it and compares: everything that was
// acknowledged, a prefix of what was tried, nothing by half (D1, D2). then, if
// not nil, goes on with the store.
func (c *crashRun) checkAfter(fsys *simfs.FS, what string, then func(*Store, *model)) {
	t := c.t
	t.Helper()
	o := c.o
	o.FS = fsys
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatalf("%s: a legal cut is refused: %v", what, err)
	}
	lsn := s.newestLSN()
	acked := c.m.acked
	if o.Durability != DurableCommit {
		acked = 0
	}
	if lsn < acked || lsn > c.m.newest() {
		t.Fatalf("%s: reopened at LSN %v; acknowledged %v, tried %v", what, lsn, acked, c.m.newest())
	}
	m := &model{at: c.m.at[: lsn+1 : lsn+1], acked: lsn, spread: c.m.spread}
	checkAll(t, s, m)
	checkMarks(t, s, m)
	if lsn > 1 {
		checkIncremental(t, s, m, lsn/2)
	}
	if t.Failed() {
		t.Log(what)
	}
	if then != nil {
		then(s, m)
	}
	if err := s.Close(); err != nil && !fsys.IsCut() {
		t.Fatalf("%s: close: %v", what, err)
	}
}

// crashes are the states of the disk that are tried at each cut.
func crashes(fsys *simfs.FS, rng *rand.Rand, randoms int, f func(*simfs.FS, string)) {
	f(fsys.Crash(nil, simfs.DropAll), "drop all")
	f(fsys.Crash(nil, simfs.KeepAll), "keep all")
	for i := range randoms {
		f(fsys.Crash(rng, simfs.Random), fmt.Sprintf("random %d", i))
	}
}

// TestCrash_D1_D2_EveryEvent cuts the power at events of scripted workloads
// (all of them with -long), and again within the recovery that follows.
func TestCrash_D1_D2_EveryEvent(t *testing.T) {
	seed := chance.Seed(t)
	for _, sc := range scripts() {
		t.Run(sc.name, func(t *testing.T) {
			dog := newWatchdog(t)
			rng := rand.New(rand.NewPCG(seed, 3))
			fsys, _, _ := cutAt(t, dog, sc, seed, 1<<30)
			events := fsys.Events()
			cuts := min(events, 18**flagLong/slower)
			if testing.Short() {
				cuts = min(events, 8)
			}
			states := 0
			for i := range cuts {
				k := 1 + (i*events+rng.IntN(events))/cuts
				if cuts == events {
					k = 1 + i
				}
				dog.pat()
				fsys, c, _ := cutAt(t, dog, sc, seed, k)
				crashes(fsys, rng, 2, func(after *simfs.FS, how string) {
					states++
					what := fmt.Sprintf("cut after %d of %d, %s, seed %d", k, events, how, seed)
					if rng.IntN(3) == 0 {
						c.cutRecovery(after.Crash(nil, simfs.KeepAll), rng, what)
					}
					c.checkAfter(after, what, func(s *Store, m *model) {
						c.goOn(s, m, after, rng, what)
					})
				})
			}
			t.Logf("%d events, %d cuts, %d states", events, cuts, states)
		})
	}
}

// cutRecovery cuts the power once more, while the store opens and closes.
func (c *crashRun) cutRecovery(fsys *simfs.FS, rng *rand.Rand, what string) {
	k := 1 + rng.IntN(12)
	fsys.CutAfter(k)
	o := c.o
	o.FS = fsys
	if s, err := Open(testDir, o); err == nil {
		_ = s.Close()
	} else if !fsys.IsCut() {
		c.t.Fatalf("%s: a legal cut is refused: %v", what, err)
	}
	c.checkAfter(fsys.Crash(rng, simfs.Random), fmt.Sprintf("%s, again after %d", what, k), nil)
}

// goOn commits on a store that recovered, and crashes it once more: nothing of
// what a reader saw may be gone (D3), and recovery left nothing that misleads
// the next one.
func (c *crashRun) goOn(s *Store, m *model, fsys *simfs.FS, rng *rand.Rand, what string) {
	if rng.IntN(2) == 0 {
		return
	}
	again := &crashRun{t: c.t, o: c.o, s: s, m: m, rng: rng}
	m.acked = m.newest()
	for range rng.IntN(3) {
		ok(c.t, again.commit(4, 30))
	}
	if rng.IntN(2) == 0 {
		ok(c.t, again.editMany(10))
		ok(c.t, again.checkpoint())
	}
	again.checkAfter(fsys.Crash(rng, simfs.Random), what+", gone on", nil)
}

// TestCrash_B6_KillThenPower: a process that was killed leaves what is in the
// system's cache and not on disk; whoever opens next and goes by it must make
// it durable first.
func TestCrash_B6_KillThenPower(t *testing.T) {
	seed := chance.Seed(t)
	for _, sc := range scripts() {
		t.Run(sc.name, func(t *testing.T) {
			dog := newWatchdog(t)
			rng := rand.New(rand.NewPCG(seed, 4))
			fsys, _, _ := cutAt(t, dog, sc, seed, 1<<30)
			events := fsys.Events()
			cuts := min(events, 18**flagLong/slower)
			if testing.Short() {
				cuts = min(events, 8)
			}
			for range cuts {
				k := 1 + rng.IntN(events)
				dog.pat()
				fsys, c, _ := cutAt(t, dog, sc, seed, k)
				killed := fsys.Kill()
				what := fmt.Sprintf("killed after %d of %d, seed %d", k, events, seed)
				c.checkAfter(killed, what, func(s *Store, m *model) {
					m.acked = m.newest()
					again := &crashRun{t: t, o: c.o, s: s, m: m, rng: rng}
					steps := rng.IntN(4)
					if steps > 0 {
						ok(t, again.commit(4, 30))
					}
					if steps > 1 {
						ok(t, again.editMany(12))
					}
					if steps > 2 {
						killed.CutAfter(1 + rng.IntN(30))
						_ = again.checkpoint()
					}
					crashes(killed, rng, 3, func(after *simfs.FS, how string) {
						again.checkAfter(after, what+", then "+how, nil)
					})
				})
			}
		})
	}
}
