package livebackup

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Rolling forward. What a chain of backups leads to is built as a standby. The
// archived log is applied to it commit by commit, under the LSNs that the commits
// have, and logged in its own log (R20): so a roll-forward that is killed goes on
// where it was when it is started again. At the end the standby is promoted: it
// begins a timeline of its own (L14).

// at is the timeline that commit lsn of the history belongs to, and those that led
// to it.
func (l lineage) at(lsn block.LSN) (block.TimelineID, []block.Fork) {
	i := 0
	for i+1 < len(l) && lsn <= l[i+1].LSN {
		i++
	}
	return l[i].Timeline, l[i+1:]
}

// forward rolls the standby in dir forward to the plan's LSN, or goes on with it.
// A *LogLostError says that the log was lost on the way: what came before it is
// applied, and durable.
func (r *restore) forward(ctx context.Context, dir string) (err error) {
	store, err := mvcc.Open(dir, r.storeOptions())
	if err != nil {
		return fmt.Errorf("open what was built: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if !store.Standby() {
		return nil // it was promoted, and is at the plan's end
	}
	at := store.NewestLSN()
	sum := uint32(0)
	if at == r.plan.Backup.EndLSN {
		sum = r.plan.Backup.RecordSum
	}
	m := newMeter(r.o.Progress)
	m.now.Rolling, m.now.LSN, m.now.EndLSN = true, at, r.plan.LSN
	return r.repo.readLog(ctx, r.plan.logs, r.plan.history, LogRange{at, r.plan.LSN}, sum, func(rec mvcc.LogRecord) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := store.Apply(rec); err != nil {
			return fmt.Errorf("roll forward: commit %v: %w", rec.LSN, err)
		}
		m.rolled(rec)
		return nil
	})
}

// rolled counts a record of log that was applied.
func (p *meter) rolled(rec mvcc.LogRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.LogBytes += int64(len(rec.Body))
	if rec.Last {
		p.now.LSN = rec.LSN
		p.tell()
	}
}

// storeOptions are of a store that nobody but the restore has open. Its commits are
// made durable by checkpoints and when it is closed: until then the archive has them.
func (r *restore) storeOptions() mvcc.Options {
	return mvcc.Options{FS: r.o.FS, MaxRAM: r.o.MaxRAM, Durability: mvcc.DurableNever, CloseWait: -1}
}

// settle makes the standby in dir what was asked for, once it is rolled forward.
func (r *restore) settle(dir string) error {
	if r.o.Standby {
		return nil
	}
	if err := mvcc.Promote(dir, r.storeOptions()); err != nil && !errors.Is(err, mvcc.ErrNotStandby) {
		return fmt.Errorf("promote: %w", err)
	}
	return nil
}
