package livebackup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// FollowOptions of Follow. The zero value is good.
type FollowOptions struct {
	// Every is how often the repository is asked for new log; 0: one second.
	Every time.Duration
	// Progress is called after each turn, by the goroutine that called Follow.
	Progress func(FollowProgress)
	// Warn is told, by the same goroutine, of what Follow goes on after: a repository
	// that cannot be read for now. May be nil.
	Warn func(error)
}

// FollowProgress is how far a standby is.
type FollowProgress struct {
	LSN  block.LSN // newest commit that was applied
	Time time.Time // of that commit
	Hole *LogRange // log that is missing, for which it waits; nil if there is none
}

// Follow rolls a standby forward by the archived log as it grows, until ctx ends:
// then it returns nil, and the store may be closed. Readers of the store see each
// commit as it is applied.
//
// Where log is missing it waits: an archive may have been late. While the repository
// cannot be read it tries again and again, waiting longer each time, as [Archive] does; and
// goes on within the commit where it was cut off. Damage is a *LogLostError, and nothing behind
// it is applied; that, log of another history, and an error of the store end it.
func Follow(ctx context.Context, repo *Repository, store *mvcc.Store, o FollowOptions) error {
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	f := follower{repo: repo, store: store}
	for wait := retryMin; ; {
		p, err := f.once(ctx)
		next := o.Every
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, new(repositoryTrouble)):
			o.Warn(err)
			next, wait = max(wait, o.Every), min(2*wait, retryMax)
		case err != nil:
			return fmt.Errorf("follow: %w", err)
		default:
			wait = retryMin
			if o.Progress != nil {
				o.Progress(p)
			}
		}
		sleepUntil(ctx, time.Now().Add(next))
	}
}

// follower rolls a standby forward. A reading that is cut off within a commit, the
// records of which before that are in the standby's log, is begun again, be it by another
// follower: those are skipped then, since an archived commit never changes.
type follower struct {
	repo  *Repository
	store *mvcc.Store
}

// once applies what there is.
func (f *follower) once(ctx context.Context) (p FollowProgress, err error) {
	repo, store := f.repo, f.store
	logs, err := repo.logs(ctx)
	if err != nil {
		return p, trouble(err)
	}
	at := store.Status().NewestLSN
	history := lineageOf(store.Timeline(), store.History())
	if list := coverage(logs, history, at); len(list) > 0 {
		to := list[0].To
		if list[0].From > at {
			p.Hole = &LogRange{at, list[0].From}
			to = at
		}
		var failed error // of the store
		begun, skip := store.Applying()
		err = repo.readLog(ctx, logs, history, LogRange{at, to}, 0, func(rec mvcc.LogRecord) error {
			if skip > 0 && rec.LSN == begun {
				skip--
				return nil
			}
			failed = store.Apply(rec)
			return errors.Join(context.Cause(ctx), failed)
		})
		if err != nil && failed == nil && !errors.As(err, new(*LogLostError)) && !logDamage(err) {
			err = trouble(err)
		}
	}
	st := store.Status()
	p.LSN, p.Time = st.NewestLSN, st.LastCommit
	return p, err
}
