package livebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// Abandoned says, as ErrTimelineAbandoned, that another timeline took the place of the
	// standby's, behind the log of which it does not go on: what the standby's primary may
	// still archive comes, and no more. Nil if none did.
	Abandoned error
}

// Follow rolls a standby forward by the archived log as it grows, until ctx ends:
// then it returns nil, and the store may be closed. Readers of the store see each
// commit as it is applied.
//
// Where log is missing it waits: an archive may have been late. While the repository
// cannot be read it tries again and again, waiting longer each time, as [Archive] does; and
// goes on within the commit where it was cut off. Damage is a *LogLostError, and nothing behind
// it is applied; that, and an error of the store, end it.
//
// So does a repository from which nothing can come any more: it is another database's
// ([ErrForeignDatabase]) or has nothing of this one's history ([ErrForeignTimeline]); or, as far
// as times of commits tell, it is of a copy of the database that went on by itself
// ([mvcc.ErrHistory]).
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

	known     []uint32 // records of timelines that were there when this was found out:
	abandoned error    // as FollowProgress says
}

// once applies what there is.
func (f *follower) once(ctx context.Context) (p FollowProgress, err error) {
	repo, store := f.repo, f.store
	c, err := repo.catalog(ctx)
	if err != nil {
		return p, trouble(err)
	}
	if err := f.checkDatabase(ctx); err != nil {
		return p, err
	}
	at, when := store.NewestCommit()
	history := lineageOf(store.Timeline(), store.History())
	if list := coverage(c.logs, history, at); len(list) > 0 {
		to := list[0].To
		if list[0].From > at {
			p.Hole = &LogRange{at, list[0].From}
			to = at
		} else if err := f.checkCommit(ctx, history, at, when); err != nil {
			return p, err
		}
		if err = f.apply(ctx, c.logs, history, LogRange{at, to}); err != nil {
			return p, err
		}
	}
	p.LSN, p.Time = store.NewestCommit()
	err = f.checkTimeline(ctx, c)
	p.Abandoned = f.abandoned
	return p, err
}

// apply applies archived log.
func (f *follower) apply(ctx context.Context, logs []LogObject, history lineage, want LogRange) error {
	var failed error // of the store
	begun, skip := f.store.Applying()
	err := f.repo.readLog(ctx, logs, history, want, 0, func(rec mvcc.LogRecord) error {
		if skip > 0 && rec.LSN == begun {
			skip--
			return nil
		}
		failed = f.store.Apply(rec)
		return errors.Join(context.Cause(ctx), failed)
	})
	if err != nil && failed == nil && !errors.As(err, new(*LogLostError)) {
		err = troubleUnlessDamage(err)
	}
	return err
}

// troubleUnlessDamage is err as one that the next try may not have, unless it says that
// something is not what it should be.
func troubleUnlessDamage(err error) error {
	if logDamage(err) {
		return err
	}
	return trouble(err)
}

// checkDatabase refuses the repository of another database.
func (f *follower) checkDatabase(ctx context.Context) error {
	owner, bound, err := f.repo.Database(ctx)
	if err != nil {
		return troubleUnlessDamage(err)
	}
	if bound && owner != f.store.Database() {
		return fmt.Errorf("%w: it keeps %v, the standby is of %v", ErrForeignDatabase, owner, f.store.Database())
	}
	return nil
}

// checkCommit refuses to go on behind commit at where that is another one in the archive.
func (f *follower) checkCommit(ctx context.Context, history lineage, at block.LSN, when time.Time) error {
	err := f.repo.checkWitness(ctx, history, witnessOf(ctx, NewSource(f.store), at, when))
	if err == nil || errors.Is(err, mvcc.ErrHistory) {
		return err
	}
	return troubleUnlessDamage(err)
}

// checkTimeline finds out whether log of the standby's timeline can come yet: whether its
// primary may begin to push it. Where that cannot be told now it can at another turn.
func (f *follower) checkTimeline(ctx context.Context, c *catalog) error {
	if len(c.timelines) == 0 || slices.Equal(c.timelines, f.known) {
		return nil
	}
	own := f.store.Timeline()
	g, err := f.repo.timelines(ctx, own)
	if err != nil || g.unread != nil {
		return nil
	}
	_, err = g.admit(own, f.store.History())
	if err != nil && !errors.Is(err, ErrTimelineAbandoned) {
		return err
	}
	f.known, f.abandoned = c.timelines, nil
	if err != nil {
		now, _ := g.present()
		f.abandoned = fmt.Errorf("%w: the standby is of %v, the present one of the repository is %v: promote the standby, or restore another one",
			ErrTimelineAbandoned, own, now[0].Timeline)
	}
	return nil
}
