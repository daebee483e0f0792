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
// Where log is missing it waits: an archive may have been late. Damage is a
// *LogLostError, and nothing behind it is applied.
func Follow(ctx context.Context, repo *Repository, store *mvcc.Store, o FollowOptions) error {
	if o.Every == 0 {
		o.Every = time.Second
	}
	for {
		p, err := followOnce(ctx, repo, store)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow: %w", err)
		}
		if o.Progress != nil {
			o.Progress(p)
		}
		sleepUntil(ctx, time.Now().Add(o.Every))
	}
}

// followOnce applies what there is.
func followOnce(ctx context.Context, repo *Repository, store *mvcc.Store) (p FollowProgress, err error) {
	logs, err := repo.logs(ctx)
	if err != nil {
		return p, err
	}
	at := store.Status().NewestLSN
	history := lineageOf(store.Timeline(), store.History())
	if list := coverage(logs, history, at); len(list) > 0 {
		to := list[0].To
		if list[0].From > at {
			p.Hole = &LogRange{at, list[0].From}
			to = at
		}
		err = repo.readLog(ctx, logs, history, LogRange{at, to}, 0, func(rec mvcc.LogRecord) error {
			return errors.Join(context.Cause(ctx), store.Apply(rec))
		})
	}
	st := store.Status()
	p.LSN, p.Time = st.NewestLSN, st.LastCommit
	return p, err
}
