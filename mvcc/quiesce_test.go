package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// copyFiles copies a directory byte by byte to a new disk, as a person would.
func copyFiles(t testing.TB, from *simfs.FS, dir string) *simfs.FS {
	t.Helper()
	to := simfs.New()
	var walk func(string)
	walk = func(dir string) {
		ok(t, to.Mkdir(dir, 0o700))
		entries, err := from.ReadDir(dir)
		ok(t, err)
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if e.IsDir() {
				walk(name)
				continue
			}
			b, err := from.Bytes(name)
			ok(t, err)
			f, err := to.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			ok(t, err)
			_, err = f.WriteAt(b, 0)
			ok(t, errors.Join(err, f.Sync(), f.Close()))
		}
		ok(t, to.SyncDir(dir))
	}
	walk(dir)
	ok(t, to.SyncDir("/"))
	return to
}

// writesSeen collects what changes files that have a name.
type writesSeen struct {
	mu  sync.Mutex
	ops []string
}

func (w *writesSeen) watch(fsys *simfs.FS) {
	fsys.Trace(func(ev simfs.Event) {
		if ev.Op&(simfs.Events&^simfs.OpTemp) == 0 || path.Base(ev.File) == "(temporary)" {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ops = append(w.ops, fmt.Sprint(ev.Op, " ", ev.File))
	})
}

// A quiet store changes no file, for as long as it takes: not by its clock, not
// by its cleaner, not by readers that keep originals and spill them, not by a
// backup. A copy of the directory is the database as of then, closed in good
// order. Who wants to write waits, and goes on afterwards.
func TestQuiesce_CopyIsTheDatabase(t *testing.T) {
	for _, d := range []Durability{DurableCommit, DurableInterval, DurableNever} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { quietCopy(t, d) })
		})
	}
}

func quietCopy(t *testing.T, d Durability) {
	c, fsys := newCrashRun(t, chance.Seed(t), func(o *Options) { o.Durability = d })
	ok(t, c.commits(5, 20, 200))
	ok(t, c.allocMany(150))
	var old []*ReadTx
	for range 4 {
		r, err := c.s.BeginRead()
		ok(t, err)
		old = append(old, r)
		ok(t, c.editMany(120))
		ok(t, c.checkpoint())
	}
	ok(t, c.editMany(60))
	q, err := c.s.Quiesce()
	ok(t, err)
	if q.LSN != c.m.newest() {
		t.Fatalf("quiet at LSN %v, the newest commit is %v", q.LSN, c.m.newest())
	}
	var w writesSeen
	w.watch(fsys)
	time.Sleep(50 * time.Second) // of a clock that nobody waits for
	for _, r := range old {
		checkRead(t, r, c.m)
	}
	checkAll(t, c.s, c.m)
	p := openBackup(t, c.s)
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	head := async(func() { ok(t, c.s.RememberHead(numbered(1), headAt(t, c.s, q.LSN))) })
	wrote := async(func() { ok(t, c.commits(1, 5, 300)) })
	c.s.cleaner.kick()
	mustWait(t, wrote, "a writer")
	mustWait(t, head, "RememberHead")
	copied := copyFiles(t, fsys, testDir)
	fsys.Trace(nil)
	if len(w.ops) > 0 {
		t.Fatalf("a quiet store did: %v", w.ops)
	}
	q.Release()
	q.Release()
	<-wrote
	<-head
	m := &model{at: c.m.at[:q.LSN+1], acked: q.LSN}
	o := smallOptions(copied)
	ro := o
	ro.ReadOnly, ro.Temp = true, nil
	s := mustOpen(t, ro)
	if s.anchor.now.redo != q.LSN+1 {
		t.Fatalf("redo of the copy begins at %v, quiet was %v", s.anchor.now.redo, q.LSN)
	}
	checkAll(t, s, m)
	ok(t, s.Close())
	s = mustOpen(t, o)
	if s.newestLSN() != q.LSN {
		t.Fatalf("the copy is at %v, quiet was %v", s.newestLSN(), q.LSN)
	}
	checkAll(t, s, m)
	mustClose(t, s)
	for _, r := range old {
		r.Close()
	}
	checkAll(t, c.s, c.m)
	mustClose(t, c.s)
}

// R21: Close of a quiet store waits its time, then lets go by itself; whoever
// waited to write is told that the store is closed.
func TestR21_CloseWhileQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newCrashRun(t, chance.Seed(t), func(o *Options) { o.CloseWait = 3 * time.Second })
		ok(t, c.commits(3, 10, 50))
		q, err := c.s.Quiesce()
		ok(t, err)
		began := time.Now()
		ok(t, c.s.Close())
		if took := time.Since(began); took != c.o.CloseWait {
			t.Fatalf("Close took %v", took)
		}
		q.Release()
		if _, err := c.s.Quiesce(); !errors.Is(err, ErrClosed) {
			t.Fatalf("a closed store is quiet: %v", err)
		}
		s := mustOpen(t, c.o)
		checkAll(t, s, c.m)
		q, err = s.Quiesce()
		ok(t, err)
		var late error
		waiting := async(func() { _, late = s.BeginWrite() })
		mustWait(t, waiting, "a writer")
		closed := async(func() { ok(t, s.Close()) })
		mustWait(t, closed, "Close")
		q.Release() // in time
		<-closed
		<-waiting
		if !errors.Is(late, ErrClosed) {
			t.Fatalf("a writer who waited: %v", late)
		}
	})
}

// Quiesce waits for the open write transaction, and for another Quiesce; one that
// cannot bring the store to rest lets everyone go on.
func TestQuiesce_Waits(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	w, err := begin(t, c.s, c.m, c.rng)
	ok(t, err)
	ok(t, w.some(5, 20))
	var q *Quiet
	quiet := async(func() { q, err = c.s.Quiesce() })
	mustWait(t, quiet, "Quiesce")
	lsn, err2 := w.commit(c.m)
	ok(t, err2)
	<-quiet
	ok(t, err)
	if q.LSN != lsn {
		t.Fatalf("quiet at %v, committed was %v", q.LSN, lsn)
	}
	var again *Quiet
	second := async(func() { again, err = c.s.Quiesce() })
	mustWait(t, second, "a second Quiesce")
	q.Release()
	<-second
	ok(t, err)
	again.Release()
	c.s.cleaner.turn.Lock() // nobody else writes what is to fail
	ok(t, c.allocMany(5))
	fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: testDir + "/data", Sticky: true})
	c.s.cleaner.turn.Unlock()
	if _, err := c.s.Quiesce(); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("quiet without being at rest: %v", err)
	}
	if _, err := c.s.BeginWrite(); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("a writer after a failure: %v", err)
	}
	checkAll(t, c.s, c.m)
	if err := c.s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
}

// R20: a standby is quiet between commits.
func TestQuiesce_Standby(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(20))
	standby, fsys := newStandby(t, c.s, nil)
	tail := openTail(t, c.s, standby.newestLSN())
	ok(t, c.editMany(10))
	r := records(t, tail)[0]
	q, err := standby.Quiesce()
	ok(t, err)
	applied := async(func() { ok(t, standby.Apply(r)) })
	mustWait(t, applied, "Apply")
	copied := copyFiles(t, fsys, testDir)
	q.Release()
	<-applied
	s := mustOpen(t, smallOptions(copied))
	if !s.Standby() || s.newestLSN() != q.LSN || q.LSN != r.LSN-1 {
		t.Fatalf("a copy at %v of a standby quiet at %v", s.newestLSN(), q.LSN)
	}
	ok(t, s.Apply(r))
	sameBlocks(t, standby, s)
	tail.Close()
	mustClose(t, s)
	mustClose(t, standby)
	mustClose(t, c.s)
}

// A segment that the log prepares in the background is waited for.
func TestQuiesce_WaitsForTheLog(t *testing.T) {
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	g := newGates(fsys)
	c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(chance.Seed(t), 1))}
	c.s = mustOpen(t, c.o)
	made := 0 // the first commit waits for a segment; another one is made ahead
	prepared := g.next(simfs.OpRename, testDir+"/log/*.new", func(ev simfs.Event) bool {
		if ev.Op == simfs.OpRename {
			made++
		}
		return made == 2
	})
	ok(t, c.commits(2, 3, 10))
	<-prepared.reached
	var q *Quiet
	quiet := async(func() {
		var err error
		q, err = c.s.Quiesce()
		ok(t, err)
	})
	mustWait(t, quiet, "Quiesce")
	prepared.open()
	<-quiet
	q.Release()
	mustClose(t, c.s)
}
