package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// idleBackup is a backup that nobody disturbs.
func (m *measurement) idleBackup(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	return m.profiled(func() error {
		began := time.Now()
		r, err := m.db.Backup(ctx, m.Backup)
		if err == nil && r.Broken != "" {
			err = errors.New(r.Broken)
		}
		m.Metrics["backup_seconds"] = time.Since(began).Seconds()
		m.Metrics["stored_bytes"] = float64(r.StoredBytes)
		return err
	})
}

// settle is left out after a backup: what it held is given back then.
const settle = time.Second

// quietMax bounds how long the load runs on after a backup.
const quietMax = time.Minute

// liveBackup is a backup of a database that is written to:
//
//	|- warm-up -|- before -|- backup -|- settling -|- after -|
//
// Before and after, the quiet time, are together at least as long as the backup,
// so that the longest commit of either is looked for equally long.
func (m *measurement) liveBackup(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	load, err := m.Load.Start(ctx, m.db)
	if err != nil {
		return err
	}
	observed := observe(m.db, load.start)
	var p phases
	var result BackupResult
	err = m.profiled(func() (err error) {
		p.before = Span{m.Warmup, m.Warmup + m.Duration}
		sleepUntil(ctx, load.start.Add(p.before.To))
		p.backup.From = load.Since()
		result, err = m.db.Backup(ctx, m.Backup)
		p.backup.To = load.Since()
		p.after.From = p.backup.To + settle
		p.after.To = p.after.From + min(max(p.backup.Length()-p.before.Length(), m.Duration/2), quietMax)
		if err == nil {
			sleepUntil(ctx, load.start.Add(p.after.To))
		}
		return err
	})
	p.gauges = observed()
	trace, stopErr := load.Stop()
	if err := errors.Join(err, stopErr, ctx.Err()); err != nil {
		return fmt.Errorf("live backup: %w", err)
	}
	m.Note = result.Broken
	m.Metrics["broken"] = 0
	if result.Broken != "" {
		m.Metrics["broken"] = 1
	}
	m.Metrics["stored_bytes"] = float64(result.StoredBytes)
	p.throughput(m.Metrics, trace)
	p.latency(m.Metrics, trace)
	p.growth(m.Metrics)
	m.memory()
	return nil
}

// rssSlack is what a process may take beyond MaxRAM and overflow.
const rssSlack = 64 << 20

// memory compares the process's peak with what was granted.
func (m *measurement) memory() {
	peak := peakResident()
	granted := m.Config.RAMBytesMax + m.db.Gauges().OverflowPeak + rssSlack
	m.Metrics["rss_peak_bytes"] = float64(peak)
	m.Metrics["rss_granted_bytes"] = float64(granted)
	m.Metrics["rss_share"] = float64(peak) / float64(granted)
}

// gaugesAt are gauges at a time.
type gaugesAt struct {
	at time.Duration // since the load's start
	Gauges
}

// observeEvery is short enough to see segments of the log come and go.
const observeEvery = 20 * time.Millisecond

// observe reads the gauges again and again. What it returns ends that, and
// returns what was read.
func observe(db DB, start time.Time) (stop func() []gaugesAt) {
	quit := make(chan struct{})
	var list []gaugesAt
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(observeEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				g := db.Gauges()
				list = append(list, gaugesAt{time.Since(start), g})
			}
		}
	})
	return func() []gaugesAt {
		close(quit)
		done.Wait()
		return list
	}
}
