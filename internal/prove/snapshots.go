package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// # The checker of snapshots
//
// A round is a store with so little memory that originals leave it in every way, and
// three kinds of goroutines at it:
//
//   - Writers (here). What they do most is what makes versions differ from place to
//     place: a block is changed, brought into place, changed once more, and freed
//     before that is in place, too; many are freed at once, and taken again later.
//   - Readers, with several snapshots each (snapshotreads.go). Each read is compared.
//     They come back to blocks that they have read, and above all to those that
//     were changed or freed since.
//   - Takers of backups, full ones and incrementals at once, slow ones and fast ones
//     (takers.go). What each ends with is compared whole.
//
// Commits keep pace with reads: who writes waits until so many blocks were compared.
// Counters say what was reached, and a run that did not reach all of it fails.

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
	Rounds       int
	Reads        int64 // of blocks, each compared with the state at its snapshot's LSN
	Again        int64 // of these, of a block that was changed or freed since the same snapshot read it
	Freed        int64 // of these, of a block that was free by then
	Snapshots    int64 // opened
	Whole        int64 // of these, compared whole, with all that is allocated
	Live         int64 // the most that were open at one time
	Commits      int64
	Backups      int64 // full ones, taken whole and compared
	Incrementals int64 // the same; with their base they were the state at their LSN
	Forward      int64 // of both, those that fell forward
	Left         int64 // by their takers, half way
	Broken       int64 // snapshots and backups that ended so, and said it
	Spilled      int64 // originals that went to temporary storage
	Reloaded     int64 // reads of temporary storage
	Overflowed   int64 // frames beyond MaxRAM
	Evicted      int64
	Elapsed      time.Duration
}

func (c SnapshotCounts) String() string {
	return fmt.Sprintf("%d rounds, %d reads compared (%d of what was changed since the snapshot had read it, %d of free blocks) in %d snapshots (%d of them whole, up to %d live), %d commits; %d full backups, %d incrementals, %d of both fell forward, %d left; %d broken, %d spilled, %d reloaded, %d overflowed, %d evicted; %v",
		c.Rounds, c.Reads, c.Again, c.Freed, c.Snapshots, c.Whole, c.Live, c.Commits, c.Backups, c.Incrementals, c.Forward, c.Left,
		c.Broken, c.Spilled, c.Reloaded, c.Overflowed, c.Evicted, c.Elapsed.Round(time.Second))
}

// missing names what a run should have reached and did not.
func (c SnapshotCounts) missing() (names []string) {
	rare := int64(max(0, 24-c.Rounds)) // what each round reaches about once is not asked of few
	for _, x := range []struct {
		name string
		n    int64
	}{
		{"second reads of what was changed", c.Again}, {"reads of free blocks", c.Freed}, {"snapshots compared whole", c.Whole},
		{"full backups", c.Backups}, {"incrementals", c.Incrementals},
		{"backups that fell forward", c.Forward + rare}, {"backups that were left", c.Left + rare},
		{"broken snapshots", c.Broken}, {"spilled originals", c.Spilled}, {"reloaded originals", c.Reloaded}, {"overflow", c.Overflowed},
		{"evicted blocks", c.Evicted},
	} {
		if x.n == 0 {
			names = append(names, x.name)
		}
	}
	return names
}

func (c *SnapshotCounts) add(d SnapshotCounts) {
	c.Rounds += d.Rounds
	c.Reads += d.Reads
	c.Again += d.Again
	c.Freed += d.Freed
	c.Snapshots += d.Snapshots
	c.Whole += d.Whole
	c.Live = max(c.Live, d.Live)
	c.Commits += d.Commits
	c.Backups += d.Backups
	c.Incrementals += d.Incrementals
	c.Forward += d.Forward
	c.Left += d.Left
	c.Broken += d.Broken
	c.Spilled += d.Spilled
	c.Reloaded += d.Reloaded
	c.Overflowed += d.Overflowed
	c.Evicted += d.Evicted
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
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // each round is a machine of its own
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
			return total, &Failure{What: fmt.Sprintf("readers beside writers, after %d reads", total.Reads), Seed: o.Seed + round, Err: err}
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

// Sizes of a round.
const (
	snapshotWriters = 4
	snapshotReaders = 8 // goroutines
	snapshotTakers  = 3 // of backups
	snapshotsEach   = 8 // that each of the readers holds at most
	snapshotCommits = 400
	snapshotPace    = 400 // reads for each commit
	snapshotBlocks  = 330 // at most, about: most of the frames of the least memory
	snapshotIDs     = 1 << 12
)

// readers is a round.
type readers struct {
	w       *world
	changed [snapshotIDs]atomic.Uint64 // by block: the newest commit that changed it, twice, and one more if that freed it
	done    atomic.Bool                // no more commits
	over    atomic.Bool                // and no more backups
	beside  chan view                  // snapshots for who takes a backup to look at, the newest ones

	reads, again, freed, snapshots, whole, broken, commits, backups, incrementals, forward, left atomic.Int64

	live, liveMax atomic.Int64

	mu    sync.Mutex
	moved sync.Cond // reads, commits, done
	paced int64     // what reads count for who waits with a commit
	err   error
	taken []taken // the last backups that ended
}

func newReaders(w *world) *readers {
	r := &readers{w: w, beside: make(chan view, besideMax)}
	r.moved.L = &r.mu
	return r
}

func (r *readers) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.done.Store(true)
	r.over.Store(true)
	r.moved.Broadcast()
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
	r := newReaders(&world{ctx: ctx, rng: rng, fs: fs, o: o, m: newBlockModel()})
	if err := r.w.open(); err != nil {
		return c, err
	}
	for range snapshotBlocks / 50 {
		r.fail(r.w.grow(50))
	}
	r.run(ctx, rng)
	st := r.w.s.Status()
	c = r.counts()
	c.Spilled, c.Reloaded, c.Overflowed, c.Evicted = st.Cache.Spilled, reloaded.Load(), st.Cache.Overflowed, st.Cache.Evicted
	if r.err == nil {
		r.err = r.w.look()
	}
	return c, errors.Join(r.err, r.w.s.Close(), leftOpen(fs))
}

// run has everybody at work until the commits are made and the backups ended.
func (r *readers) run(ctx context.Context, rng *rand.Rand) {
	var writers, takers, others sync.WaitGroup
	start := func(group *sync.WaitGroup, n int, kind uint64, f func(*rand.Rand) error) {
		for range n {
			rng := rand.New(rand.NewPCG(rng.Uint64(), kind))
			group.Go(func() { r.fail(f(rng)) })
		}
	}
	start(&writers, snapshotWriters-1, 1, r.write)
	start(&writers, 1, 4, r.doom)
	start(&others, snapshotReaders, 2, r.read)
	start(&takers, snapshotTakers, 3, func(rng *rand.Rand) error { return r.backUp(ctx, rng) })
	writers.Wait()
	takers.Wait()
	r.over.Store(true)
	others.Wait()
	close(r.beside)
	for v := range r.beside {
		r.close(v)
	}
}

func (r *readers) counts() SnapshotCounts {
	return SnapshotCounts{
		Rounds: 1, Reads: r.reads.Load(), Again: r.again.Load(), Freed: r.freed.Load(), Snapshots: r.snapshots.Load(), Whole: r.whole.Load(),
		Live: r.liveMax.Load(), Commits: r.commits.Load(), Backups: r.backups.Load(), Incrementals: r.incrementals.Load(),
		Forward: r.forward.Load(), Left: r.left.Load(), Broken: r.broken.Load(),
	}
}

// leftOpen is an error if a closed store still has files.
func leftOpen(fs *simfs.FS) error {
	if open := fs.OpenFiles(); len(open) > 0 {
		return fmt.Errorf("left open: %v", open)
	}
	return nil
}

// write makes commits of all kinds.
func (r *readers) write(rng *rand.Rand) error {
	for !r.done.Load() {
		r.turn()
		err := r.commit(rng, func(e *edit) error {
			target := targetAt(e.tx.Base())
			switch roll := rng.IntN(20); {
			case len(e.held) < target && roll < 12:
				return e.grow(min(target-len(e.held), 1+rng.IntN(16)))
			case roll == 19 && rng.IntN(2) == 0:
				return e.mixed(60, target)
			}
			return e.mixed(1+rng.IntN(12), target)
		})
		if err == nil && rng.IntN(64) == 0 {
			err = r.w.checkpoint()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// targetAt is how many blocks are to be in use: many for some commits, then fewer, so that
// what is freed stays free for a while.
func targetAt(lsn block.LSN) int {
	if lsn/32%2 == 0 {
		return snapshotBlocks
	}
	return snapshotBlocks * 2 / 3
}

// doom has blocks changed, brought into place, changed in memory only, and freed before that
// is in place, too: what their places hold is not their last version. Of that there is a
// snapshot, for who takes a backup.
func (r *readers) doom(rng *rand.Rand) error {
	for !r.done.Load() {
		var list []block.ID
		change := func(e *edit) error {
			for half := len(e.held) / 2; len(list) == 0 || len(list) < 32 && rng.IntN(16) > 0; { // the lowest that are free are taken first
				list = append(list, e.held[half+rng.IntN(half*4/5)])
			}
			return e.changeAll(list)
		}
		r.turn()
		err := inOrder(func() error { return r.commit(rng, change) }, r.w.checkpoint, func() error { return r.commit(rng, change) })
		if err != nil {
			return err
		}
		if err := r.hand(); err != nil {
			return err
		}
		r.after(rng.Int64N(3))
		if err := r.commit(rng, func(e *edit) error { return e.freeAll(list) }); err != nil {
			return err
		}
	}
	return nil
}

// commit makes one commit, and says which blocks it changed.
func (r *readers) commit(rng *rand.Rand, f func(*edit) error) error {
	var made *edit
	var lsn block.LSN
	err := r.w.commitBy(rng, func(e *edit) error {
		made, lsn = e, e.tx.Base()+1
		return f(e)
	})
	if err != nil {
		return err
	}
	for _, c := range made.done {
		if c.id >= snapshotIDs {
			return fmt.Errorf("block %v is in use, and %d are enough for a round", c.id, snapshotIDs)
		}
		mark := uint64(lsn) << 1
		if c.freed {
			mark++
		}
		raise(&r.changed[c.id], block.LSN(mark))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.commits.Add(1) >= snapshotCommits {
		r.done.Store(true)
	}
	r.moved.Broadcast()
	return nil
}

// turn waits until so much was read that a commit is due.
func (r *readers) turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.done.Load() && r.paced < snapshotPace*r.commits.Load() {
		r.moved.Wait()
	}
}

// pace counts n reads for who waits with a commit.
func (r *readers) pace(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.paced / snapshotPace
	r.paced += int64(n)
	if r.paced/snapshotPace != before {
		r.moved.Broadcast()
	}
}

// after waits for so many commits more, or the last one.
func (r *readers) after(commits int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for until := r.commits.Load() + commits; !r.done.Load() && r.commits.Load() < until; {
		r.moved.Wait()
	}
}
