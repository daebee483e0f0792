package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// measurement is a task being done, by the process that was made for it.
type measurement struct {
	Task
	*Outcome
	engine Engine
	db     DB // once opened

	databaseRead atomic.Int64 // bytes, of the database of blocks
}

// measurements are the tasks that there are, by name.
func measurements() map[string]func(*measurement, context.Context) error {
	return map[string]func(*measurement, context.Context) error{
		"load":         (*measurement).bulkLoad,
		"commits":      (*measurement).commits,
		"reads":        (*measurement).reads,
		"scans":        (*measurement).scans,
		"readers":      (*measurement).openReaders,
		"idle-backup":  (*measurement).idleBackup,
		"live-backups": (*measurement).liveBackup,

		"fill-blocks":   (*measurement).fillBlocks,
		"incremental":   (*measurement).incremental,
		"copying":       (*measurement).copying,
		"make-chain":    (*measurement).makeChain,
		"restore-chain": (*measurement).restoreChain,
		"roll-forward":  (*measurement).rollForward,
	}
}

func (m *measurement) open() error {
	db, err := m.engine.Open(m.Dir, m.Config)
	if err != nil {
		return fmt.Errorf("open %s: %w", m.Dir, err)
	}
	m.db = db
	return nil
}

// close closes the database, if it is open.
func (m *measurement) close() error {
	if m.db == nil {
		return nil
	}
	m.db.Gauges().metrics(m.Metrics)
	err := m.db.Close()
	m.db = nil
	return err
}

// profiled runs the part that counts.
func (m *measurement) profiled(fn func() error) error {
	if m.CPUProfile == "" {
		return fn()
	}
	f, err := os.Create(m.CPUProfile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = fn()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// loadBatch is how many records a transaction of a bulk load puts.
const loadBatch = 1000

// bulkLoad puts all records into a new database and closes it. The time is that
// of the puts; what is written counts until the database is closed.
func (m *measurement) bulkLoad(ctx context.Context) error {
	var order []uint32
	if m.InOrder {
		order = recordsInKeyOrder(m.Records)
	}
	before := writtenNow(m.Dir)
	if err := m.open(); err != nil {
		return err
	}
	began := time.Now()
	if err := m.profiled(func() error { return m.putAll(ctx, order) }); err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	if err := m.close(); err != nil {
		return err
	}
	user := float64(m.Records) * float64(KeyBytes+m.ValueBytes)
	m.Metrics["puts_per_second"] = float64(m.Records) / seconds
	m.Metrics["close_seconds"] = time.Since(began).Seconds() - seconds
	writtenNow(m.Dir).since(before, m.Metrics, user)
	return nil
}

// putAll puts records 0, 1, 2..., whose keys are in random order, or those of order.
func (m *measurement) putAll(ctx context.Context, order []uint32) error {
	src := newSource(0, 0)
	values, keys := make([]byte, loadBatch*m.ValueBytes), make([]byte, 0, loadBatch*KeyBytes)
	for from := 0; from < m.Records; from += loadBatch {
		src.fill(values)
		if m.Load.Compressible {
			thin(values, m.ValueBytes)
		}
		err := m.db.Update(func(tx Writer) error {
			key, value := keys, values
			for i := from; i < min(from+loadBatch, m.Records); i++ {
				record := uint64(i)
				if order != nil {
					record = uint64(order[i])
				}
				key = AppendKey(key[len(key):], record)
				if err := tx.Put(key, value[:m.ValueBytes]); err != nil {
					return err
				}
				value = value[m.ValueBytes:]
			}
			return nil
		})
		if err := errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("load records from %d on: %w", from, err)
		}
	}
	return nil
}

// commits measures a load by itself.
func (m *measurement) commits(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	load, err := m.Load.Start(ctx, m.db)
	if err != nil {
		return err
	}
	window := Span{m.Warmup, m.Warmup + m.Duration}
	sleepUntil(ctx, load.start.Add(window.From))
	err = m.profiled(func() error {
		sleepUntil(ctx, load.start.Add(window.To))
		return nil
	})
	trace, stopErr := load.Stop()
	if err := errors.Join(err, stopErr, ctx.Err()); err != nil {
		return err
	}
	m.Metrics["commits_per_second"] = trace.PerSecond(window)
	trace.Latencies(window).metrics(m.Metrics, "")
	return nil
}

// touch looks at an entry, so that an engine which only points at it has brought
// it into memory.
func touch(sum *uint64, key, value []byte) {
	*sum += uint64(key[len(key)-1]) + uint64(value[0]) + uint64(value[len(value)-1])
}

// scans counts whole scans, after one that warms the caches.
func (m *measurement) scans(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	scan := m.db.Scan
	if m.Copying {
		scan = m.db.Walk
	}
	records, sum := 0, uint64(0)
	use := func(key, value []byte) {
		records++
		touch(&sum, key, value)
	}
	if err := scan(use); err != nil {
		return err
	}
	if records != m.Records {
		return fmt.Errorf("scan met %d records of %d", records, m.Records)
	}
	records = 0
	began := time.Now()
	err := m.profiled(func() error {
		for time.Since(began) < m.Duration && ctx.Err() == nil {
			if err := scan(use); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	m.Metrics["records_per_second"] = float64(records) / time.Since(began).Seconds()
	return err
}

// reads counts random point reads of several goroutines.
func (m *measurement) reads(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	if m.Warmup == 0 { // everything fits: one scan warms all
		sum := uint64(0)
		if err := m.db.Scan(func(key, value []byte) { touch(&sum, key, value) }); err != nil {
			return err
		}
	} else if _, err := m.readFor(ctx, m.Warmup); err != nil {
		return err
	}
	return m.profiled(func() error {
		began := time.Now()
		n, err := m.readFor(ctx, m.Duration)
		m.Metrics["reads_per_second"] = float64(n) / time.Since(began).Seconds()
		return err
	})
}

// readFor reads with all goroutines for a while and counts.
func (m *measurement) readFor(ctx context.Context, d time.Duration) (total int, err error) {
	counts, errs := make([]int, max(m.Readers, 1)), make([]error, max(m.Readers, 1))
	end := time.Now().Add(d)
	var done sync.WaitGroup
	for i := range counts {
		done.Go(func() {
			src := newSource(uint64(d), uint64(i))
			n := 0
			for errs[i] == nil && ctx.Err() == nil && time.Now().Before(end) {
				errs[i] = m.readSome(src)
				n += readsAtOnce
			}
			counts[i] = n
		})
	}
	done.Wait()
	for _, n := range counts {
		total += n
	}
	return total, errors.Join(append(errs, ctx.Err())...)
}

// readsAtOnce is how many reads are done between two looks at the clock.
const readsAtOnce = 20

func (m *measurement) readSome(src source) error {
	sum := uint64(0)
	var buf [KeyBytes]byte
	key := buf[:0]
	use := func(value []byte) { touch(&sum, key, value) }
	for range readsAtOnce {
		key = AppendKey(buf[:0], src.Uint64N(uint64(m.Records)))
		if err := m.db.Get(key, use); err != nil {
			return err
		}
	}
	return nil
}
