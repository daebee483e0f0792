package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/wal"
)

// FaultOptions of a sweep over failing operations.
type FaultOptions struct {
	Seed     uint64
	Duration time.Duration // how long to begin new rounds; 0: one round
	Each     int           // how many of a call site's operations are failed by each kind of fault; 0: one
	Kinds    int           // how many kinds of fault each call site gets; 0: all
	Pairs    int           // how many times two faults are injected into one run, drawn by the seed
	Progress func(FaultCounts)
}

// FaultCounts are what a sweep over faults has done.
type FaultCounts struct {
	Runs       int            // of the workload
	Injected   int            // faults that struck
	Pairs      int            // runs in which two struck, of those that were to
	InRecovery int            // faults that struck within the recovery from a power cut, not among the above
	Sites      int            // call sites that asked the file system for something
	Hit        int            // of these, those of which an operation failed
	Told       int            // lost writes of which somebody else than the writer was told
	Failed     int            // runs after which the store had failed, and said so
	Backups    int            // that were acknowledged, and read back whole after the fault
	Elapsed    time.Duration  //
	Missed     []string       // call sites that were never hit
	Kinds      map[string]int // faults that struck, by kind
}

func (c FaultCounts) String() string {
	return fmt.Sprintf("%d runs, %d faults struck, in %d runs two of them, %d more within recovery, %d of %d call sites hit, of %d lost writes somebody else was told, %d runs failed the store, %d backups read back; %v",
		c.Runs, c.Injected, c.Pairs, c.InRecovery, c.Hit, c.Sites, c.Told, c.Failed, c.Backups, c.Elapsed.Round(time.Second))
}

// Fault runs a workload again and again, each time with one operation that fails, at
// every call site, in every way. It ends at the first promise that is not kept.
func Fault(ctx context.Context, o FaultOptions) (FaultCounts, error) {
	began := time.Now()
	f := &faultSweep{ctx: ctx, o: o, began: began, sites: newFaultSites()}
	f.counts.Kinds = map[string]int{}
	for round := uint64(0); ; round++ {
		if err := f.round(o.Seed + round); err != nil {
			return f.done(), err
		}
		if o.Duration == 0 || time.Since(began) > o.Duration || ctx.Err() != nil {
			counts := f.done()
			return counts, errors.Join(context.Cause(ctx), f.missed())
		}
	}
}

type faultSweep struct {
	ctx    context.Context
	began  time.Time
	o      FaultOptions
	sites  *faultSites
	counts FaultCounts
}

func (f *faultSweep) done() FaultCounts {
	c := f.counts
	c.Elapsed = time.Since(f.began)
	for _, s := range f.sites.All() {
		c.Sites++
		if f.sites.Struck(s) > 0 {
			c.Hit++
		} else {
			c.Missed = append(c.Missed, s.String())
		}
	}
	return c
}

// missed is an error if a call site to which runs without a fault come was never hit.
// Those that only another failure leads to, a run may come to once and not again.
func (f *faultSweep) missed() error {
	if f.ctx.Err() != nil {
		return nil // it was told to stop
	}
	var list []string
	for _, s := range f.sites.All() {
		if f.sites.Struck(s) == 0 && f.sites.under[s] == nil {
			list = append(list, s.String())
		}
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("no operation failed of these call sites, to which a run without a fault comes: %s", strings.Join(list, "; "))
}

// round learns the call sites from runs without a fault, and fails each, and those that
// pairs of faults lead to as well.
func (f *faultSweep) round(seed uint64) error {
	for _, patient := range []bool{false, false, true} { // which goroutine comes first decides about some
		if err := f.run(seed, nil, patient); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(seed, 21))
	done := map[simfs.Site]bool{}
	if err := f.failSites(seed, done, rng); err != nil {
		return err
	}
	if err := f.failPairs(seed, rng); err != nil {
		return err
	}
	return f.failSites(seed, done, rng)
}

// failSites fails operations of every call site that is not done.
func (f *faultSweep) failSites(seed uint64, done map[simfs.Site]bool, rng *rand.Rand) error {
	for more := true; more; { // a run with a fault shows sites that others do not have
		more = false
		for _, s := range f.sites.All() {
			if done[s] || f.ctx.Err() != nil {
				continue
			}
			done[s], more = true, true
			if err := f.failSite(seed, s, rng); err != nil {
				return err
			}
		}
	}
	return nil
}

// failPairs has two operations fail in one run, of any two call sites: what comes after
// a failure is where the less trodden paths are.
func (f *faultSweep) failPairs(seed uint64, rng *rand.Rand) error {
	sites := f.sites.All()
	draw := func() *injection {
		s := sites[rng.IntN(len(sites))]
		kinds := kindsOf(s)
		runs := max(f.counts.Runs, 1)
		return &injection{site: s, kind: kinds[rng.IntN(len(kinds))], skip: rng.IntN(max(f.sites.Seen(s)/runs, 1))}
	}
	for range f.o.Pairs {
		if f.ctx.Err() != nil {
			return nil
		}
		pair := draw()
		pair.first = draw()
		if err := f.run(seed, pair, false); err != nil {
			return err
		}
		if f.o.Progress != nil {
			f.o.Progress(f.done())
		}
	}
	return nil
}

// triesMore is how often a call site is tried again that was not hit.
const triesMore = 24

// patience is how long a patient run waits for what a clock brings about.
const patience = 2 * time.Second

// failSite runs the workload with operations of one call site failing.
func (f *faultSweep) failSite(seed uint64, s simfs.Site, rng *rand.Rand) error {
	kinds := kindsOf(s)
	full := []string{"ENOSPC for good", "EDQUOT for good"}[rng.IntN(2)] // one is much like the other
	kinds = slices.DeleteFunc(kinds, func(k simfs.Failure) bool { return k.Name == full })
	if f.o.Kinds > 0 && f.o.Kinds < len(kinds) {
		rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		kinds = kinds[:f.o.Kinds]
	}
	for i := 0; i < len(kinds) || i < len(kinds)+triesMore && f.sites.Struck(s) == 0; i++ { // where few come, chance may miss them
		k, patient := kinds[i%len(kinds)], i >= len(kinds)
		for n := range max(f.o.Each, 1) {
			skip := 0
			if seen := f.sites.Seen(s); i < len(kinds) && (n > 0 || rng.IntN(2) == 0) {
				skip = rng.IntN(max(seen/max(f.counts.Runs, 1), 1))
			}
			if err := f.run(seed, &injection{site: s, kind: k, skip: skip, first: f.sites.under[s]}, patient); err != nil {
				return err
			}
			if f.o.Progress != nil {
				f.o.Progress(f.done())
			}
		}
	}
	return nil
}

// injection is one fault: operation number skip of a call site. Where nobody comes
// unless something else has failed, that is failed first.
type injection struct {
	site  simfs.Site
	kind  simfs.Failure
	skip  int
	first *injection
}

func (i *injection) String() string {
	if i == nil {
		return "no fault"
	}
	text := fmt.Sprintf("%s at operation %d, %v", i.kind.Name, i.skip, i.site)
	if i.first != nil {
		text = i.first.String() + "; then " + text
	}
	return text
}

// arm puts the faults in place, and returns them, the one that matters first.
func (i *injection) arm(fs *simfs.FS, sites *faultSites) []*simfs.Armed {
	if i == nil {
		return nil
	}
	before := i.first.arm(fs, sites)
	return append([]*simfs.Armed{sites.Fail(fs, i.site, i.kind, i.skip)}, before...)
}

// run is one run of the workload with a fault, and what is found afterwards. A patient one
// waits before it closes the store: temporary storage is given back a moment after it was
// let go, when most runs are over.
func (f *faultSweep) run(seed uint64, inject *injection, patient bool) error {
	fs, err := newDisk()
	if err != nil {
		return err
	}
	order := newOrder()
	fs.Trace(func(ev simfs.Event) {
		f.sites.note(ev)
		order.note(ev)
	})
	o := smallOptions(fs)
	w := &faultWorld{world: world{ctx: f.ctx, rng: rand.New(rand.NewPCG(seed, 9)), fs: fs, o: o, m: newBlockModel(), cover: &Coverage{}}}
	f.sites.now = inject
	armed := inject.arm(fs, f.sites)
	if inject != nil {
		w.loses = inject.kind.Fault.WriteBack || inject.kind.Fault.Sync != simfs.SyncPending
	}
	others := w.others(armed)
	if patient {
		w.before = func() { f.await(armed) }
	}
	err = w.playFaulty()
	others.Wait()
	if w.told != nil {
		f.counts.Told++
		w.note(w.told)
	}
	f.counts.Runs++
	if len(armed) > 0 && armed[0].Fired() > 0 {
		f.counts.Injected++
		f.counts.Kinds[inject.kind.Name]++
	}
	if len(armed) > 1 && armed[0].Fired() > 0 && armed[1].Fired() > 0 {
		f.counts.Pairs++
	}
	fs.Trace(nil)
	if w.failed {
		f.counts.Failed++
	}
	err = cmp.Or(err, w.wrong, order.Err())
	if err == nil && inject == nil && w.errors > 0 {
		err = fmt.Errorf("%d errors without a fault, the last: %w", w.errors, w.last)
	}
	// Where it failed, and then what undoes it failed, what was not made may look damaged.
	unmade := w.opened.Load() == nil && inject != nil && inject.first != nil
	if err == nil && !unmade {
		err = f.afterwards(seed, w, fs)
	}
	if err != nil {
		return &Failure{What: "a run with " + inject.String(), Seed: seed, Err: err}
	}
	return nil
}

// await waits, but not for long, until the fault that matters has struck, or, if there is
// none, until temporary storage has been given back.
func (f *faultSweep) await(armed []*simfs.Armed) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		switch {
		case len(armed) > 0 && armed[0].Fired() > 0:
			return
		case len(armed) == 0 && f.sites.gaveBack():
			return
		}
	}
}

// allShown is a system that has written out all but what it lost, which it shows no more.
const allShown = "what was lost is shown no more"

// afterwards proves what a run left: after a power cut, and as the system has it.
func (f *faultSweep) afterwards(seed uint64, w *faultWorld, fs *simfs.FS) error {
	if err := leftOpen(fs); err != nil {
		return err
	}
	s := &sweep{r: &recording{o: w.o, m: w.m, backups: w.backups}}
	v := &verifier{s: s, rng: rand.New(rand.NewPCG(seed, uint64(f.counts.Runs))), verifyAll: true}
	m := &moment{promises: w.promised()}
	if err := f.failRecovery(v, w, m, fs.Crash(nil, simfs.DropAll)); err != nil {
		return fmt.Errorf("after a fault within recovery: %w", err)
	}
	left := map[string]*simfs.FS{"a power cut": fs.Crash(nil, simfs.DropAll)}
	if w.loses { // the system writes the rest out, and has room for something else
		left[allShown] = fs.Crash(nil, simfs.KeepAll)
	}
	left["the end of the process"] = fs.Kill()
	for how, disk := range left {
		var counts CrashCounts
		if err := v.whole(f.ctx, disk, m, &counts); err != nil {
			return fmt.Errorf("after %s: %w", how, err)
		}
		f.counts.Backups += int(counts.Restored)
		if how == allShown {
			continue
		}
		// Who opened it, and closed it in good order, has made durable what he showed.
		if err := v.whole(f.ctx, disk.Crash(nil, simfs.DropAll), m, &counts); err != nil {
			return fmt.Errorf("after %s, an opening and a power cut: %w", how, err)
		}
	}
	return nil
}

// failRecovery has an operation fail while the store is opened and closed, in any way,
// and proves that the next opening finds what is due.
func (f *faultSweep) failRecovery(v *verifier, w *faultWorld, m *moment, disk *simfs.FS) error {
	kinds := simfs.Failures()
	k := kinds[v.rng.IntN(len(kinds))]
	k.Fault.Ops, k.Fault.Skip = k.Ops, v.rng.IntN(16)
	armed := disk.Fail(k.Fault)
	o := w.o
	o.FS = disk
	if s, err := mvcc.Open(dbDir, o); err == nil {
		_ = s.Close() // whatever it says, the next opening tells
	} else if armed.Fired() == 0 {
		return fmt.Errorf("a legal cut is refused: %w", err)
	}
	if armed.Fired() > 0 {
		f.counts.InRecovery++
	}
	var counts CrashCounts
	err := v.whole(f.ctx, disk.Crash(v.rng, simfs.Random), m, &counts)
	if err != nil {
		return fmt.Errorf("%s at operation %d: %w", k.Name, k.Fault.Skip, err)
	}
	return nil
}

// faultWorld is a workload that goes on after errors, so that what comes after them is
// seen, and judges each.
type faultWorld struct {
	world
	loses  bool // the fault loses what was written
	opened atomic.Pointer[mvcc.Store]
	told   error  // what somebody else was told meanwhile: see told.go; guarded by mu
	first  func() // before the script; nil: nothing
	before func() // the store is closed; nil: nothing
	failed bool   // the store has failed
	errors int
	last   error
	wrong  error // what an error must not be, or a success
}

// playFaulty runs the workload. An error is something that must not be.
func (w *faultWorld) playFaulty() error {
	for range 2 { // one that fails to open may be opened again
		if err := w.open(); err != nil {
			w.note(err)
			continue
		}
		w.opened.Store(w.s)
		if w.first != nil {
			w.first()
		}
		w.script()
		if w.before != nil {
			w.before()
		}
		w.failed = w.failed || w.s.Status().Failed != ""
		if err := w.s.Close(); err != nil && !w.failed {
			w.note(err)
		}
		break
	}
	return w.wrong
}

// script is everything at once, in small.
func (w *faultWorld) script() {
	w.try(func(e *edit) error { return e.mixed(8, 40) })
	w.try(func(e *edit) error { return e.grow(130) })
	r, err := w.s.BeginRead()
	w.note(err)
	for range 2 {
		w.try(func(e *edit) error { return e.sweepAll(110) })
		w.rest()
	}
	w.backupFaulty(livebackup.BackupOptions{})
	w.try(func(e *edit) error { return e.shrink(30) })
	w.rest()
	w.try(func(e *edit) error { return e.mixed(20, 60) })
	w.backupFaulty(livebackup.BackupOptions{Type: livebackup.TypeIncremental})
	if r != nil {
		w.readAll(r)
		r.Close()
	}
	w.try(func(e *edit) error { return e.mixed(20, 60) })
}

// try is a transaction that may fail, and what its failure may mean.
func (w *faultWorld) try(f func(*edit) error) {
	failedBefore := w.s.Status().Failed != ""
	tx, err := w.s.BeginWrite()
	if err != nil {
		w.note(err)
		return
	}
	base, known := w.m.image(tx.Base())
	if !known {
		w.judge(fmt.Errorf("transaction on LSN %v, which was never given", tx.Base()))
		_ = tx.Rollback()
		return
	}
	e := &edit{rng: w.rng, tx: tx, next: base.clone(), held: slices.Clone(base.ids())}
	if err := f(e); err != nil {
		_ = tx.Rollback()
		w.note(err)
		return
	}
	e.setRoot()
	due := tx.Base() + 1
	w.m.try(due, e.next)
	lsn, err := tx.Commit()
	switch {
	case err == nil && failedBefore:
		w.judge(fmt.Errorf("commit %v is acknowledged by a store that had failed (L8)", lsn))
	case err == nil:
		raise(&w.m.acked, lsn)
	case w.s.Status().Failed == "":
		// Nothing was committed. The LSN is taken if the redo was given up half way.
		if w.s.Status().NewestLSN < due {
			w.m.cutTo(due - 1)
		} else {
			w.m.try(due, base.clone())
		}
	}
	w.note(err)
}

// rest has everything brought into place.
func (w *faultWorld) rest() {
	q, err := w.s.Quiesce()
	w.note(err)
	if err == nil {
		q.Release()
	}
}

func (w *faultWorld) backupFaulty(o livebackup.BackupOptions) {
	w.note(w.backup(o))
}

// readAll reads everything that a snapshot sees: right, or an error.
func (w *faultWorld) readAll(r *mvcc.ReadTx) {
	im, _ := w.m.image(r.LSN())
	for _, id := range im.ids() {
		b, err := r.Block(id)
		if err != nil {
			w.note(err)
			continue
		}
		if contentOf(b) != im.blocks[id] {
			w.judge(fmt.Errorf("block %v at LSN %v is another version", id, r.LSN()))
		}
		b.Release()
	}
}

func (w *faultWorld) judge(err error) {
	if w.wrong == nil {
		w.wrong = err
	}
}

// note takes an error in. It must be one that callers can tell.
func (w *faultWorld) note(err error) {
	if err == nil {
		return
	}
	w.errors++
	w.last = err
	for _, known := range []error{
		syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.EROFS,
		mvcc.ErrPoisoned, mvcc.ErrNoSpace, mvcc.ErrTxTooLarge, mvcc.ErrBroken, mvcc.ErrBase, mvcc.ErrNotDatabase,
		mvcc.ErrBudget, wal.ErrFailed, wal.ErrUnknownOutcome, block.ErrCorrupt, livebackup.ErrRepositoryWrite, livebackup.ErrNoBase,
	} {
		if errors.Is(err, known) {
			return
		}
	}
	w.judge(fmt.Errorf("an error of no kind that callers can tell: %w", err))
}
