package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// follow opens the standby that was restored, serves it, and rolls it forward until
// the command is stopped.
func (a *app) follow(ctx context.Context, repo *livebackup.Repository, f restoreFlags) (err error) {
	db, err := kv.Open(f.target, kv.Options{Store: mvcc.Options{MaxRAM: int64(f.maxRAM)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	server, err := livebackup.Serve(db.Store(), livebackup.ServeOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	a.note("following: Ctrl-C ends it; status, check and backup work meanwhile")
	var last livebackup.FollowProgress
	return livebackup.Follow(ctx, repo, db.Store(), livebackup.FollowOptions{Progress: func(p livebackup.FollowProgress) {
		if p.LSN != last.LSN {
			a.note("at LSN %v, of %s", p.LSN, exactly(p.Time))
		}
		if p.Hole != nil && last.Hole == nil {
			a.note("waiting: commits %v to %v are not in the archive", p.Hole.From+1, p.Hole.To)
		}
		last = p
	}})
}

const promoteLong = `Makes a standby, which no process has open, a database that can be written. It
begins a new timeline, whose LSNs go on from where the standby is.`

const forkLong = `Puts a database, which no process has open, on a new timeline. That is for a
copy of a database directory, or one that was rolled back with its machine: as
long as it is on the timeline of the other one, a repository that both know
refuses its backups.`

func (a *app) promote() *cobra.Command {
	return a.leaveTimeline("promote", "Make a standby a database that can be written", promoteLong, mvcc.Promote)
}

func (a *app) fork() *cobra.Command {
	return a.leaveTimeline("fork", "Put a copied database on a timeline of its own", forkLong, mvcc.Fork)
}

// timelineResult is what promote and fork print.
type timelineResult struct {
	Timeline string    `json:"timeline"` // the new one
	LSN      block.LSN `json:"lsn"`      // where it begins
}

func (a *app) leaveTimeline(name, short, long string, leave func(string, mvcc.Options) error) *cobra.Command {
	var dir string
	var maxRAM human.Size
	c := &cobra.Command{
		Use: name + " --db DIR", Short: short, Long: long,
		Example: fmt.Sprintf("  livebackup %s --db /srv/app/db", name), Args: cobra.NoArgs,
		RunE: a.command(func(context.Context, []string) error {
			if err := mustBeThere(dir); err != nil {
				return err
			}
			o := mvcc.Options{MaxRAM: int64(maxRAM)}
			if err := leave(dir, o); err != nil {
				return err
			}
			store, err := mvcc.Open(dir, o)
			if err != nil {
				return err
			}
			out := timelineResult{store.Timeline().String(), store.Status().NewestLSN}
			if err := store.Close(); err != nil {
				return err
			}
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is on timeline %s now, from LSN %v on\n", dir, out.Timeline, out.LSN)
			})
		}),
	}
	c.Flags().StringVar(&dir, "db", "", "directory of the database (required)")
	c.Flags().Var(&maxRAM, "max-ram", "memory for the database; 0 is a quarter of what the host allows")
	require(c, "db")
	return c
}
