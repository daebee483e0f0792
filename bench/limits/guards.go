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
	Dir     string
	Group   string // control group to join; "": none, and no guard on memory
	Records uint64
	Thrash  bool // have the whole machine wait for memory
}

// guardsLimit is the limit of its group.
const guardsLimit = 512 << 20

// reaction is how a guard ended its backup.
type reaction struct {
	Guard   mvcc.Guard
	Took    time.Duration // from the first reading beyond the limit to the end of the session
	Skipped string        // why it was not tried
	Wrong   string        // what was not as it should be
}

// guarded is the process at work.
type guarded struct {
	guardsTask
	db   *kv.DB
	sink *sink
	runs int
}

// Sizes and rates of the backups that are ended.
const (
	guardedValue = 900
	guardedSink  = 4 << 20
	heldMax      = 4 << 20
	tempMax      = 32 << 20
	tempShareMax = 0.4
	memoryTaken  = 128 << 20
	memoryLeft   = 96 << 20
	timeMax      = 1500 * time.Millisecond
	rateMin      = guardedSink / 2
)

func guardsRun(ctx context.Context, t guardsTask) (list []reaction, err error) {
	if t.Group != "" {
		if err := (&bench.MemoryGroup{Dir: t.Group}).Join(); err != nil {
			return nil, err
		}
	}
	db, err := kv.Open(filepath.Join(t.Dir, "db"), kv.Options{Store: mvcc.Options{
		MaxRAM: 16 << 20, OverflowMax: -1, Temp: []mvcc.TempDir{{Path: t.Dir, BytesMax: tempMax}},
	}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	g := &guarded{guardsTask: t, db: db, sink: newSink(guardedSink)}
	if err := g.fill(); err != nil {
		return nil, err
	}
	for _, try := range []func(context.Context) (reaction, error){g.held, g.tempShare, g.hostMemory, g.pressure, g.time, g.rate} {
		r, err := try(ctx)
		if err != nil {
			return list, fmt.Errorf("guard %s: %w", r.Guard, err)
		}
		list = append(list, r)
	}
	return list, nil
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

// ended takes a backup with the guards while one writer changes all records, and, once
// cross has told it to, measures from when beyond is first true to when the store has no
// backup any more.
func (g *guarded) ended(ctx context.Context, guard mvcc.Guard, guards livebackup.Guards, cross func() (undo func()), beyond func() bool) (r reaction, err error) {
	r.Guard = guard
	g.runs++
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
	for len(g.db.Store().Status().Backups) == 0 {
		select {
		case err := <-done:
			r.Wrong = fmt.Sprintf("the backup did not begin: %v", err)
			_, err = w.stop()
			return r, err
		case <-time.After(time.Millisecond):
		}
	}
	undo := cross()
	for !beyond() && len(g.db.Store().Status().Backups) > 0 {
		time.Sleep(2 * time.Millisecond)
	}
	from := time.Now()
	for len(g.db.Store().Status().Backups) > 0 && time.Since(from) < time.Minute {
		time.Sleep(2 * time.Millisecond)
	}
	r.Took = time.Since(from)
	undo()
	err = <-done
	if e := (*mvcc.GuardError)(nil); !errors.As(err, &e) || e.Guard != guard {
		r.Wrong = fmt.Sprintf("the backup ended with %v", err)
	}
	_, stopErr := w.stop()
	return r, stopErr
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
		return reaction{Guard: mvcc.GuardHostMemory, Skipped: bench.ErrNoMemoryGroup.Error()}, nil
	}
	available, err := hostmem.Available()
	if err != nil {
		return reaction{Guard: mvcc.GuardHostMemory}, err
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

// pressure has another process of a small group read more than that holds.
func (g *guarded) pressure(ctx context.Context) (reaction, error) {
	r := reaction{Guard: mvcc.GuardPressure}
	now, err := hostmem.Stall()
	switch {
	case !g.Thrash:
		r.Skipped = "needs -thrash, which has the whole machine wait"
		return r, nil
	case errors.Is(err, errors.ErrUnsupported):
		r.Skipped = err.Error()
		return r, nil
	case err != nil:
		return r, err
	case now > pressureMax:
		r.Skipped = fmt.Sprintf("the host stalls without us, for %v %% of the time", now)
		return r, nil
	}
	stop, err := thrash(ctx, g.Dir)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		r.Skipped = err.Error()
		return r, nil
	}
	if err != nil {
		return r, err
	}
	began := time.Now()
	r, err = g.ended(ctx, mvcc.GuardPressure, livebackup.Guards{Guards: mvcc.Guards{PressureMax: pressureMax}}, nothingElse, func() bool {
		now, err := hostmem.Stall()
		return err == nil && now > pressureMax || time.Since(began) > 30*time.Second
	})
	if err = errors.Join(err, stop()); r.Wrong != "" && time.Since(began) > 30*time.Second {
		r.Skipped, r.Wrong = "half a minute of thrashing in a small group did not stall the host", ""
	}
	return r, err
}

// thrashBytes are read again and again by a process that may have a tenth of them.
const thrashBytes = 160 << 20

// thrash starts a process that waits for memory all the time.
func thrash(ctx context.Context, dir string) (stop func() error, err error) {
	group, err := bench.NewMemoryGroup(thrashBytes / 10)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "thrash")
	if err := os.WriteFile(name, make([]byte, thrashBytes), 0o600); err != nil {
		return nil, errors.Join(err, group.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var none struct{}
		_ = inChild(ctx, "thrash", thrashTask{name, group.Dir}, &none) // it ends by being killed
	}()
	return func() error {
		cancel()
		<-ended
		return errors.Join(group.Close(), os.Remove(name))
	}, nil
}

type thrashTask struct{ File, Group string }

// thrashRun reads what it has just lost, on every CPU.
func thrashRun(ctx context.Context, t thrashTask) (struct{}, error) {
	if err := (&bench.MemoryGroup{Dir: t.Group}).Join(); err != nil {
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

// time counts from when its limit is reached.
func (g *guarded) time(ctx context.Context) (reaction, error) {
	var began time.Time
	return g.ended(ctx, mvcc.GuardTime, livebackup.Guards{TimeMax: timeMax}, func() func() {
		began = g.db.Store().Status().Backups[0].Opened
		return func() {}
	}, func() bool { return time.Since(began) > timeMax })
}

// rate has the sink slow down to a tenth of what it must take, once it has taken its
// rate for three seconds: the mean of two seconds is below the limit soon after.
func (g *guarded) rate(ctx context.Context) (reaction, error) {
	const slow = rateMin / 10
	var below time.Time
	return g.ended(ctx, mvcc.GuardRate, livebackup.Guards{RateMin: rateMin}, func() func() {
		time.Sleep(3 * time.Second)
		g.sink.slow(slow)
		const over = 2.0 // seconds that the rate is a mean of
		after := over * float64(guardedSink-rateMin) / float64(guardedSink-slow)
		below = time.Now().Add(time.Duration(after * float64(time.Second)))
		return func() { g.sink.slow(guardedSink) }
	}, func() bool { return time.Now().After(below) })
}

// guardsPart measures how soon guards end their backups.
func guardsPart(ctx context.Context, r *report, parent string, thrash bool) (err error) {
	list, err := guardReactions(ctx, parent, guardsTask{Records: 60_000, Thrash: thrash})
	if err != nil {
		return err
	}
	for _, g := range list {
		switch {
		case g.Skipped != "":
			r.say(string(g.Guard)+": skipped", "%s", g.Skipped)
		case g.Wrong != "":
			r.want(false, "a GuardError", string(g.Guard), "%s", g.Wrong)
		default:
			r.atMost(1000, ms(g.Took), " ms", string(g.Guard)+": from the reading to the end")
		}
	}
	return nil
}

func guardReactions(ctx context.Context, parent string, t guardsTask) (list []reaction, err error) {
	dir, err := os.MkdirTemp(parent, "limits")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t.Dir = dir
	group, err := bench.NewMemoryGroup(guardsLimit)
	switch {
	case err == nil:
		t.Group = group.Dir
		defer func() { err = errors.Join(err, group.Close()) }()
	case !errors.Is(err, bench.ErrNoMemoryGroup):
		return nil, err
	}
	err = inChild(ctx, "guards", t, &list)
	return list, err
}
