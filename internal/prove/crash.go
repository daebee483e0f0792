package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// CrashOptions of a sweep over crash states.
type CrashOptions struct {
	Seed      uint64
	Workloads []Workload    // nil: [Workloads]
	Duration  time.Duration // how long to open new states; 0: one run of each workload
	States    int           // distinct states for each run of a workload, at most; 0: all
	// Recovery is how many of the distinct states, in a thousand, have the power cut
	// again while they are recovered, at each event of that.
	Recovery int
	// RecoveryStates is how many states are tried at each of those cuts, at most; 0: all.
	RecoveryStates int
	Workers        int               // 0: as many as there are processors
	Progress       func(CrashCounts) // called now and then, by one goroutine; may be nil
}

// CrashCounts are what a sweep has done.
type CrashCounts struct {
	Runs       int   // of workloads
	Moments    int64 // cuts of the power
	States     int64 // that were made
	Distinct   int64 // by content, and so opened and compared
	InRecovery int64 // distinct states of cuts within recovery, not among the above
	Deeper     int64 // of these, cuts within the recovery from a cut within recovery
	Commits    int64 // acknowledged commits that were due, over all states opened
	Blocks     int64 // compared
	Backups    int64 // listed, over all states
	Restored   int64 // backups read back whole
	Elapsed    time.Duration
}

func (c *CrashCounts) add(d CrashCounts) {
	c.Runs += d.Runs
	c.Moments += d.Moments
	c.States += d.States
	c.Distinct += d.Distinct
	c.InRecovery += d.InRecovery
	c.Deeper += d.Deeper
	c.Commits += d.Commits
	c.Blocks += d.Blocks
	c.Backups += d.Backups
	c.Restored += d.Restored
}

func (c CrashCounts) String() string {
	return fmt.Sprintf("%d runs, %d cuts, %d states, %d distinct; in recovery %d, deeper %d; %d acknowledged commits, %d blocks compared; %d backups listed, %d read back; %v",
		c.Runs, c.Moments, c.States, c.Distinct, c.InRecovery, c.Deeper, c.Commits, c.Blocks, c.Backups, c.Restored, c.Elapsed.Round(time.Second))
}

// Failure is a promise that was not kept, and the disk that shows it.
type Failure struct {
	What string // which state, and how to make it again
	Seed uint64
	Err  error
	Disk *simfs.FS // as it was before it was opened; nil if there is none
}

func (f *Failure) Error() string { return fmt.Sprintf("%s, seed %d: %v", f.What, f.Seed, f.Err) }

// Unwrap returns what was wrong.
func (f *Failure) Unwrap() error { return f.Err }

// Crash runs workloads and cuts the power at every event. It ends at the first
// promise that is not kept, with a [*Failure].
func Crash(ctx context.Context, o CrashOptions) (CrashCounts, error) {
	if o.Workloads == nil {
		o.Workloads = Workloads()
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	began := time.Now()
	var total CrashCounts
	for round := uint64(0); ; round++ {
		for _, wl := range o.Workloads {
			if o.Duration > 0 && time.Since(began) > o.Duration || ctx.Err() != nil {
				return total, context.Cause(ctx)
			}
			counts, err := crashRun(ctx, wl, o.Seed+round, o, began)
			total.add(counts)
			total.Elapsed = time.Since(began)
			if err != nil {
				return total, err
			}
			if o.Progress != nil {
				o.Progress(total)
			}
		}
		if o.Duration == 0 {
			return total, nil
		}
	}
}

// crashRun is one run of a workload and the sweep over its moments, as far as the time
// reaches.
func crashRun(ctx context.Context, wl Workload, seed uint64, o CrashOptions, began time.Time) (CrashCounts, error) {
	r, err := record(ctx, wl, seed)
	if err == nil {
		err = r.order.Err()
	}
	if err == nil && len(r.cover.Missing()) > 0 {
		err = fmt.Errorf("never reached: %v; only %v", r.cover.Missing(), r.cover)
	}
	if err != nil {
		return CrashCounts{}, &Failure{What: fmt.Sprintf("the run of workload %q itself", wl.Name), Seed: seed, Err: err}
	}
	s := &sweep{o: o, r: r, known: make(map[uint64]block.LSN)}
	s.counts.Runs = 1
	moments := make(chan *moment)
	var workers sync.WaitGroup
	for i := range o.Workers {
		v := &verifier{s: s, rng: rand.New(rand.NewPCG(seed, uint64(i)+100))}
		workers.Go(func() {
			for m := range moments {
				if err := v.sweepMoment(ctx, m); err != nil {
					s.fail(err)
				}
			}
		})
	}
	order := rand.New(rand.NewPCG(seed, 7)).Perm(len(r.moments)) // so that a part of it is a part of all of it
	if 0 < o.States && o.States < len(order) {
		order = order[:o.States]
	}
	for _, i := range order {
		if s.failed() != nil || ctx.Err() != nil || o.Duration > 0 && time.Since(began) > o.Duration {
			break
		}
		moments <- &r.moments[i]
		s.count(CrashCounts{Moments: 1})
	}
	close(moments)
	workers.Wait()
	return s.counts, s.failed()
}

// sweep is what the workers share.
type sweep struct {
	o CrashOptions
	r *recording

	mu     sync.Mutex
	known  map[uint64]block.LSN // distinct states, and the commit that each recovered to
	counts CrashCounts
	err    error
}

func (s *sweep) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *sweep) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sweep) count(d CrashCounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.add(d)
}

// claim reports whether a state is new. If it is not, the commit that it recovered to
// has to keep what is promised now as well.
func (s *sweep) claim(sum uint64, least block.LSN) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lsn, known := s.known[sum]
	switch {
	case !known:
		s.known[sum] = unknownLSN // whoever has it finds out
	case lsn < least:
		err = fmt.Errorf("recovered to LSN %v, but LSN %v was acknowledged or seen", lsn, least)
	}
	return !known, err
}

const unknownLSN = ^block.LSN(0)

func (s *sweep) learn(sum uint64, lsn block.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[sum] = lsn
}

// verifier is one worker.
type verifier struct {
	s      *sweep
	rng    *rand.Rand
	summer simfs.Summer

	verifyAll bool // read every backup back
}

// sweepMoment tries the states of one moment.
func (v *verifier) sweepMoment(ctx context.Context, m *moment) error {
	most := 0
	if v.s.o.States > 0 {
		most = max(1, v.s.o.States/len(v.s.r.moments))
	}
	return v.try(ctx, m, most, 0, fmt.Sprintf("workload %q, cut after event %d (%v %s)", v.s.r.workload.Name, m.number, m.event.Op, m.event.File))
}

// depthMax is how often the power is cut: once in the workload, and then within
// recoveries.
const depthMax = 2

// try opens states of a moment, all or as many as are given, and goes on within the
// recovery of some of them. depth is how many recoveries were cut.
func (v *verifier) try(ctx context.Context, m *moment, most, depth int, where string) error {
	fresh, known := 0, map[int]int{}
	for _, state := range v.order(m.disk.States()) {
		if ctx.Err() != nil || most > 0 && fresh >= most {
			return nil
		}
		if known[state.Change()] >= knownMax {
			continue
		}
		disk := state.Disk()
		sum := v.summer.Sum(disk)
		isFresh, err := v.s.claim(sum, m.least())
		if err != nil {
			return &Failure{What: where + ", " + state.String(), Seed: v.s.r.seed, Err: err, Disk: disk}
		}
		counts := CrashCounts{States: 1}
		if known[state.Change()]++; isFresh {
			fresh++
			known[state.Change()] = 0
			if err := v.open(ctx, disk, sum, m, depth, where+", "+state.String(), &counts); err != nil {
				return err
			}
		}
		v.s.count(counts)
	}
	return nil
}

// knownMax is how many states of one change, drawn at random and known already, say that
// its others are known, too: zeros over zeros have hundreds of states, and all are equal.
const knownMax = 12

// order is those two states that keep nothing and all, and the others as chance has it.
func (v *verifier) order(states []simfs.State) []simfs.State {
	if len(states) > 2 {
		rest := states[2:]
		v.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return states
}

// open recovers one state and compares it.
func (v *verifier) open(ctx context.Context, disk *simfs.FS, sum uint64, m *moment, depth int, where string, counts *CrashCounts) error {
	switch depth {
	case 0:
		counts.Distinct++
	case 1:
		counts.InRecovery++
	default:
		counts.InRecovery++
		counts.Deeper++
	}
	cutAgain := depth < depthMax && v.rng.IntN(1000) < v.s.o.Recovery>>(4*depth)
	before := disk.Crash(nil, simfs.KeepAll) // for who looks into a failure
	lsn, moments, err := v.recover(ctx, disk, m, cutAgain, counts)
	if err != nil {
		return &Failure{What: where, Seed: v.s.r.seed, Err: err, Disk: before}
	}
	v.s.learn(sum, lsn)
	for i := range moments {
		at := &moments[i]
		what := fmt.Sprintf("%s, cut again after event %d of recovery (%v %s)", where, at.number, at.event.Op, at.event.File)
		if err := v.try(ctx, at, v.s.o.RecoveryStates, depth+1, what); err != nil {
			return err
		}
	}
	return nil
}

// recover opens the store of a disk, compares it with the model and closes it. With
// keep it returns the moments of all that.
func (v *verifier) recover(ctx context.Context, disk *simfs.FS, m *moment, keep bool, counts *CrashCounts) (lsn block.LSN, moments []moment, err error) {
	var seen block.LSN
	var mu sync.Mutex // guards seen and moments
	if keep {
		disk.Moments(func(ev simfs.Event, d *simfs.Moment) {
			mu.Lock()
			defer mu.Unlock()
			ev.Data = nil
			p := m.promises
			p.seen = max(p.seen, seen)
			moments = append(moments, moment{len(moments), ev, d, p})
		})
	}
	o := v.s.r.o
	o.FS = disk
	s, err := mvcc.Open(dbDir, o)
	if err != nil {
		return 0, nil, fmt.Errorf("a legal cut is refused: %w", err)
	}
	lsn, err = v.compare(s, m, counts)
	if err == nil && o.Durability == mvcc.DurableCommit {
		mu.Lock()
		seen = lsn // a reader was shown it
		mu.Unlock()
	}
	if err == nil && v.rng.IntN(32) == 0 {
		err = v.check(ctx, s)
	}
	if err == nil {
		err = v.backups(ctx, disk, m, counts)
	}
	if e := s.Close(); err == nil && e != nil {
		err = fmt.Errorf("close: %w", e)
	}
	return lsn, moments, err
}

// compare holds an open store against the model and what was promised.
func (v *verifier) compare(s *mvcc.Store, m *moment, counts *CrashCounts) (block.LSN, error) {
	r, err := s.BeginRead()
	if err != nil {
		return 0, fmt.Errorf("begin to read: %w", err)
	}
	defer r.Close()
	if r.LSN() < m.least() {
		return 0, fmt.Errorf("recovered to LSN %v, but LSN %v was acknowledged and LSN %v was seen", r.LSN(), m.acked, m.seen)
	}
	n, err := v.s.r.m.compare(s, r)
	counts.Blocks += int64(n)
	counts.Commits += int64(m.acked)
	return r.LSN(), err
}

// check proves all that Check does, the changed-block map included.
func (v *verifier) check(ctx context.Context, s *mvcc.Store) error {
	res, err := s.Check(ctx, nil)
	if err != nil {
		return err
	}
	if len(res.Problems) > 0 {
		return fmt.Errorf("check finds %v", res.Problems)
	}
	return nil
}

// backups proves that each backup that was acknowledged is listed, and now and then
// that each that is listed is whole (D9).
func (v *verifier) backups(ctx context.Context, disk *simfs.FS, m *moment, counts *CrashCounts) error {
	if _, err := disk.Lstat(repoDir + "/repository"); err != nil {
		if m.backups > 0 {
			return fmt.Errorf("%d backups were acknowledged, and there is no repository: %w", m.backups, err)
		}
		return nil
	}
	repo, err := livebackup.OpenRepository(ctx, repoDir, livebackup.RepositoryOptions{FS: disk})
	if err != nil {
		return fmt.Errorf("a legal cut is refused: %w", err)
	}
	list, err := livebackup.List(ctx, repo)
	if err != nil {
		return err
	}
	for _, made := range v.s.r.backups[:m.backups] {
		if made.gone > 0 && made.gone <= m.going {
			continue // a prune was removing it
		}
		if !slices.ContainsFunc(list, func(e livebackup.Entry) bool { return e.ID == made.id }) {
			return fmt.Errorf("backup %v was acknowledged and is not listed", made.id)
		}
	}
	for i := range list {
		counts.Backups++
		if list[i].Damage != nil || list[i].Unreadable != nil {
			return fmt.Errorf("backup %v is listed and is not whole: %w", list[i].ID, errors.Join(list[i].Damage, list[i].Unreadable))
		}
		if !v.verifyAll && v.rng.IntN(24) > 0 {
			continue
		}
		if _, err := livebackup.Verify(ctx, repo, list[i].ID, livebackup.VerifyOptions{NoRecord: true}); err != nil {
			return fmt.Errorf("backup %v is listed and is not whole: %w", list[i].ID, err)
		}
		counts.Restored++
		if v.rng.IntN(4) > 0 {
			continue
		}
		target := livebackup.RestoreTarget{Backup: list[i].ID}
		if err := v.restore(ctx, disk, repo, target, list[i].Manifest.EndLSN); err != nil {
			return fmt.Errorf("backup %v, restored: %w", list[i].ID, err)
		}
	}
	return v.archive(ctx, disk, repo, m)
}

// archive proves that the state after the newest commit that was archived can be
// restored, and now and then that it is that state (D9, D10).
func (v *verifier) archive(ctx context.Context, disk *simfs.FS, repo *livebackup.Repository, m *moment) error {
	if m.archived == 0 {
		return nil
	}
	for _, made := range v.s.r.backups[:m.backups] {
		if made.lsn > m.archived && m.going > 0 {
			return nil // what is before it may be gone, and what is behind it is not archived
		}
	}
	target := livebackup.RestoreTarget{LSN: m.archived}
	plan, err := livebackup.PlanRestore(ctx, repo, target)
	if err == nil && plan.LSN != m.archived {
		err = fmt.Errorf("the plan ends at LSN %v", plan.LSN)
	}
	if err == nil && v.rng.IntN(64) == 0 {
		err = v.restore(ctx, disk, repo, target, m.archived)
	}
	if err != nil {
		return fmt.Errorf("LSN %v was archived: %w", m.archived, err)
	}
	return nil
}

// restore makes a database as of LSN want and compares it with the model (D9).
func (v *verifier) restore(ctx context.Context, disk *simfs.FS, repo *livebackup.Repository, to livebackup.RestoreTarget, want block.LSN) error {
	const target = "/restored"
	o := v.s.r.o
	if _, err := disk.Lstat(target); err == nil {
		return nil // one is enough for a disk
	}
	res, err := livebackup.Restore(ctx, repo, to, target, livebackup.RestoreOptions{FS: disk, MaxRAM: o.MaxRAM})
	if err != nil {
		return err
	}
	o.FS, o.Temp = disk, nil
	s, err := mvcc.Open(target, o)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := s.BeginRead()
	if err != nil {
		return err
	}
	defer r.Close()
	if r.LSN() != want || res.LSN != want {
		return fmt.Errorf("it is at LSN %v, not at %v", r.LSN(), want)
	}
	_, err = v.s.r.m.compare(s, r)
	return err
}
