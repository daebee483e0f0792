package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/internal/hostmem"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// guardsTask is a process that has each guard end a backup, for real.
type guardsTask struct {
	Dir      string
	Group    string // control group to join; "": none, and no guard on memory
	Pressure string // control group in which pressure is counted apart; "": none, and no guard on it
	Records  uint64
	Only     []mvcc.Guard // nil: each
}

// guardsLimit is the limit of its group.
const guardsLimit = 512 << 20

// reaction is how a guard ended its backup.
type reaction struct {
	Guard   mvcc.Guard
	Took    time.Duration // from the first reading beyond the limit, seen from outside, until nothing is kept for the backup
	First   bool          // the guard saw it, and ended its backup, before it was seen from outside
	Skipped string        // why it was not tried
	Wrong   string        // what was not as it should be
}

// guarded is the process at work.
type guarded struct {
	guardsTask
	db    *kv.DB
	sink  *sink
	runs  int
	broke atomic.Int64 // when the store broke a backup for a guard, in nanoseconds since 1970; 0: not yet
}

// Sizes and rates of the backups that are ended.
const (
	guardedValue = 900
	guardedSink  = 1 << 20 // so slow that no backup is done before its guard
	heldMax      = 4 << 20
	tempMax      = 32 << 20
	tempShareMax = 0.4
	memoryTaken  = 128 << 20
	memoryLeft   = 96 << 20
	timeMax      = 700 * time.Millisecond
	rateSink     = 8 << 20
	rateSlow     = 200 << 10 // what it takes once it is slow
	rateMin      = 2 << 20
)

func guardsRun(ctx context.Context, t guardsTask) (list []reaction, err error) {
	if err := join(t.Group, t.Pressure); err != nil {
		return nil, err
	}
	g := &guarded{guardsTask: t, sink: newSink(guardedSink)}
	g.db, err = kv.Open(filepath.Join(t.Dir, "db"), kv.Options{Store: mvcc.Options{
		MaxRAM: 16 << 20, OverflowMax: -1, Temp: []mvcc.TempDir{{Path: t.Dir, BytesMax: tempMax}}, OnEvent: g.heard,
	}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.db.Close()) }()
	if err := g.fill(); err != nil {
		return nil, err
	}
	for _, try := range []struct {
		guard mvcc.Guard
		run   func(context.Context) (reaction, error)
	}{
		{mvcc.GuardHeld, g.held}, {mvcc.GuardTempShare, g.tempShare}, {mvcc.GuardHostMemory, g.hostMemory},
		{mvcc.GuardPressure, g.pressure}, {mvcc.GuardTime, g.time}, {mvcc.GuardRate, g.rate},
	} {
		if t.Only != nil && !slices.Contains(t.Only, try.guard) {
			continue
		}
		r, err := try.run(ctx)
		if err != nil {
			return list, fmt.Errorf("guard %s: %w", try.guard, err)
		}
		r.Guard = try.guard
		list = append(list, r)
	}
	return list, nil
}

// heard keeps when the store broke a backup: from then on it keeps nothing for it, though
// the backup may still wait for what it writes.
func (g *guarded) heard(ev mvcc.Event) {
	if ev.Kind == mvcc.EventGuard {
		g.broke.Store(time.Now().UnixNano())
	}
}

// join puts this process into the groups that there are.
func join(memory, pressure string) (err error) {
	if pressure != "" {
		err = (&bench.PressureGroup{Dir: pressure}).Join()
	}
	if memory != "" {
		err = errors.Join(err, (&bench.MemoryGroup{Dir: memory}).Join())
	}
	return err
}

// fill puts all records.
func (g *guarded) fill() error {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := uint64(0); i < g.Records; i += 500 {
		if err := g.put(rng, i, min(i+500, g.Records)); err != nil {
			return err
		}
	}
	return nil
}

func (g *guarded) put(rng *rand.Rand, from, to uint64) error {
	value := make([]byte, guardedValue)
	return g.db.Update(func(tx *kv.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		for ; from < to && err == nil; from++ {
			random(rng, value)
			err = b.Put(binary.BigEndian.AppendUint64(nil, from), value)
		}
		return err
	})
}

// ended takes a backup with the guards while one writer changes all records. From its
// beginning until the store has broken it, or has none any more, it looks, beside the store,
// whether the reading is beyond its limit; meanwhile cross sees to it that it comes to that.
func (g *guarded) ended(ctx context.Context, guard mvcc.Guard, guards livebackup.Guards, cross func() (undo func()), beyond func() bool) (r reaction, err error) {
	g.runs++
	g.broke.Store(0)
	repo, err := g.sink.repository(ctx, filepath.Join(g.Dir, fmt.Sprintf("repository-%d", g.runs)))
	if err != nil {
		return r, err
	}
	var at atomic.Uint64
	w := startWriters(1, func(rng *rand.Rand) error {
		from := at.Add(100) % g.Records
		return g.put(rng, from, min(from+100, g.Records))
	})
	done := make(chan error, 1)
	go func() {
		_, err := livebackup.Backup(ctx, livebackup.NewSource(g.db.Store()), repo, livebackup.BackupOptions{
			Type: livebackup.TypeFull, Owner: string(guard), Compression: livebackup.CompressionNone, Guards: guards, FullSpeed: true,
		})
		done <- err
	}()
	for !g.runsOne() {
		select {
		case err := <-done:
			r.Wrong = fmt.Sprintf("the backup did not begin: %v", err)
			_, err = w.stop()
			return r, err
		case <-time.After(time.Millisecond):
		}
	}
	looked := make(chan look, 1)
	go func() { looked <- g.look(beyond) }()
	undo := cross()
	l := <-looked
	undo()
	err = <-done
	switch e := (*mvcc.GuardError)(nil); {
	case l.beyond.IsZero() && guard == mvcc.GuardPressure && !errors.As(err, &e): // what stalls is up to the system
		r.Skipped = "nothing stalled so long before the backup was over"
	case !errors.As(err, &e) || e.Guard != guard:
		r.Wrong = fmt.Sprintf("the backup ended with %v", err)
	case l.beyond.IsZero():
		r.First = true
	default:
		r.Took = max(l.ended.Sub(l.beyond), 0) // it may have seen it a moment earlier
	}
	_, stopErr := w.stop()
	return r, stopErr
}

// runsOne reports whether a backup runs.
func (g *guarded) runsOne() bool { return len(g.db.Store().Status().Backups) > 0 }

// look is when a reading was first seen beyond its limit, and when the backup had ended.
type look struct{ beyond, ended time.Time }

// lookMax is how long a guard may take to end its backup.
const lookMax = time.Minute

// look looks every millisecond or two.
func (g *guarded) look(beyond func() bool) (l look) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		if l.beyond.IsZero() && beyond() {
			l.beyond = time.Now()
		}
		if broke := g.broke.Load(); broke != 0 {
			l.ended = time.Unix(0, broke)
			return l
		}
		if l.ended = time.Now(); !g.runsOne() || l.ended.Sub(began) > lookMax {
			return l
		}
	}
}

func nothingElse() func() { return func() {} }

func (g *guarded) held(ctx context.Context) (reaction, error) {
	return g.ended(ctx, mvcc.GuardHeld, livebackup.Guards{Guards: mvcc.Guards{HeldMax: heldMax}}, nothingElse, func() bool {
		list := g.db.Store().Status().Backups
		return len(list) > 0 && list[0].HeldBytes > heldMax
	})
}

func (g *guarded) tempShare(ctx context.Context) (reaction, error) {
	return g.ended(ctx, mvcc.GuardTempShare, livebackup.Guards{Guards: mvcc.Guards{TempShareMax: tempShareMax}}, nothingElse, func() bool {
		for _, l := range g.db.Store().Status().Levels {
			if l.Name == mvcc.LevelTemporary {
				return float64(l.Used) > tempShareMax*float64(l.Limit)
			}
		}
		return false
	})
}

// hostMemory has this process take most of what its group may have.
func (g *guarded) hostMemory(ctx context.Context) (reaction, error) {
	if g.Group == "" {
		return reaction{Skipped: bench.ErrNoMemoryGroup.Error()}, nil
	}
	available, err := hostmem.Available()
	if err != nil {
		return reaction{}, err
	}
	least := min(available/2, memoryLeft)
	taken := available - least + memoryTaken/4
	return g.ended(ctx, mvcc.GuardHostMemory, livebackup.Guards{Guards: mvcc.Guards{HostMemoryMin: least}}, func() func() {
		b, err := hostmem.Map(int(taken))
		if err != nil {
			return func() {}
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return func() { _ = hostmem.Unmap(b) }
	}, func() bool {
		now, err := hostmem.Available()
		return err == nil && now < least
	})
}

// pressureMax is the share of time, in percent, that is more than a quiet host has.
const pressureMax = 0.2

// pressure has another process, in the same group as far as pressure is counted, read more
// than its small memory group holds.
func (g *guarded) pressure(ctx context.Context) (r reaction, err error) {
	now, err := hostmem.Stall()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		r.Skipped = "the kernel does not count pressure: " + err.Error()
		return r, nil
	case err != nil:
		return r, err
	case g.Pressure == "":
		r.Skipped = "pressure is not counted apart for us (no control group of version 2 can be made; needs root)"
		return r, nil
	case now > pressureMax:
		r.Skipped = fmt.Sprintf("it stalls without us, for %v %% of the time", now)
		return r, nil
	}
	stop := func() error { return nil }
	r, err = g.ended(ctx, mvcc.GuardPressure, livebackup.Guards{Guards: mvcc.Guards{PressureMax: pressureMax}}, func() func() {
		end, startErr := thrash(ctx, g.Dir, g.Pressure)
		if startErr == nil {
			stop = end
		}
		return func() {}
	}, func() bool {
		now, err := hostmem.Stall()
		return err == nil && now > pressureMax
	})
	return r, errors.Join(err, stop())
}

// thrashBytes are read again and again by a process that may have thrashMax.
const (
	thrashBytes = 96 << 20
	thrashMax   = 24 << 20
)

// thrash starts a process that waits for memory all the time.
func thrash(ctx context.Context, dir, pressure string) (stop func() error, err error) {
	group, err := bench.NewMemoryGroup(thrashMax)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "thrash")
	err = os.WriteFile(name, make([]byte, thrashBytes), 0o600)
	if err == nil {
		err = bench.DropFileCache(name) // or its pages would be another group's
	}
	if err != nil {
		return nil, errors.Join(err, group.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var none struct{}
		_ = inChild(ctx, "thrash", thrashTask{name, group.Dir, pressure}, &none) // it ends by being killed
	}()
	return func() error {
		cancel()
		<-ended
		return errors.Join(group.Close(), os.Remove(name))
	}, nil
}

type thrashTask struct{ File, Group, Pressure string }

// thrashRun reads what it has just lost, on every CPU.
func thrashRun(ctx context.Context, t thrashTask) (struct{}, error) {
	if err := join(t.Group, t.Pressure); err != nil {
		return struct{}{}, err
	}
	ended := make(chan error)
	for i := range 2 * runtime.NumCPU() {
		go func() { ended <- readAtRandom(ctx, t.File, uint64(i)) }()
	}
	return struct{}{}, <-ended
}

func readAtRandom(ctx context.Context, file string, seed uint64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	rng, buf := rand.New(rand.NewPCG(seed, 5)), make([]byte, 4096)
	for ctx.Err() == nil {
		if _, err := f.ReadAt(buf, rng.Int64N(thrashBytes/4096)*4096); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// time counts from before the backup was asked for.
func (g *guarded) time(ctx context.Context) (reaction, error) {
	began := time.Now()
	return g.ended(ctx, mvcc.GuardTime, livebackup.Guards{TimeMax: timeMax}, nothingElse, func() bool { return time.Since(began) > timeMax })
}

// rate has the sink become slow when it has taken its rate for long enough. What it takes
// is measured at the sink; a reading may be too low by an eighth, so from there on it counts.
func (g *guarded) rate(ctx context.Context) (reaction, error) {
	g.sink.slow(rateSink)
	defer g.sink.slow(guardedSink)
	began := g.sink.taken()
	var past []taken
	return g.ended(ctx, mvcc.GuardRate, livebackup.Guards{RateMin: rateMin}, func() func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for g.sink.taken().busy-began.busy < rateOver+200*time.Millisecond && g.runsOne() {
			<-tick.C
		}
		g.sink.slow(rateSlow)
		return func() {}
	}, func() bool {
		now := g.sink.taken()
		past = append(past, now)
		for len(past) > 1 && now.busy-past[1].busy >= rateOver {
			past = past[1:]
		}
		over := now.busy - past[0].busy
		return over >= rateOver && float64(now.bytes-past[0].bytes) < rateMin*9/8*over.Seconds()
	})
}

// rateOver is the time of writing that the guard averages over.
const rateOver = 2 * time.Second

// guardsPart measures how soon guards end their backups.
func guardsPart(ctx context.Context, r *report, parent string) (err error) {
	list, err := guardReactions(ctx, parent, guardsTask{Records: 60_000})
	if err != nil {
		return err
	}
	for _, g := range list {
		switch {
		case g.Skipped != "":
			r.say(string(g.Guard)+": SKIPPED", "%s", g.Skipped)
		case g.Wrong != "":
			r.want(false, "a GuardError", string(g.Guard), "%s", g.Wrong)
		case g.First:
			r.want(true, "<= 1000 ms", string(g.Guard), "at once: it saw it before we did")
		default:
			r.atMost(1000, ms(g.Took), " ms", string(g.Guard)+": from the reading to the end")
		}
	}
	return nil
}

// guardReactions has a process of its own try the guards, in groups of its own as far as
// they can be made.
func guardReactions(ctx context.Context, parent string, t guardsTask) (list []reaction, err error) {
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t.Dir = dir
	memory, err := bench.NewMemoryGroup(guardsLimit)
	switch {
	case err == nil:
		t.Group = memory.Dir
		defer func() { err = errors.Join(err, memory.Close()) }()
	case !errors.Is(err, bench.ErrNoMemoryGroup):
		return nil, err
	}
	pressure, err := bench.NewPressureGroup()
	switch {
	case err == nil:
		t.Pressure = pressure.Dir
		defer func() { err = errors.Join(err, pressure.Close()) }()
	case !errors.Is(err, bench.ErrNoPressureGroup):
		return nil, err
	}
	err = inChild(ctx, "guards", t, &list)
	return list, err
}
