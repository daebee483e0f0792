package mvcc

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// shared is the model for many goroutines.
type shared struct {
	mu sync.Mutex
	m  *model
}

func (s *shared) at(lsn block.LSN) image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.at[lsn]
}

func (s *shared) add(im image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.at = append(s.m.at, im)
}

// TestConcurrent_L1_L7_ReadersWritersBackups: everybody at once, in little RAM.
func TestConcurrent_L1_L7_ReadersWritersBackups(t *testing.T) {
	seed := chance.Seed(t)
	for i, set := range []func(*Options){
		func(o *Options) {},
		func(o *Options) { o.Temp = []TempDir{}; o.OverflowMax = -1 },
		func(o *Options) { o.Durability = DurableInterval; o.SyncInterval = time.Millisecond },
	} {
		o := smallOptions(simfs.New())
		set(&o)
		everybody(t, o, rand.New(rand.NewPCG(seed, uint64(i))), 120**flagLong)
	}
}

func everybody(t *testing.T, o Options, rng *rand.Rand, commits int) {
	dog := newWatchdog(t)
	s := dog.watch(mustOpen(t, o))
	sh := &shared{m: newModel()}
	var acked atomic.Uint64
	var done atomic.Bool
	var writers, others sync.WaitGroup
	for range 3 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		writers.Go(func() {
			for range commits / 3 {
				dog.pat()
				lsn := sharedCommit(t, s, sh, rng)
				for {
					old := acked.Load()
					if uint64(lsn) <= old || acked.CompareAndSwap(old, uint64(lsn)) {
						break
					}
				}
			}
		})
	}
	for range 3 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		others.Go(func() {
			for !done.Load() {
				least := block.LSN(acked.Load())
				sharedRead(t, s, sh, rng, least)
				runtime.Gosched() // on two cores writers would wait for every time slice
			}
		})
	}
	for range 2 {
		others.Go(func() {
			for !done.Load() {
				sharedBackup(t, s, sh)
				runtime.Gosched()
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			_ = s.Status()
			if res, err := s.Check(context.Background(), nil); err == nil && len(res.Problems) > 0 {
				t.Errorf("check: %v", res.Problems)
			}
			time.Sleep(time.Millisecond)
		}
	})
	writers.Wait()
	done.Store(true)
	others.Wait()
	if t.Failed() {
		t.FailNow()
	}
	checkAll(t, s, sh.m)
	mustClose(t, s)
}

func sharedCommit(t *testing.T, s *Store, sh *shared, rng *rand.Rand) block.LSN {
	tx, err := s.BeginWrite()
	if err != nil {
		t.Error(err)
		return 0
	}
	lsn := tx.Base()
	base := sh.at(lsn)
	w := &writeOp{t: t, rng: rng, tx: tx, next: base.clone(), held: base.ids()}
	n := rng.IntN(20)
	if rng.IntN(15) == 0 {
		n = 70
	}
	err = w.some(n, 250)
	if err == nil && !tx.unchanged() && rng.IntN(10) > 0 {
		sh.add(w.next)
		lsn, err := tx.Commit()
		if err != nil {
			t.Error(err)
		}
		return lsn
	}
	if err != nil && !errors.Is(err, ErrTxTooLarge) {
		t.Error(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if s.opts.Durability != DurableCommit {
		return 0 // what it saw need not be visible yet
	}
	return lsn
}

func sharedRead(t *testing.T, s *Store, sh *shared, rng *rand.Rand, least block.LSN) {
	r, err := s.BeginRead()
	if errors.Is(err, snapshot.ErrBroken) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if s.opts.Durability == DurableCommit && r.LSN() > s.log.Durable() {
		t.Errorf("a reader sees %v, durable is %v (L7)", r.LSN(), s.log.Durable())
	}
	if r.LSN() < least {
		t.Errorf("a reader sees %v, acknowledged before was %v", r.LSN(), least)
	}
	im := sh.at(r.LSN())
	ids := im.ids()
	for range rng.IntN(60) {
		if len(ids) == 0 {
			return
		}
		id := ids[rng.IntN(len(ids))]
		b, err := r.Block(id)
		if errors.Is(err, snapshot.ErrBroken) {
			if _, err := r.Block(id); !errors.Is(err, snapshot.ErrBroken) {
				t.Errorf("broken once, then %v (L10)", err)
			}
			return
		}
		if err != nil {
			t.Errorf("block %v at %v: %v", id, r.LSN(), err)
			return
		}
		if got := contentOf(b); got != im.blocks[id] {
			t.Errorf("block %v at %v is %v, want %v", id, r.LSN(), got, im.blocks[id])
		}
		b.Release()
	}
}

func sharedBackup(t *testing.T, s *Store, sh *shared) {
	b, err := s.OpenBackup(context.Background(), BackupOptions{OnExhaustion: ExhaustionAbort}) // the state at its LSN, or broken
	if errors.Is(err, snapshot.ErrBroken) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	p := &backupPull{b: b, images: map[block.ID][]byte{}}
	im := sh.at(b.info.LSN)
	for !p.done {
		if err := p.pull(t, 8); err != nil {
			if !errors.Is(err, snapshot.ErrBroken) {
				t.Error(err)
			}
			return
		}
	}
	for id, want := range im.blocks {
		got, ok := p.images[id]
		if !ok {
			t.Errorf("backup of %v lacks block %v", b.info.LSN, id)
			return
		}
		tr, reason := block.Verify(got, id, s.data.seed)
		if c := contentOf(Block{v: &blockcache.Version{Type: tr.Type}, data: got}); reason != "" || c != want {
			t.Errorf("backup of %v has block %v as %v (%s), want %v", b.info.LSN, id, c, reason, want)
		}
	}
}
