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

// rolls reports whether a standby is built.
func (r *restore) rolls() bool { return len(r.plan.Logs) > 0 || r.o.Standby }

// info is what is built. A standby is built on the timeline that the log comes from,
// which may have forked behind the backup.
func (r *restore) info() mvcc.BackupInfo {
	info := infoOf(&r.plan.Backup)
	switch {
	case r.o.Standby:
		info.Timeline, info.History = r.plan.history[0].Timeline, r.plan.history[1:]
	case r.rolls():
		info.Timeline, info.History = r.plan.history.at(r.plan.LSN)
	}
	return info
}

// digest names what the restore does.
func (r *restore) digest() Digest {
	info := r.info()
	return planDigest(r.plan.members, fmt.Sprintf("to %v of %v, standby %v", r.plan.LSN, info.Timeline, r.o.Standby))
}

// forward rolls the standby in dir forward to the plan's LSN, or goes on with that,
// and makes it what was asked for.
func (r *restore) forward(ctx context.Context, dir string) error {
	err := r.rollForward(ctx, dir)
	var lost *LogLostError
	if !errors.As(err, &lost) {
		return err
	}
	if err := r.endBefore(ctx, lost); err != nil || r.o.Standby {
		return err
	}
	if err := mvcc.Promote(dir, r.storeOptions()); err != nil && !errors.Is(err, mvcc.ErrNotStandby) {
		return err
	}
	return nil
}

// endBefore makes it the restore's end what is there, unless there is another way to
// the state that was asked for.
func (r *restore) endBefore(ctx context.Context, lost *LogLostError) error {
	r.bad.logs[lost.Object] = lost.Lost.From
	other, err := planRestore(ctx, r.repo, r.target, r.bad)
	switch {
	case err == nil && other.LSN >= r.plan.LSN:
		return errOtherWay
	case err != nil && !errors.Is(err, ErrUnreachable):
		return err
	}
	r.endAt(lost.Lost.From)
	return nil
}

// endAt says that the restore ends at lsn, short of what was asked for.
func (r *restore) endAt(lsn block.LSN) {
	r.plan.Lost = &LogRange{lsn, r.plan.LSN}
	if r.plan.Target.Recover == RecoverAll {
		r.plan.Lost.To = r.plan.newest
	}
	r.plan.LSN, r.plan.Time = lsn, r.reached
}

// rollForward applies the log, and promotes where it came to the end.
func (r *restore) rollForward(ctx context.Context, dir string) (err error) {
	store, err := mvcc.Open(dir, r.storeOptions())
	if err != nil {
		return fmt.Errorf("open what was built: %w", err)
	}
	defer func() {
		if err == nil && store.Standby() && !r.o.Standby {
			err = store.ClosePromoted()
		} else {
			err = errors.Join(err, store.Close())
		}
	}()
	at, when := store.NewestCommit()
	sum := uint32(0)
	if !store.Standby() { // it was promoted: by one that was cut off between that and the end
		if r.reached = when; at < r.plan.LSN {
			r.endAt(at) // that one had met damage
		}
		return nil
	}
	if at == r.plan.Backup.EndLSN {
		sum = r.plan.Backup.RecordSum
	}
	m := newMeter(r.o.Progress)
	m.now.LSN, m.now.EndLSN = at, r.plan.LSN
	defer func() {
		r.logBytes = m.now.LogBytes
		_, r.reached = store.NewestCommit()
	}()
	return r.repo.readLog(ctx, r.plan.logs, r.plan.history, LogRange{at, r.plan.LSN}, sum, func(rec mvcc.LogRecord) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := store.Apply(rec); err != nil {
			return fmt.Errorf("roll forward: %w", err)
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
