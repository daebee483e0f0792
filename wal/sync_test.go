package wal

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// L7: with many clients, a Sync returns only when its commit is on disk and
// OnDurable was told of it; the horizon moves in order, one call at a time.
func TestL7_DurableBeforeVisible(t *testing.T) {
	fs := newTestFS(t)
	o := testOptions(fs)
	o.foreground = false
	o.BufferBytes = 16 << 10
	var told atomic.Uint64
	var inside atomic.Int32
	o.OnDurable = func(v block.LSN) {
		if inside.Add(1) != 1 || uint64(v) <= told.Load() {
			t.Errorf("OnDurable(%v) after %v, or concurrently", v, told.Load())
		}
		told.Store(uint64(v))
		inside.Add(-1)
	}
	l, err := Create(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	var writer sync.Mutex
	var clients sync.WaitGroup
	for c := range 16 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 7))
			for range 200 {
				lsn := appendOne(t, l, &writer, rng.IntN(3000))
				if err := l.Sync(lsn); err != nil {
					t.Error(err)
					return
				}
				if told.Load() < uint64(lsn) || l.Durable() < lsn {
					t.Errorf("LSN %v acknowledged, horizon %v, told %v", lsn, l.Durable(), told.Load())
				}
			}
		})
	}
	clients.Wait()
	s := l.Stats()
	if s.Commits != 3200 || l.End() != 3200 {
		t.Errorf("%d commits, end %v", s.Commits, l.End())
	}
	t.Logf("%d syncs for %d commits", s.Syncs, s.Commits)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if open := fs.OpenFiles(); len(open) != 0 {
		t.Errorf("open after Close: %v", open)
	}
}

func appendOne(t *testing.T, l *Log, writer *sync.Mutex, size int) block.LSN {
	writer.Lock()
	defer writer.Unlock()
	err := l.Reserve(int64(size))
	if errors.Is(err, ErrFull) {
		if err := l.Release(l.Durable() + 1); err != nil {
			t.Error(err)
		}
		err = l.Reserve(int64(size))
	}
	if err != nil {
		t.Error(err)
	}
	lsn := l.End() + 1
	if err := l.Append(lsn, make([]byte, size), true); err != nil {
		t.Error(err)
	}
	return lsn
}

// Others append while a group is being synced, and one of those that wait takes
// the role when it ends: the second group is one sync for all of them.
func TestSync_HandsTheRoleOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS(t)
		gate := make(chan struct{})
		var hold atomic.Bool
		fs.Before(func(e simfs.Event) {
			if e.Op == simfs.OpSync && hold.Load() {
				<-gate
			}
		})
		l, err := Create(testOptions(fs), 0)
		if err != nil {
			t.Fatal(err)
		}
		hold.Store(true)
		before := l.Stats().Syncs
		var clients sync.WaitGroup
		for lsn := block.LSN(1); lsn <= 20; lsn++ {
			if err := l.Append(lsn, []byte("commit"), true); err != nil {
				t.Fatal(err)
			}
			clients.Go(func() {
				if err := l.Sync(lsn); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // the first leads, the others sleep
		}
		if v := l.Durable(); v != 0 {
			t.Errorf("horizon %v before any sync returned", v)
		}
		hold.Store(false)
		gate <- struct{}{}
		clients.Wait()
		if n := l.Stats().Syncs - before; n != 2 {
			t.Errorf("%d syncs, want one for the first commit and one for the rest", n)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// R3: at the cap the next append waits for a sync, and forces one if none runs.
func TestR3_BytesInFlightAreCapped(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.BufferBytes = 10_000
	r.create()
	for range 40 {
		r.append(900)
		if n := len(r.l.active.buf) + len(r.l.flushing.buf); n > r.o.BufferBytes+headerBlockBytes {
			t.Fatalf("%d bytes in flight", n)
		}
	}
	if v := r.must().l.Durable(); v < 28 || r.l.Stats().BufferWaits == 0 {
		t.Fatalf("horizon %v of 40, %d waits", v, r.l.Stats().BufferWaits)
	}
}

// L8, B7: after the first failed write or sync nothing is acknowledged, though
// the disk works again; commits in flight have an unknown outcome; reading goes
// on. Every operation of every workload fails in turn.
func TestL8_FirstFailureSticks(t *testing.T) {
	step := 2
	if raceDetector {
		step = 11
	} else if *soak {
		step = 1
	}
	for _, w := range workloads {
		for i, fault := range []simfs.Fault{
			{}, {Late: true}, {Short: true}, {Sticky: true}, {Sync: simfs.SyncCacheNew}, {Sync: simfs.SyncCacheOld},
		} {
			for skip := i % step; failOnce(t, w.run, fault, skip); skip += step {
			}
		}
	}
}

// failOnce runs a workload whose operation number skip fails; false if there
// are not that many.
func failOnce(t *testing.T, run func(*rig), fault simfs.Fault, skip int) bool {
	t.Helper()
	r := newRig(t, newTestFS(t))
	fault.Skip = skip
	fault.Ops = simfs.OpWrite | simfs.OpSync | simfs.OpSyncDir | simfs.OpAllocate | simfs.OpCreate | simfs.OpRename | simfs.OpOpen
	armed := r.fs.Fail(fault)
	run(r)
	if armed.Fired() == 0 {
		return false
	}
	armed.Disarm()
	if r.l != nil && errors.Is(r.err, ErrFailed) {
		checkPoisoned(t, r)
	}
	if r.l != nil {
		r.l.Close()
	}
	for _, fs := range []*simfs.FS{r.fs.Crash(nil, simfs.DropAll), r.fs.Kill()} {
		n := r.after(fs)
		if n.recover(); n.err != nil {
			t.Fatalf("fault %+v: recovery: %v", fault, n.err)
		}
	}
	return true
}

func checkPoisoned(t *testing.T, r *rig) {
	t.Helper()
	l := r.l
	if closed := l.closed; !closed && !errors.Is(l.Close(), ErrFailed) {
		t.Fatal("Close after a failure has no error")
	}
	for name, err := range map[string]error{
		"Append": l.Append(l.due(), nil, true), "Release": l.Release(1), "Reserve": l.Reserve(10),
		"MarkIdle": l.MarkIdle(),
	} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s after a failure: %v", name, err)
		}
	}
	if l.End() > l.Durable() {
		if err := l.Sync(l.End()); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrFailed) {
			t.Fatalf("Sync after a failure: %v", err)
		}
	}
	if err := l.Sync(l.Durable()); err != nil {
		t.Fatalf("Sync of what is durable: %v", err)
	}
}

// L8: all who wait when the sync fails learn that the outcome is unknown, and
// what is durable can still be read.
func TestL8_WaitersInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newTestFS(t))
		gate := make(chan struct{})
		var hold atomic.Bool
		r.fs.Before(func(e simfs.Event) {
			if e.Op == simfs.OpSync && hold.Load() {
				<-gate
			}
		})
		r.create()
		r.commit(100)
		r.must()
		hold.Store(true)
		r.fs.Fail(simfs.Fault{Ops: simfs.OpSync})
		var clients sync.WaitGroup
		for lsn := block.LSN(2); lsn < 12; lsn++ {
			if err := r.l.Append(lsn, []byte("x"), true); err != nil {
				t.Fatal(err)
			}
			clients.Go(func() {
				if err := r.l.Sync(lsn); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, syscall.EIO) {
					t.Errorf("LSN %v: %v", lsn, err)
				}
			})
			synctest.Wait()
		}
		hold.Store(false)
		gate <- struct{}{}
		clients.Wait()
		r.checkRead(1, 1)
		if err := r.l.Close(); !errors.Is(err, ErrFailed) {
			t.Errorf("Close: %v", err)
		}
	})
}

// What is called out of order is refused and changes nothing.
func TestCallsOutOfOrder(t *testing.T) {
	r := logOf(t, 2)
	for name, err := range map[string]error{
		"append LSN 2 again": r.l.Append(2, nil, true),
		"append LSN 4":       r.l.Append(4, nil, true),
		"append too much":    r.l.Append(3, make([]byte, RecordBytesMax+1), true),
		"sync LSN 3":         r.l.Sync(3),
		"release below 4":    r.l.Release(4),
		"replay":             r.l.Replay(1, nil),
	} {
		if !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.commit(10)
	r.must().checkRead(1, 3)
	r.close()
	if err := r.l.Append(4, nil, true); !errors.Is(err, ErrClosed) {
		t.Errorf("append after Close: %v", err)
	}
	if err := r.must().l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// L8: a commit that was appended before Close is made durable, and whoever waits
// for it is told so, also while Close waits for a preparation.
func TestClose_WhileASpareIsPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS(t)
		gate := make(chan struct{})
		var hold atomic.Bool
		fs.Before(func(e simfs.Event) {
			if e.Op == simfs.OpCreate && hold.Load() {
				<-gate
			}
		})
		o := testOptions(fs)
		o.foreground = false
		l, err := Create(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the first spare is made
		hold.Store(true)
		if err := l.Append(1, make([]byte, SegmentBytesMin), true); err != nil { // takes it
			t.Fatal(err)
		}
		var clients sync.WaitGroup
		clients.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if err := l.Sync(1); err != nil {
			t.Errorf("sync of what Close makes durable: %v", err)
		}
		close(gate)
		clients.Wait()
		synctest.Wait()
		if open := fs.OpenFiles(); l.Durable() != 1 || len(open) != 0 {
			t.Errorf("after Close: horizon %v, open %v", l.Durable(), open)
		}
	})
}

// Close lets nobody hang: a commit that it meets is made durable or refused.
func TestClose_WithClients(t *testing.T) {
	for range 20 {
		o := testOptions(newTestFS(t))
		o.foreground = false
		l, err := Create(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		var writer sync.Mutex
		var clients sync.WaitGroup
		var acked atomic.Uint64
		for range 8 {
			clients.Go(func() {
				for {
					writer.Lock()
					err := l.Reserve(500)
					lsn := l.End() + 1
					if err == nil {
						err = l.Append(lsn, make([]byte, 500), true)
					}
					writer.Unlock()
					if err == nil {
						err = l.Sync(lsn)
					}
					if err != nil {
						if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrFull) {
							t.Error(err)
						}
						return
					}
					acked.Store(max(acked.Load(), uint64(lsn)))
				}
			})
		}
		for l.Durable() < 20 {
			if err := l.Sync(l.End()); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if v := l.Durable(); v != l.End() || uint64(v) < acked.Load() {
			t.Errorf("closed at %v with horizon %v, %v acknowledged", l.End(), v, acked.Load())
		}
	}
}

// R3: the cap is on what is in flight, to the byte: an append that just fits waits for
// nobody, the next one does.
func TestR3_TheCapIsExact(t *testing.T) {
	r := newRig(t, newTestFS(t))
	const fit = 5
	r.o.BufferBytes = fit * recordBytes(900)
	r.create()
	for range fit {
		r.append(900)
	}
	if v, n := r.must().l.Durable(), r.l.Stats().BufferWaits; v != 0 || n != 0 {
		t.Fatalf("%d records fit: horizon %v, %d waits", fit, v, n)
	}
	r.append(1)
	if v, n := r.must().l.Durable(), r.l.Stats().BufferWaits; v != fit || n != 1 {
		t.Fatalf("one more: horizon %v, %d waits", v, n)
	}
}

// R3, L7: an append that forces a sync has the syncing role like any other. Who wants to
// sync meanwhile, or to find the log at rest, waits for it: at no moment are two writing.
func TestR3_AnAppendThatSyncsHasTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newTestFS(t)
		gate := make(chan struct{})
		var hold atomic.Bool
		var inside, most atomic.Int32
		fs.Before(func(e simfs.Event) {
			if e.Op&(simfs.OpSync|simfs.OpWrite) == 0 || !hold.Load() {
				return
			}
			n := inside.Add(1)
			most.Store(max(most.Load(), n))
			<-gate
			inside.Add(-1)
		})
		o := testOptions(fs)
		o.BufferBytes = recordBytes(900)
		l, err := Create(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 900)
		if err := l.Append(1, body, true); err != nil {
			t.Fatal(err)
		}
		hold.Store(true)
		var done [4]atomic.Bool
		var clients sync.WaitGroup
		for i, f := range []func() error{
			func() error { return l.Append(2, body, true) },
			func() error { return l.Sync(1) },
			l.Settle,
			l.Close,
		} {
			clients.Go(func() {
				if err := f(); err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("%d: %v", i, err)
				}
				done[i].Store(true)
			})
			synctest.Wait() // it is writing, or waits for who is
			if done[i].Load() {
				t.Errorf("%d did not wait", i)
			}
		}
		if n := most.Load(); n != 1 {
			t.Errorf("%d write at once", n)
		}
		hold.Store(false)
		close(gate)
		clients.Wait()
	})
}
