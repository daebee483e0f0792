package wal

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

var soak = flag.Bool("soak", false, "enumerate more crash states")

// workloads are the histories that are cut at every event.
var workloads = []struct {
	name string
	run  func(r *rig)
}{
	{"create", func(r *rig) { r.create(); r.commit(10) }},
	{"commit", func(r *rig) {
		r.create()
		for i := range 6 {
			r.commit(100 * (i + 1))
		}
		r.idle()
		r.commit(7000)
		r.idle()
		r.idle()
	}},
	{"group", func(r *rig) {
		r.create()
		for range 4 {
			r.append(300)
			r.append(900, 20, 1500)
			r.append(0)
			r.commit(5000)
		}
	}},
	{"switch", func(r *rig) {
		r.create()
		r.commit(50000)
		r.append(4000)
		r.append(9000) // cut in two by the end of the segment
		r.append(20000, 30000, 100)
		r.sync()
		r.commit(60000, 100000) // two more segments in one commit
		r.idle()
		r.commit(10)
	}},
	{"recycle", func(r *rig) {
		r.create()
		for range 9 {
			r.commit(23000)
			r.append(17000)
			r.commit(300)
			r.release(r.acked)
		}
	}},
	{"grow", func(r *rig) {
		r.o.LimitBytes = 3 * SegmentBytesMin
		r.create()
		r.commit(100)
		r.commit(90000, 110000, 90000)
		r.release(r.acked + 1)
		r.commit(100)
		r.commit(60000)
		r.release(r.acked + 1)
		r.commit(60000)
	}},
	{"buffer", func(r *rig) {
		r.o.BufferBytes = 8 << 10
		r.create()
		r.append(3000, 3000, 3000, 3000, 3000, 3000) // synced in the middle
		r.append(2000)
		r.commit(9000, 10, 9000)
	}},
	{"overlap", func(r *rig) {
		r.create()
		for i := range 5 {
			r.append(400)
			r.duringSync(func() { r.append(300*i, 20) })
			r.sync()
			r.append(700)
		}
		r.sync()
	}},
	{"close", func(r *rig) {
		r.create()
		r.commit(100)
		r.reopen()
		r.reopen()
		r.append(3000)
		r.reopen()
		r.commit(50000)
		r.commit(2000)
		r.close()
	}},
}

// TestCrash_EveryEvent cuts the power at every event of every workload (B2, B3,
// B8, B10) and recovers from several of the states that this may leave: every
// acknowledged commit is there, what is there is a prefix, no legal cut is
// refused, and the log goes on.
func TestCrash_EveryEvent(t *testing.T) {
	states := 6
	if raceDetector {
		states = 2
	} else if *soak {
		states = 60
	}
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			total := 0
			for k := 0; ; k++ {
				r := newRig(t, newTestFS(t))
				r.fs.CutAfter(k)
				w.run(r)
				if r.err == nil {
					break // the cut came after the end
				}
				if !errors.Is(r.err, simfs.ErrPowerCut) {
					t.Fatalf("event %d: %v", k, r.err)
				}
				for i := range states {
					total++
					checkCrash(t, r, k, i)
				}
			}
			t.Logf("%d states", total)
		})
	}
}

func crashState(r *rig, k, i int) *rig {
	mode := simfs.Random
	if i == 0 {
		mode = simfs.DropAll
	} else if i == 1 {
		mode = simfs.KeepAll
	}
	return r.after(r.fs.Crash(rand.New(rand.NewPCG(uint64(k), uint64(i))), mode))
}

// checkCrash recovers from state i of a cut after event k, goes on, and cuts and
// recovers once more without a new fault.
func checkCrash(t *testing.T, r *rig, k, i int) {
	t.Helper()
	n := crashState(r, k, i)
	if n.recover(); n.err != nil {
		t.Fatalf("cut after event %d, state %d: %v", k, i, n.err)
	}
	n.commit(1200)
	n.append(40)
	n.must().checkRead(n.redo, n.l.Durable()) // across the cut, too
	z := crashState(n, k, i)
	if z.recover(); z.err != nil {
		t.Fatalf("cut after event %d, state %d, recovered, cut again: %v", k, i, z.err)
	}
}

// TestCrash_InRecovery cuts at every event of the recovery that follows a cut at
// every event (depth 2).
func TestCrash_InRecovery(t *testing.T) {
	step := 7
	if raceDetector {
		step = 31
	} else if *soak {
		step = 1
	}
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			for k := 0; ; k += step {
				r := newRig(t, newTestFS(t))
				r.fs.CutAfter(k)
				if w.run(r); r.err == nil {
					break
				}
				for i := range 2 {
					crashRecovery(t, r, k, i*2)
				}
			}
		})
	}
}

func crashRecovery(t *testing.T, r *rig, k, i int) {
	for j := 0; ; j++ {
		n := crashState(r, k, i)
		n.fs.CutAfter(j)
		n.recover()
		n.commit(500)
		n.append(6000)
		n.commit(10)
		if n.err == nil {
			return
		}
		if !errors.Is(n.err, simfs.ErrPowerCut) {
			t.Fatalf("cuts after events %d and %d: %v", k, j, n.err)
		}
		for x := range 3 {
			z := crashState(n, k*1000+j, x)
			if z.recover(); z.err != nil {
				t.Fatalf("cuts after events %d (state %d) and %d (state %d): %v", k, i, j, x, z.err)
			}
		}
	}
}

// TestB6_KillThenCut: what recovery accepts after a kill is on disk before
// anyone reads it, also where a sync that had failed left the cache ahead of
// the disk.
func TestB6_KillThenCut(t *testing.T) {
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			for k := 0; ; k++ {
				r := newRig(t, newTestFS(t))
				r.fs.CutAfter(k)
				if w.run(r); r.err == nil {
					break
				}
				n := r.after(r.fs.Kill())
				if n.recover(); n.err != nil {
					t.Fatalf("killed after event %d: %v", k, n.err)
				}
				n.commit(1200) // in a file whose name the killed process may not have synced
				n.must()
				for x := range 4 {
					z := crashState(n, k, x)
					if z.recover(); z.err != nil {
						t.Fatalf("killed after event %d, recovered, cut (state %d): %v", k, x, z.err)
					}
				}
			}
		})
	}
}

func TestB6_FailedSyncLeftCacheAhead(t *testing.T) {
	for _, failure := range []simfs.SyncFailure{simfs.SyncPending, simfs.SyncCacheNew, simfs.SyncCacheOld} {
		t.Run(fmt.Sprint(failure), func(t *testing.T) {
			for name, write := range map[string]func(*rig){
				"commit": func(r *rig) { r.commit(2000) },
				"mark":   (*rig).idle,
			} {
				r := newRig(t, newTestFS(t)).create()
				r.commit(100)
				r.must().fs.Fail(simfs.Fault{Ops: simfs.OpSync, Sync: failure})
				if write(r); !errors.Is(r.err, ErrFailed) {
					t.Fatalf("%s through a failed sync: %v", name, r.err)
				}
				n := r.after(r.fs.Kill())
				n.recover()
				n.must().crash(simfs.DropAll).recovered()
				n.commit(300)
				n.must().crash(simfs.DropAll).recovered()
			}
		})
	}
}

// B6: a segment without records that is all that recovery needs: its header may
// be in the cache only, where its sync had failed, and the segment before it
// goes.
func TestB6_HeaderInTheCacheOnly(t *testing.T) {
	for _, failure := range []simfs.SyncFailure{simfs.SyncPending, simfs.SyncCacheNew, simfs.SyncCacheOld} {
		for copies := range 2 {
			r := logOf(t, 3).crash(simfs.DropAll)
			r.recovered()
			r.release(r.acked + 1)
			if err := r.must().l.Reserve(100); err != nil {
				t.Fatal(err)
			}
			r.fs.Fail(simfs.Fault{Ops: simfs.OpSync, Skip: copies, Sync: failure})
			if r.commit(10); !errors.Is(r.err, ErrFailed) {
				t.Fatalf("commit through a failed sync of a header: %v", r.err)
			}
			n := r.after(r.fs.Kill())
			n.o.SegmentBytes *= 2 // so that what is not needed is removed
			n.recovered()
			n.crash(simfs.KeepAll).recovered()
			n.crash(simfs.DropAll).recovered()
		}
	}
}

// L7, R5, R7: the power is cut while clients commit, a checkpoint releases, an
// idler marks and spares are made in the background: whatever was acknowledged
// to anyone, or told to OnDurable, is there.
func TestL7_CutUnderConcurrentClients(t *testing.T) {
	cuts := 40
	if raceDetector {
		cuts = 15
	} else if *soak {
		cuts = 5000
	}
	seed := chance.Seed(t)
	for run := range cuts {
		rng := rand.New(rand.NewPCG(seed, uint64(run)))
		r := newRig(t, newTestFS(t))
		r.fs.Before(nil)
		r.o.foreground = false
		r.o.BufferBytes = 1 << (12 + rng.IntN(8))
		r.o.LimitBytes = int64(3+rng.IntN(5)) * SegmentBytesMin
		var told atomic.Uint64
		r.o.OnDurable = func(v block.LSN) { told.Store(uint64(v)) }
		if r.create(); r.err != nil {
			t.Fatal(r.err)
		}
		r.fs.CutAfter(1 + rng.IntN(150))
		concurrentClients(r, rng.Uint64())
		r.acked = max(r.acked, block.LSN(told.Load()))
		r.o.OnDurable, r.o.foreground = nil, true
		n := r.after(r.fs.Crash(rng, simfs.Random))
		if n.recover(); n.err != nil {
			t.Fatalf("seed %d run %d: %v", seed, run, n.err)
		}
		n.commit(2000)
		n.must().checkRead(n.redo, n.acked)
	}
}

// concurrentClients commits from several goroutines until the power is cut, and
// notes in r what was acknowledged.
func concurrentClients(r *rig, seed uint64) {
	var writer, note sync.Mutex // writer guards the model, note what was acknowledged
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(c)))
			for {
				writer.Lock()
				lsn, err := appendRandom(r, rng)
				writer.Unlock()
				if err == nil && rng.IntN(4) > 0 {
					err = r.l.Sync(lsn)
				} else {
					lsn = 0
				}
				if err != nil && (!errors.Is(err, ErrFull) || r.fs.IsCut()) {
					return // who only finds the log full asks the disk for nothing, and is not told
				}
				note.Lock()
				r.acked = max(r.acked, lsn)
				note.Unlock()
			}
		})
	}
	clients.Go(func() {
		for !r.fs.IsCut() {
			below := r.l.Durable() + 1
			note.Lock()
			r.redo = below // as by a checkpoint that is durable
			note.Unlock()
			if r.l.Release(below) != nil || r.l.MarkIdle() != nil {
				return
			}
		}
	})
	clients.Wait()
	r.l.Close()
}

// appendRandom appends a commit to r's log and model, under the writer's lock.
func appendRandom(r *rig, rng *rand.Rand) (block.LSN, error) {
	c := commit{nonce: rng.Uint64(), sizes: make([]int, 1+rng.IntN(3))}
	total := 0
	for i := range c.sizes {
		c.sizes[i] = rng.IntN(1 << rng.IntN(16))
		total += c.sizes[i]
	}
	if err := r.l.Reserve(int64(total)); err != nil {
		return 0, err
	}
	lsn := r.l.End() + 1
	r.model[lsn], r.appended = c, lsn
	for i := range c.sizes {
		if err := r.l.Append(lsn, c.body(lsn, i), i == len(c.sizes)-1); err != nil {
			return 0, err
		}
	}
	return lsn, nil
}
