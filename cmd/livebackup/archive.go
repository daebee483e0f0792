package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/internal/interrupt"
	"github.com/spillwaydb/spillway/livebackup"
)

const archiveLong = `Follows the log of a database and archives it in the repository, so that any
commit can be restored, and at most some seconds are lost with the database.
It goes on until Ctrl-C: then it archives what is durable, and ends.

A commit is in the repository at the latest --every after it became durable.
What the database keeps of its log for an archive that is late is bounded; past
that there is a hole, which is said at once and shown by "livebackup logs", and
the next backup closes it.`

const archiveExample = `  livebackup archive --db /srv/app/db --repo /backups/app
  livebackup archive --db /srv/app/db --repo /backups/app --every 2s`

type archiveFlags struct {
	database databaseFlags
	repo     repositoryFlags
	every    human.Duration
}

func (a *app) archive() *cobra.Command {
	f := archiveFlags{every: human.Duration(10 * time.Second)}
	c := &cobra.Command{
		Use: "archive --db DIR --repo DIR", Short: "Archive the log of a database as it grows, until Ctrl-C",
		Long: archiveLong, Example: archiveExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runArchive(ctx, f) }),
	}
	f.database.add(c)
	f.repo.add(c)
	f.repo.addRecipients(c)
	c.Flags().Var(&f.every, "every", "how long a durable commit may wait")
	return c
}

// archiveJSON is what the archive command prints at its end.
type archiveJSON struct {
	livebackup.ArchiveStatus
	Failure string `json:"failure,omitempty"`
}

func (a *app) runArchive(ctx context.Context, f archiveFlags) (err error) {
	db, err := f.database.reach(ctx)
	if err != nil {
		return err
	}
	defer db.close(&err)
	repo, err := f.repo.openOrMake(ctx)
	if err != nil {
		return err
	}
	a.note("database: %s", db.how())
	a.note("archiving; Ctrl-C ends it")
	var last livebackup.ArchiveStatus
	err = a.keepArchiving(ctx, f, db, repo, livebackup.ArchiveOptions{
		Every: time.Duration(f.every),
		Progress: func(s livebackup.ArchiveStatus) {
			if s.Objects > last.Objects {
				a.note("LSN %v is archived: %s, %s", s.ArchivedLSN, human.Plural(s.Objects, "object"), human.Bytes(s.Bytes))
			}
			last = s
		},
		Warn: func(err error) { a.warn("warning: %v", err) },
	})
	if err != nil && !(interrupt.Code(ctx) != 0 && errors.Is(err, context.Cause(ctx))) {
		return err
	}
	out := archiveJSON{ArchiveStatus: last}
	out.Holes = listed(out.Holes)
	if last.Failure != nil {
		out.Failure = last.Failure.Error()
	}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "archived up to LSN %v, of %v that are durable: %s, %s\n", last.ArchivedLSN, last.DurableLSN,
			human.Plural(last.Objects, "object"), human.Bytes(last.Bytes))
		for _, h := range last.Holes {
			fmt.Fprintf(w, "NOT ARCHIVED: commits %v to %v\n", h.From+1, h.To)
		}
	})
}

// awaitDatabase is how often a database whose process has ended is looked for.
const awaitDatabase = 2 * time.Second

// keepArchiving goes on when the process that serves the database ends and comes
// back. A database that nobody serves is left to whoever opens it next.
func (a *app) keepArchiving(ctx context.Context, f archiveFlags, db *database, repo *livebackup.Repository, o livebackup.ArchiveOptions) error {
	for told := false; ; told = true {
		err := livebackup.Archive(ctx, db, repo, o)
		lost := errors.Is(err, livebackup.ErrDisconnected) || errors.Is(err, livebackup.ErrServerClosed) || errors.Is(err, livebackup.ErrNotServed)
		if !db.served || !lost || ctx.Err() != nil {
			return err
		}
		if !told {
			a.warn("the database is not served any more: waiting for it to come back (%v)", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(awaitDatabase):
		}
	}
}

const markLong = `Gives the database's newest state a name, by a commit that changes nothing, and
prints its LSN when it is durable. With the log archived,
"livebackup restore --name NAME" goes there, and --before just before it.`

func (a *app) mark() *cobra.Command {
	var f databaseFlags
	c := &cobra.Command{
		Use: "mark --db DIR NAME", Short: "Name the present state, to restore to",
		Long: markLong, Example: `  livebackup mark --db /srv/app/db "before the migration"`, Args: cobra.ExactArgs(1),
		RunE: a.command(func(ctx context.Context, args []string) (err error) {
			db, err := f.reach(ctx)
			if err != nil {
				return err
			}
			defer db.close(&err)
			lsn, err := db.Mark(ctx, args[0])
			if err != nil {
				return err
			}
			out := map[string]any{"name": args[0], "lsn": lsn}
			return a.print(out, func(w io.Writer) { fmt.Fprintf(w, "%q is LSN %v\n", args[0], lsn) })
		}),
	}
	f.add(c)
	return c
}
