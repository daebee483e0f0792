package prove

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

// SnapshotOptions of a run of readers.
type SnapshotOptions struct {
	Seed     uint64
	Duration time.Duration // how long to begin new rounds; 0: until there are so many reads and snapshots
	Reads    int64
	Opened   int64
	Progress func(SnapshotCounts)
}

// SnapshotCounts are what a run of readers has done.
type SnapshotCounts struct {
	Rounds     int
	Reads      int64 // of blocks, each compared with the state at its snapshot's LSN
	Snapshots  int64 // opened
	Whole      int64 // of these, compared whole, with all that is allocated
	Live       int64 // the most that were open at one time
	Commits    int64
	Backups    int64 // pulled whole and compared
	Broken     int64 // snapshots and backups that ended so, and said it
	Spilled    int64 // originals that went to temporary storage
	Reloaded   int64 // reads of temporary storage
	Overflowed int64 // frames beyond MaxRAM
	Evicted    int64
	Elapsed    time.Duration
}

func (c SnapshotCounts) String() string {
	return fmt.Sprintf("%d rounds, %d reads compared in %d snapshots (%d of them whole, up to %d live), %d commits, %d backups; %d broken, %d spilled, %d reloaded, %d overflowed, %d evicted; %v",
		c.Rounds, c.Reads, c.Snapshots, c.Whole, c.Live, c.Commits, c.Backups, c.Broken, c.Spilled, c.Reloaded, c.Overflowed, c.Evicted, c.Elapsed.Round(time.Second))
}

// missing names what a run should have reached and did not.
func (c SnapshotCounts) missing() (names []string) {
	for _, x := range []struct {
		name string
		n    int64
	}{
		{"snapshots compared whole", c.Whole}, {"backups", c.Backups}, {"broken snapshots", c.Broken}, {"spilled originals", c.Spilled},
		{"reloaded originals", c.Reloaded}, {"overflow", c.Overflowed}, {"evicted blocks", c.Evicted},
	} {
		if x.n == 0 {
			names = append(names, x.name)
		}
	}
	return names
}

// snapshotSettings are what a store does with originals that outgrow its memory, and
// when a commit is seen.
func snapshotSettings() []func(*mvcc.Options) {
	temp := func(n int64) []mvcc.TempDir { return []mvcc.TempDir{{Path: dbDir, BytesMax: n}} }
	return []func(*mvcc.Options){
		func(o *mvcc.Options) {}, // they spill
		func(o *mvcc.Options) { o.Temp, o.OverflowMax = []mvcc.TempDir{}, 2<<20 },
		func(o *mvcc.Options) { o.Temp, o.OverflowMax = []mvcc.TempDir{}, -1 },
		func(o *mvcc.Options) { o.Temp, o.OverflowMax = temp(512<<10), 256<<10 },
		func(o *mvcc.Options) { o.EncryptTemp = true },
		func(o *mvcc.Options) { o.MaxRAM *= 8 },
		func(o *mvcc.Options) { o.Durability, o.SyncInterval = mvcc.DurableInterval, time.Millisecond },
		func(o *mvcc.Options) { o.Durability, o.Temp, o.OverflowMax = mvcc.DurableNever, temp(1<<20), -1 },
	}
}

// Snapshots has writers, many live snapshots and backups at one store, in so little
// memory that originals leave it in every way, and compares each read with the state
// at its snapshot's LSN: no more and no less is what L1 promises. A snapshot begins at
// or above all that was acknowledged before. Each seed is another history; which
// goroutine comes first it does not decide.
func Snapshots(ctx context.Context, o SnapshotOptions) (SnapshotCounts, error) {
	began := time.Now()
	var total SnapshotCounts
	settings := snapshotSettings()
	for round := uint64(0); ; round++ {
		enough := total.Reads >= o.Reads && total.Snapshots >= o.Opened && int(round) >= len(settings)
		if o.Duration > 0 {
			enough = time.Since(began) > o.Duration
		}
		if enough || ctx.Err() != nil {
			break
		}
		counts, err := snapshotRound(ctx, o.Seed+round, settings[(o.Seed+round)%uint64(len(settings))])
		total.add(counts)
		total.Elapsed = time.Since(began)
		if err != nil {
			return total, &Failure{What: "readers beside writers", Seed: o.Seed + round, Err: err}
		}
		if o.Progress != nil {
			o.Progress(total)
		}
	}
	if missed := total.missing(); total.Rounds >= len(settings) && missed != nil {
		return total, fmt.Errorf("never reached: %v", missed)
	}
	return total, context.Cause(ctx)
}

func (c *SnapshotCounts) add(d SnapshotCounts) {
	c.Rounds += d.Rounds
	c.Reads += d.Reads
	c.Snapshots += d.Snapshots
	c.Whole += d.Whole
	c.Live = max(c.Live, d.Live)
	c.Commits += d.Commits
	c.Backups += d.Backups
	c.Broken += d.Broken
	c.Spilled += d.Spilled
	c.Reloaded += d.Reloaded
	c.Overflowed += d.Overflowed
	c.Evicted += d.Evicted
}

// Sizes of a round.
const (
	snapshotWriters = 4
	snapshotReaders = 8 // goroutines
	snapshotsEach   = 8 // that each of them holds at most
	snapshotCommits = 400
	snapshotBlocks  = 300 // about: three quarters of the frames of the least memory
)

// readers is a round.
type readers struct {
	w    *world
	done atomic.Bool

	reads, snapshots, whole, broken, backups, commits atomic.Int64

	live, liveMax atomic.Int64
	mu            sync.Mutex
	err           error
}

func (r *readers) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && err != nil {
		r.err = err
	}
	if err != nil {
		r.done.Store(true)
	}
}

// snapshotRound is one store, from its creation to its end.
func snapshotRound(ctx context.Context, seed uint64, set func(*mvcc.Options)) (c SnapshotCounts, err error) {
	fs, err := newDisk()
	if err != nil {
		return c, err
	}
	var reloaded atomic.Int64
	fs.Trace(func(ev simfs.Event) {
		if ev.Op == simfs.OpRead && roleOf(ev.File) == "temporary storage" {
			reloaded.Add(1)
		}
	})
	o := smallOptions(fs)
	set(&o)
	rng := rand.New(rand.NewPCG(seed, 41))
	r := &readers{w: &world{ctx: ctx, rng: rng, fs: fs, o: o, m: newBlockModel(), cover: &Coverage{}}}
	if err := r.w.open(); err != nil {
		return c, err
	}
	for range snapshotBlocks / 50 {
		r.fail(r.w.grow(50))
	}
	var writers, others sync.WaitGroup
	for range snapshotWriters {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		writers.Go(func() { r.fail(r.write(rng)) })
	}
	for range snapshotReaders {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 2))
		others.Go(func() { r.fail(r.read(rng)) })
	}
	others.Go(func() { r.fail(r.backUp(ctx)) })
	writers.Wait()
	r.done.Store(true)
	others.Wait()
	st := r.w.s.Status()
	c = SnapshotCounts{
		Rounds: 1, Reads: r.reads.Load(), Snapshots: r.snapshots.Load(), Whole: r.whole.Load(), Live: r.liveMax.Load(), Commits: r.commits.Load(),
		Backups: r.backups.Load(), Broken: r.broken.Load(),
		Spilled: st.Cache.Spilled, Reloaded: reloaded.Load(), Overflowed: st.Cache.Overflowed, Evicted: st.Cache.Evicted,
	}
	if r.err == nil {
		r.err = r.w.look()
	}
	return c, errors.Join(r.err, r.w.s.Close(), leftOpen(fs))
}

// leftOpen is an error if a closed store still has files.
func leftOpen(fs *simfs.FS) error {
	if open := fs.OpenFiles(); len(open) > 0 {
		return fmt.Errorf("left open: %v", open)
	}
	return nil
}

// write makes its share of the commits.
func (r *readers) write(rng *rand.Rand) error {
	for range snapshotCommits / snapshotWriters {
		if r.done.Load() {
			return nil
		}
		n := 1 + rng.IntN(12)
		if rng.IntN(20) == 0 {
			n = 60
		}
		err := r.w.commitBy(rng, func(e *edit) error { return e.mixed(n, snapshotBlocks) })
		if err != nil {
			return err
		}
		r.commits.Add(1)
		if rng.IntN(64) == 0 {
			if err := r.w.checkpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

// view is an open snapshot.
type view struct {
	tx  *mvcc.ReadTx
	im  image
	ids []block.ID
}

// read keeps snapshots for a while and reads what they see.
func (r *readers) read(rng *rand.Rand) error {
	var held []view
	defer func() {
		for _, v := range held {
			r.close(v)
		}
	}()
	for !r.done.Load() {
		if len(held) < 1+rng.IntN(snapshotsEach) {
			v, err := r.open()
			if err != nil {
				return err
			}
			if v.tx == nil {
				continue
			}
			held = append(held, v)
		}
		i := rng.IntN(len(held))
		isBroken, err := r.look(rng, &held[i])
		if err != nil {
			return err
		}
		if isBroken || rng.IntN(3) == 0 {
			r.close(held[i])
			held = append(held[:i], held[i+1:]...)
		}
		runtime.Gosched() // on two processors writers would wait for every time slice
	}
	return nil
}

func (r *readers) close(v view) {
	v.tx.Close()
	r.live.Add(-1)
}

// open begins a snapshot, unless it is broken at once.
func (r *readers) open() (v view, err error) {
	w := r.w
	least := block.LSN(w.m.acked.Load())
	tx, err := w.s.BeginRead()
	if errors.Is(err, snapshot.ErrBroken) {
		r.broken.Add(1)
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("begin to read: %w", err)
	}
	r.snapshots.Add(1)
	raise64(&r.liveMax, r.live.Add(1))
	if tx.LSN() < least {
		return v, fmt.Errorf("a snapshot begins at LSN %v, LSN %v was acknowledged before", tx.LSN(), least)
	}
	im, known := w.m.image(tx.LSN())
	if !known {
		return v, fmt.Errorf("a snapshot begins at LSN %v, which was never given", tx.LSN())
	}
	return view{tx, im, im.ids()}, nil
}

func raise64(most *atomic.Int64, n int64) {
	for {
		old := most.Load()
		if n <= old || most.CompareAndSwap(old, n) {
			return
		}
	}
}

// look reads some blocks of a snapshot, or now and then everything.
func (r *readers) look(rng *rand.Rand, v *view) (isBroken bool, err error) {
	if rng.IntN(200) == 0 {
		n, err := r.w.m.compare(r.w.s, v.tx)
		r.reads.Add(int64(n))
		if errors.Is(err, snapshot.ErrBroken) {
			r.broken.Add(1)
			return true, nil
		}
		r.whole.Add(1)
		return false, err
	}
	for range 10 + rng.IntN(50) {
		id := v.ids[rng.IntN(len(v.ids))]
		b, err := v.tx.Block(id)
		if errors.Is(err, snapshot.ErrBroken) {
			r.broken.Add(1)
			if _, again := v.tx.Block(id); !errors.Is(again, snapshot.ErrBroken) {
				return true, fmt.Errorf("a snapshot was broken once, and then: %v (L10)", again)
			}
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("block %v at LSN %v: %w", id, v.tx.LSN(), err)
		}
		got := contentOf(b)
		b.Release()
		if got != v.im.blocks[id] {
			return false, fmt.Errorf("block %v at LSN %v is another version than that of the commit", id, v.tx.LSN())
		}
		r.reads.Add(1)
	}
	return false, nil
}

// backUp pulls one backup after the other and compares it.
func (r *readers) backUp(ctx context.Context) error {
	for !r.done.Load() {
		err := r.pull(ctx)
		switch {
		case errors.Is(err, snapshot.ErrBroken):
			r.broken.Add(1)
		case err != nil:
			return fmt.Errorf("backup: %w", err)
		}
		runtime.Gosched()
	}
	return nil
}

// pull is one backup, taken by a slow taker.
func (r *readers) pull(ctx context.Context) error {
	b, err := r.w.s.OpenBackup(ctx, mvcc.BackupOptions{FullSpeed: true, OnExhaustion: mvcc.ExhaustionAbort})
	if err != nil {
		return err
	}
	defer b.Close()
	im, _ := r.w.m.image(b.Info().LSN)
	size := r.w.s.BlockSize()
	buf, ids := make([]byte, 4*size), make([]block.ID, 4)
	found := 0
	for {
		n, err := b.Next(ctx, buf, ids)
		for i, id := range ids[:n] {
			want, isOurs := im.blocks[id]
			if !isOurs {
				continue // the store's own
			}
			found++
			data := buf[i*size : (i+1)*size]
			if got := contentOfBytes(data); got != want {
				return fmt.Errorf("block %v of the backup at LSN %v is another version", id, b.Info().LSN)
			}
		}
		r.reads.Add(int64(n))
		runtime.Gosched()
		switch {
		case errors.Is(err, io.EOF):
			if found != len(im.blocks) {
				return fmt.Errorf("the backup at LSN %v has %d of %d blocks", b.Info().LSN, found, len(im.blocks))
			}
			r.backups.Add(1)
			return nil
		case err != nil:
			return err
		case r.done.Load():
			return nil
		}
	}
}
