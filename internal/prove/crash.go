package prove

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/hostmem"
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
	// Enough ends the sweep before Duration, when there are that many distinct states, and
	// EnoughInRecovery of cuts within recovery beside them; both 0: it does not.
	Enough, EnoughInRecovery int64
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
	Distinct   int64 // by content of all files
	Opened     int64 // distinct databases, in recovery too: opened and compared
	InRecovery int64 // distinct states of cuts within recovery, not among the above
	Deeper     int64 // of these, cuts within the recovery from a cut within recovery
	Commits    int64 // acknowledged commits that were due, over all states opened
	Blocks     int64 // compared
	Closed     int64 // states whose store was closed in good order, opened again and compared again
	Backups    int64 // listed, over all states
	Restored   int64 // backups read back whole
	Elapsed    time.Duration
}

func (c *CrashCounts) add(d CrashCounts) {
	c.Runs += d.Runs
	c.Moments += d.Moments
	c.States += d.States
	c.Distinct += d.Distinct
	c.Opened += d.Opened
	c.Deeper += d.Deeper
	c.InRecovery += d.InRecovery
	c.Commits += d.Commits
	c.Blocks += d.Blocks
	c.Closed += d.Closed
	c.Backups += d.Backups
	c.Restored += d.Restored
}

// isEnough reports whether the sweep has done what was asked for.
func (o *CrashOptions) isEnough(c CrashCounts) bool {
	return o.Enough+o.EnoughInRecovery > 0 && c.Distinct >= o.Enough && c.InRecovery >= o.EnoughInRecovery
}

func (c CrashCounts) String() string {
	return fmt.Sprintf("%d runs, %d cuts, %d states, %d distinct; in recovery %d, deeper %d; %d databases opened, %d closed and opened again, %d acknowledged commits, %d blocks compared; %d backups listed, %d read back; %v",
		c.Runs, c.Moments, c.States, c.Distinct, c.InRecovery, c.Deeper, c.Opened, c.Closed, c.Commits, c.Blocks, c.Backups, c.Restored, c.Elapsed.Round(time.Second))
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
	// Every state is a machine of its own, with memory that the next one can have.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	_ = hostmem.Reuse(2 * o.Workers)
	defer hostmem.Reuse(0)
	began := time.Now()
	var total CrashCounts
	for round := uint64(0); ; round++ {
		for _, wl := range o.Workloads {
			if o.Duration > 0 && time.Since(began) > o.Duration || o.isEnough(total) || ctx.Err() != nil {
				return total, context.Cause(ctx)
			}
			counts, err := crashRun(ctx, wl, o.Seed+round, o, began, total)
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
// reaches, or what so far was done is enough.
func crashRun(ctx context.Context, wl Workload, seed uint64, o CrashOptions, began time.Time, before CrashCounts) (CrashCounts, error) {
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
	if wl.dear > 1 { // fewer of them
		o.States, o.Recovery = (o.States+wl.dear-1)/wl.dear, (o.Recovery+wl.dear-1)/wl.dear
	}
	s := &sweep{o: o, r: r, began: began, known: make(map[uint64]bool), stores: make(map[uint64]recovered), listed: make(map[listing]bool)}
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
		if s.failed() != nil || s.isOver(ctx) || s.isEnough(before) {
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
	o     CrashOptions
	r     *recording
	began time.Time

	mu     sync.Mutex
	known  map[uint64]bool      // distinct states
	stores map[uint64]recovered // distinct databases
	listed map[listing]bool     // repositories that were proven
	counts CrashCounts
	err    error
}

// recovered is what became of a database.
type recovered struct {
	lsn   block.LSN // the commit that it recovered to; unknownLSN while someone finds out
	least block.LSN // and that it has to keep
}

// listing is a repository, and what of the promises it has to keep.
type listing struct {
	sum            uint64
	backups, going int
	archived       block.LSN
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

// isOver reports whether nothing new is to be begun.
func (s *sweep) isOver(ctx context.Context) bool {
	return ctx.Err() != nil || s.o.Duration > 0 && time.Since(s.began) > s.o.Duration
}

func (s *sweep) isEnough(before CrashCounts) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before.add(s.counts)
	return s.o.isEnough(before)
}

func (s *sweep) count(d CrashCounts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.add(d)
}

// claim reports whether a state is new, and whether its database is. A database that is
// not has to keep what is promised now as well: what becomes of it depends on nothing
// but its own files, and what it recovers to was compared once.
func (s *sweep) claim(sum, db uint64, least block.LSN) (fresh, open bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = !s.known[sum]
	s.known[sum] = true
	is, known := s.stores[db]
	switch {
	case !known:
		is.lsn = unknownLSN // whoever has it finds out
	case is.lsn < least:
		err = tooOld(is.lsn, least)
	}
	is.least = max(is.least, least)
	s.stores[db] = is
	return fresh, !known, err
}

const unknownLSN = ^block.LSN(0)

// learn notes what a database recovered to. Others may have met it meanwhile, who were
// promised more.
func (s *sweep) learn(db uint64, lsn block.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.stores[db]
	is.lsn = lsn
	s.stores[db] = is
	if lsn < is.least {
		return tooOld(lsn, is.least)
	}
	return nil
}

func tooOld(lsn, least block.LSN) error {
	return fmt.Errorf("recovered to LSN %v, but LSN %v was acknowledged or seen", lsn, least)
}

// isListed reports whether a repository was proven to keep the same promises.
func (s *sweep) isListed(l listing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed[l]
}

func (s *sweep) list(l listing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed[l] = true
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
	opened, dry, known := 0, 0, map[int]int{}
	for _, state := range v.order(m.disk.States()) {
		if v.s.isOver(ctx) || most > 0 && (opened >= most || dry >= dryMax) {
			return nil
		}
		if known[state.Change()] >= knownMax {
			continue
		}
		counts := CrashCounts{States: 1}
		fresh, err := v.state(ctx, state, m, depth, where, &counts)
		if err != nil {
			return err
		}
		known[state.Change()]++
		if dry++; fresh {
			opened++
			dry, known[state.Change()] = 0, 0
		}
		v.s.count(counts)
	}
	return nil
}

// knownMax is how many states of one change, drawn at random and known already, say that
// its others are known, too: zeros over zeros have hundreds of states, and all are equal.
const knownMax = 12

// dryMax is the same for a moment of which not all states are asked for: there are others.
const dryMax = 24

// order is those two states that keep nothing and all, and the others as chance has it.
func (v *verifier) order(states []simfs.State) []simfs.State {
	if len(states) > 2 {
		rest := states[2:]
		v.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return states
}

// state makes one state and proves what is new about it: the database, the repository,
// or nothing.
func (v *verifier) state(ctx context.Context, state simfs.State, m *moment, depth int, where string, counts *CrashCounts) (fresh bool, err error) {
	disk := state.Disk()
	parts := v.summer.Parts(disk)
	db, repo := parts[path.Base(dbDir)], parts[path.Base(repoDir)]
	fresh, open, err := v.s.claim(db^bits.RotateLeft64(repo, 32), db, m.least())
	if fresh {
		counts.distinct(depth)
	}
	var moments []moment
	if err == nil && open {
		moments, err = v.open(ctx, disk, db, m, depth, counts)
	}
	if err == nil && fresh {
		err = v.backups(ctx, state, disk, repo, m, counts)
	}
	if err != nil {
		return fresh, &Failure{What: where + ", " + state.String(), Seed: v.s.r.seed, Err: err, Disk: state.Disk()} // as it was before
	}
	for i := range moments {
		at := &moments[i]
		what := fmt.Sprintf("%s, %v, cut again after event %d of recovery (%v %s)", where, state, at.number, at.event.Op, at.event.File)
		if err := v.try(ctx, at, v.s.o.RecoveryStates, depth+1, what); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// distinct counts a state that was not met before.
func (c *CrashCounts) distinct(depth int) {
	switch depth {
	case 0:
		c.Distinct++
	case 1:
		c.InRecovery++
	default:
		c.InRecovery++
		c.Deeper++
	}
}

// open recovers a database and compares it. It returns the moments of some.
func (v *verifier) open(ctx context.Context, disk *simfs.FS, db uint64, m *moment, depth int, counts *CrashCounts) ([]moment, error) {
	counts.Opened++
	cutAgain := depth < depthMax && v.rng.IntN(1000<<(4*depth)) < v.s.o.Recovery
	lsn, moments, err := v.recover(ctx, disk, m, cutAgain, counts)
	if err != nil {
		return nil, err
	}
	return moments, v.s.learn(db, lsn)
}

// recover opens the store of a disk and compares it with the model. Then the power is
// off, or, of some and with keep, the store is closed in good order. With keep it returns
// the moments of all that.
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
	s, lsn, err := v.opened(ctx, disk, m, counts)
	if err != nil {
		return 0, nil, err
	}
	if v.s.r.o.Durability == mvcc.DurableCommit {
		mu.Lock()
		seen = lsn // a reader was shown it
		mu.Unlock()
	}
	if !keep && v.rng.IntN(closedOf) > 0 {
		disk.CutAfter(0) // what Close would write is the matter of other states
		_ = s.Close()
		return lsn, nil, nil
	}
	if err := s.Close(); err != nil {
		return 0, nil, fmt.Errorf("close: %w", err)
	}
	disk.Moments(nil)
	counts.Closed++
	if s, _, err = v.opened(ctx, disk, m, counts); err != nil {
		return 0, nil, fmt.Errorf("opened again behind a close: %w", err)
	}
	disk.CutAfter(0)
	_ = s.Close()
	return lsn, moments, nil
}

// closedOf is of how many stores one is closed in good order, and opened and compared
// again: what recovery and Close have written is a state, too.
const closedOf = 8

// opened is the store of a disk, open and compared with the model.
func (v *verifier) opened(ctx context.Context, disk *simfs.FS, m *moment, counts *CrashCounts) (*mvcc.Store, block.LSN, error) {
	o := v.s.r.o
	o.FS = disk
	s, err := mvcc.Open(dbDir, o)
	if err != nil {
		return nil, 0, fmt.Errorf("a legal cut is refused: %w", err)
	}
	lsn, err := v.compare(s, m, counts)
	if err == nil && v.rng.IntN(32) == 0 {
		err = v.check(ctx, s)
	}
	if err != nil {
		_ = s.Close() // the first error is the one to tell
		return nil, 0, err
	}
	return s, lsn, nil
}

// whole proves all of a disk at once: its store, which is closed in good order, and its
// backups.
func (v *verifier) whole(ctx context.Context, disk *simfs.FS, m *moment, counts *CrashCounts) error {
	s, _, err := v.opened(ctx, disk, m, counts)
	if err != nil {
		return err
	}
	err = v.list(ctx, disk, m, counts)
	if e := s.Close(); err == nil && e != nil {
		err = fmt.Errorf("close: %w", e)
	}
	return err
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
// that each that is listed is whole (D9). Of a repository that was proven to keep the
// same promises nothing is asked again. The store may be closed and its disk without
// power: what is read is read from the state made once more.
func (v *verifier) backups(ctx context.Context, state simfs.State, disk *simfs.FS, sum uint64, m *moment, counts *CrashCounts) error {
	this := listing{sum, m.backups, m.going, m.archived}
	if v.s.isListed(this) {
		return nil
	}
	if disk.IsCut() {
		disk = state.Disk()
	}
	if err := v.list(ctx, disk, m, counts); err != nil {
		return err
	}
	v.s.list(this)
	return nil
}

func (v *verifier) list(ctx context.Context, disk *simfs.FS, m *moment, counts *CrashCounts) error {
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
