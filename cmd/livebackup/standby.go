package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// errPromote ends the following of a standby that is to be promoted.
var errPromote = errors.New("the standby is promoted")

// follow opens the standby that was restored, serves it, and rolls it forward until
// the command is stopped or the standby is promoted.
func (a *app) follow(ctx context.Context, repo *livebackup.Repository, f restoreFlags) (err error) {
	o := mvcc.Options{MaxRAM: int64(f.maxRAM), Existing: true}
	db, err := kv.Open(f.target, kv.Options{Store: o})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	following, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan struct{}) // the following
	var promoted sync.Mutex      // held while it is promoted
	server, err := livebackup.Serve(db.Store(), livebackup.ServeOptions{Promote: func(context.Context) (livebackup.Promoted, error) {
		promoted.Lock()
		defer promoted.Unlock()
		stop(errPromote)
		<-ended
		if ctx.Err() != nil {
			return livebackup.Promoted{}, livebackup.ErrServerClosed
		}
		if err := db.Close(); err != nil {
			return livebackup.Promoted{}, err
		}
		return leaveTimeline(f.target, o, mvcc.Promote)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	a.note("following: Ctrl-C ends it, \"livebackup promote\" makes it writable;\n  status, check and backup work meanwhile")
	err = a.rollForward(following, repo, db)
	close(ended)
	if context.Cause(following) == errPromote && ctx.Err() == nil {
		a.note("asked to promote the standby: following ends here")
	}
	return err
}

// rollForward follows the archive and tells how far it is.
func (a *app) rollForward(ctx context.Context, repo *livebackup.Repository, db *kv.DB) error {
	var last livebackup.FollowProgress
	return livebackup.Follow(ctx, repo, db.Store(), livebackup.FollowOptions{
		Warn: func(err error) { a.note("trying again: %v", err) },
		Progress: func(p livebackup.FollowProgress) {
			if p.LSN != last.LSN {
				a.note("at LSN %v, of %s", p.LSN, exactly(p.Time))
			}
			if p.Hole != nil && last.Hole == nil {
				a.note("waiting: commits %v to %v are not in the archive", p.Hole.From+1, p.Hole.To)
			}
			if p.Abandoned != nil && last.Abandoned == nil {
				a.note("%v", p.Abandoned)
			}
			last = p
		},
	})
}

const promoteLong = `Makes a standby a database that can be written. It begins a new timeline, whose
LSNs go on from where the standby is. If "restore --standby --follow" is rolling
it forward, that process stops, promotes it, and ends; else no process may have
it open.`

const forkLong = `Puts a database, which no process has open, on a new timeline. That is for a
copy of a database directory, or one that was rolled back with its machine: as
long as it is on the timeline of the other one, a repository that both know
refuses its backups.`

func (a *app) promote() *cobra.Command {
	return a.leaveTimeline("promote", "Make a standby a database that can be written", promoteLong, promoteAnywhere)
}

func (a *app) fork() *cobra.Command {
	return a.leaveTimeline("fork", "Put a copied database on a timeline of its own", forkLong,
		func(_ context.Context, dir string, o mvcc.Options) (livebackup.Promoted, error) {
			return leaveTimeline(dir, o, mvcc.Fork)
		})
}

// promoteAnywhere asks the process that serves the standby, or does it here.
func promoteAnywhere(ctx context.Context, dir string, o mvcc.Options) (livebackup.Promoted, error) {
	client, err := livebackup.Dial(dir)
	if err == nil {
		return client.Promote(ctx)
	}
	if !errors.Is(err, livebackup.ErrNotServed) {
		return livebackup.Promoted{}, err
	}
	return leaveTimeline(dir, o, mvcc.Promote)
}

// leaveTimeline puts a database that nobody has open on a new timeline.
func leaveTimeline(dir string, o mvcc.Options, leave func(string, mvcc.Options) error) (out livebackup.Promoted, err error) {
	if err := leave(dir, o); err != nil {
		return out, err
	}
	store, err := mvcc.Open(dir, o)
	if err != nil {
		return out, err
	}
	out = livebackup.Promoted{Timeline: store.Timeline().String(), LSN: store.Status().NewestLSN}
	return out, store.Close()
}

func (a *app) leaveTimeline(name, short, long string, leave func(context.Context, string, mvcc.Options) (livebackup.Promoted, error)) *cobra.Command {
	var dir string
	var maxRAM human.Size
	c := &cobra.Command{
		Use: name + " --db DIR", Short: short, Long: long,
		Example: fmt.Sprintf("  livebackup %s --db /srv/app/db", name), Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error {
			if err := mustBeThere(dir); err != nil {
				return err
			}
			out, err := leave(ctx, dir, mvcc.Options{MaxRAM: int64(maxRAM), Existing: true})
			if err != nil {
				return err
			}
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is on timeline %s now, from LSN %v on\n", dir, out.Timeline, out.LSN)
			})
		}),
	}
	c.Flags().StringVar(&dir, "db", "", "`directory` of the database (required)")
	c.Flags().Var(&maxRAM, "max-ram", "memory for the database; 0 is a quarter of what the host allows")
	require(c, "db")
	return c
}
