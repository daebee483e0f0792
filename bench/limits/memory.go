package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/hostmem"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// memoryTask is one live backup in a process whose memory is limited.
type memoryTask struct {
	Dir        string // of the database; the repository is beside it
	Repository string
	Group      string // control group to join; "": none
	Records    uint64
	ValueBytes int
	Writers    int
	MaxRAM     int64
	Overflow   int64
	Temp       int64
	LogHold    int64
	PerCommit  int           // records that a commit changes
	Redo       redoRate      // against what the sink takes
	Sink       int64         // bytes per second that it takes, if that stands so to the redo
	Before     time.Duration // for which writers are measured before and after
}

// redoRate is how much redo writers at full speed make, against what the sink takes. What
// they make is measured, and the sink chosen by it.
type redoRate string

const (
	redoBelow  redoRate = "at most half of the sink's rate" // of 20 MB/s, or more if need be
	redoHalf   redoRate = "half of the sink's rate"         // all the time: the sink follows the writers
	redoFaster redoRate = "faster than the sink"            // of 20 MB/s, or less if need be
)

// sinkRate is that of the figures, in bytes per second.
const sinkRate = 20_000_000

// sink is the rate of the one that stands so to what the writers make; usual is that of the
// one to take if it does.
func (r redoRate) sink(redo float64, usual int64) int64 {
	switch r {
	case redoHalf:
		return int64(2 * redo)
	case redoFaster:
		return min(usual, int64(redo/1.25))
	}
	return max(usual, int64(2*redo))
}

// slack is what the rest of the process may take: code, stacks, heap, kernel.
const slack = 64 << 20

func (t *memoryTask) limit() int64 { return t.MaxRAM + t.Overflow + slack }

// memoryResult is what came of it.
type memoryResult struct {
	Plan                  forecast.Verdict
	PlanShort             bool // it was no promise
	Sink                  int64
	Redo                  float64 // bytes per second, before
	Before, During, After float64 // commits per second
	LongestBefore         time.Duration
	LongestDuring         time.Duration
	Record                livebackup.Record
	Error                 string
	Reason                string // of a backup that was broken
	Failed                string // the store
	AvailableLeast        int64  // that the host or the group could give
	Reserve               int64
	WarnedAt              int64 // what it could give when it was first warned of; 0: never
	WarnedLate            bool  // it was under its reserve before
	SwapIn                int64 // read back from swap by the group
	SwapOut               int64 // of the process that was in swap, at most
	Events                []string
}

// fill makes the database of a task, in order of keys.
func fill(ctx context.Context, t memoryTask) (int64, error) {
	db, err := kv.Open(t.Dir, kv.Options{Store: mvcc.Options{MaxRAM: 256 << 20, Durability: mvcc.DurableNever}})
	if err != nil {
		return 0, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, t.ValueBytes)
	for i := uint64(0); i < t.Records && err == nil && ctx.Err() == nil; {
		err = db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			for end := min(i+1000, t.Records); i < end && err == nil; i++ {
				random(rng, value)
				err = b.Put(binary.BigEndian.AppendUint64(nil, i), value)
			}
			return err
		})
	}
	st := db.Store().Status()
	return int64(st.AllocatedBlocks) * int64(st.BlockSize), errors.Join(err, ctx.Err(), db.Close())
}

var bucket = []byte("records")

// memoryRunning is a task at work.
type memoryRunning struct {
	memoryTask
	db   *kv.DB
	r    memoryResult
	load *writers

	mu     sync.Mutex
	backup bool // it runs
}

// memoryRun is the process in the group.
func memoryRun(ctx context.Context, t memoryTask) (_ *memoryResult, err error) {
	m := &memoryRunning{memoryTask: t}
	if t.Group != "" {
		if err := (&bench.MemoryGroup{Dir: t.Group}).Join(); err != nil {
			return nil, err
		}
	}
	m.r.Reserve = min(max(t.limit()/16, 32<<20), 1<<30) // as Options.HostReserve is by default
	o := mvcc.Options{
		MaxRAM: t.MaxRAM, OverflowMax: t.Overflow, HostReserve: m.r.Reserve, LogHoldMax: t.LogHold, LogBytesMax: 64 << 20,
		Temp: []mvcc.TempDir{{Path: filepath.Dir(t.Dir), BytesMax: t.Temp}}, OnEvent: m.heard,
	}
	if m.db, err = kv.Open(t.Dir, kv.Options{Store: o}); err != nil {
		return nil, err
	}
	was, err := hostmem.SwapInBytes()
	if err != nil {
		return nil, errors.Join(err, m.db.Close())
	}
	stop := m.sample(ctx)
	err = m.work(ctx)
	stop()
	is, swapErr := hostmem.SwapInBytes()
	m.r.SwapIn = is - was
	err = errors.Join(err, swapErr)
	m.r.Failed = m.db.Store().Status().Failed
	return &m.r, errors.Join(err, m.db.Close())
}

// commit changes some records.
func (m *memoryRunning) commit(rng *rand.Rand) error {
	value := make([]byte, m.ValueBytes)
	return m.db.Update(func(tx *kv.Tx) error {
		b, err := tx.Bucket(bucket)
		for i := 0; i < m.PerCommit && err == nil; i++ {
			random(rng, value)
			err = b.Put(binary.BigEndian.AppendUint64(nil, rng.Uint64N(m.Records)), value)
		}
		return err
	})
}

// work is
//
//	|- warm-up -|- before -|- plan, backup -|- settling -|- after -|
func (m *memoryRunning) work(ctx context.Context) error {
	m.load = startWriters(m.Writers, m.commit)
	time.Sleep(m.Before / 2)
	before := bench.Span{From: m.load.since()}
	redo := m.db.Store().Status().Log.RecordBytes
	time.Sleep(m.Before)
	before.To = m.load.since()
	m.r.Redo = float64(m.db.Store().Status().Log.RecordBytes-redo) / before.Length().Seconds()
	m.r.Sink = m.memoryTask.Redo.sink(m.r.Redo, m.Sink)
	err := m.plan(ctx)
	during := bench.Span{From: m.load.since()}
	if err == nil {
		err = m.back(ctx)
	}
	during.To = m.load.since()
	time.Sleep(m.Before / 15)
	after := bench.Span{From: m.load.since()}
	time.Sleep(m.Before)
	after.To = m.load.since()
	trace, stopErr := m.load.stop()
	r := &m.r
	r.Before, r.During, r.After = trace.PerSecond(before), trace.PerSecond(during), trace.PerSecond(after)
	r.LongestBefore, r.LongestDuring = trace.Latencies(before).Max(), trace.Latencies(during).Max()
	return errors.Join(err, stopErr)
}

func (m *memoryRunning) options() livebackup.BackupOptions {
	return livebackup.BackupOptions{Type: livebackup.TypeFull, Owner: "limits", Compression: livebackup.CompressionNone}
}

func (m *memoryRunning) plan(ctx context.Context) error {
	o := m.options()
	o.BytesPerSecond = m.r.Sink
	p, err := livebackup.PlanBackup(ctx, livebackup.NewSource(m.db.Store()), nil, o)
	if err == nil {
		m.r.Plan, m.r.PlanShort = p.Now.Verdict, p.Now.Short
		if m.r.Plan == forecast.NothingToSay {
			m.r.Plan = p.AtThisRate.Verdict
		}
	}
	return err
}

// back takes the backup; that it is broken is no error here.
func (m *memoryRunning) back(ctx context.Context) error {
	to := newSink(m.r.Sink)
	repo, err := to.repository(ctx, m.Repository)
	if err != nil {
		return err
	}
	if m.memoryTask.Redo == redoHalf {
		defer m.follow(ctx, to)()
	}
	m.running(true)
	res, err := livebackup.Backup(ctx, livebackup.NewSource(m.db.Store()), repo, m.options())
	m.running(false)
	m.r.Record = res.Record
	if err != nil {
		m.r.Error = err.Error()
	}
	if broken := (*mvcc.BrokenError)(nil); errors.As(err, &broken) {
		m.r.Reason = string(broken.Reason)
		return nil
	}
	return err
}

// follow has a sink take twice the redo of the last second: writers at full speed are not
// always as fast.
func (m *memoryRunning) follow(ctx context.Context, to *sink) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		was, at := m.db.Store().Status().Log.RecordBytes, time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			is, now := m.db.Store().Status().Log.RecordBytes, time.Now()
			to.slow(max(int64(2*float64(is-was)/now.Sub(at).Seconds()), 64<<10))
			was, at = is, now
		}
	})
	return func() { cancel(); done.Wait() }
}

func (m *memoryRunning) running(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.backup = yes
}

// heard keeps what the store tells: the first warning of memory at any time, and what it
// tells while the backup runs.
func (m *memoryRunning) heard(ev mvcc.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := ev.Level; ev.Kind == mvcc.EventWatermark && l.Name == mvcc.LevelHost && m.r.WarnedAt == 0 && (l.State != "normal" || l.TimeState != "normal") {
		m.r.WarnedAt = l.Limit - l.Used
	}
	if m.backup && len(m.r.Events) < 200 && (ev.Kind != mvcc.EventWatermark || !ev.ByTime) {
		m.r.Events = append(m.r.Events, fmt.Sprintf("%.1f s: %v", m.load.since().Seconds(), ev))
	}
}

// sample looks at the host's memory, and at what of the process is in swap.
func (m *memoryRunning) sample(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			available, err := hostmem.Available()
			m.mu.Lock()
			if r := &m.r; err == nil {
				r.SwapOut = max(r.SwapOut, swappedOut())
				if r.AvailableLeast == 0 || available < r.AvailableLeast {
					r.AvailableLeast = available
				}
				r.WarnedLate = r.WarnedLate || available < r.Reserve && r.WarnedAt == 0
			}
			m.mu.Unlock()
		}
	})
	return func() { cancel(); done.Wait() }
}

// memorySizes are how large a run is.
type memorySizes struct {
	ram, overflow int64
	times         int64 // the database, times MaxRAM
	before        time.Duration
	valueBytes    int
	writers       int
	logHold       int64
	sink          int64  // bytes per second
	runs          string // which of memoryRuns, "" is all
}

// memoryOutcome is a run, seen from outside.
type memoryOutcome struct {
	memoryResult
	databaseBytes int64
	temp          int64
	killed        int64
	usagePeak     int64
	limit         int64
	restored      string // what is wrong with the backup; "": it is whole, and exact at E
}

// limited makes a database in dir and runs one backup of it in a control group.
func limited(ctx context.Context, dir string, s memorySizes, redo redoRate) (o memoryOutcome, err error) {
	t := memoryTask{
		Dir: filepath.Join(dir, "db"), Repository: filepath.Join(dir, "repository"),
		Records: uint64(s.times*s.ram) / uint64(s.valueBytes+24), ValueBytes: s.valueBytes, Writers: s.writers,
		MaxRAM: s.ram, Overflow: s.overflow, LogHold: s.logHold, Before: s.before, Redo: redo, Sink: s.sink, PerCommit: 1,
	}
	if redo == redoFaster {
		t.PerCommit = 32 // or one commit after the other would not make as much
	}
	group, err := bench.NewMemoryGroup(t.limit())
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, group.Close()) }()
	if err := group.KeepOutOfSwap(); err != nil {
		return o, err
	}
	if err = inChild(ctx, "fill", t, &o.databaseBytes); err == nil {
		err = bench.DropFileCache(t.Dir)
	}
	if err != nil {
		return o, err
	}
	t.Group, t.Temp = group.Dir, o.databaseBytes/100
	o.temp, o.limit = t.Temp, t.limit()
	runErr := inChild(ctx, "memory", t, &o.memoryResult)
	var killErr, peakErr error
	o.killed, killErr = group.Killed()
	o.usagePeak, peakErr = group.Number("memory.max_usage_in_bytes")
	if err := errors.Join(runErr, killErr, peakErr); err != nil {
		return o, err
	}
	if o.Error == "" {
		o.restored = proveBackup(ctx, t.Repository, filepath.Join(dir, "restored"))
	}
	return o, nil
}

// proveBackup says what is wrong with the only backup of a repository.
func proveBackup(ctx context.Context, repository, target string) string {
	repo, err := livebackup.OpenRepository(ctx, repository, livebackup.RepositoryOptions{})
	if err != nil {
		return err.Error()
	}
	res, err := livebackup.Restore(ctx, repo, livebackup.RestoreTarget{}, target, livebackup.RestoreOptions{})
	if err != nil {
		return err.Error()
	}
	db, err := kv.Open(target, kv.Options{Store: mvcc.Options{MaxRAM: 256 << 20}})
	if err != nil {
		return err.Error()
	}
	err = db.Check(ctx)
	if is := db.Store().Status().NewestLSN; is != res.Manifest.EndLSN {
		err = errors.Join(err, fmt.Errorf("restored to LSN %v, it is at %v", res.Manifest.EndLSN, is))
	}
	if err = errors.Join(err, db.Close(), os.RemoveAll(target)); err != nil {
		return err.Error()
	}
	return ""
}
