package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
)

const releaseLong = `Ends a live snapshot of a database: a reader that was forgotten, or a backup.
Whoever uses it gets an error that says so; what was kept for it is freed.

The number is the one that "livebackup status" shows. Readers without a name
are one entry there, and are ended together with all others that read at the
same commit.`

// releaseResult is what the release command prints.
type releaseResult struct {
	ID       uint64 `json:"id"`
	Released bool   `json:"released"`
}

func (r releaseResult) text(w io.Writer) { fmt.Fprintf(w, "snapshot %d was released\n", r.ID) }

func (a *app) release() *cobra.Command {
	var f databaseFlags
	c := &cobra.Command{
		Use: "release ID --db DIR", Short: "End a live snapshot", Long: releaseLong,
		Example: "  livebackup release 12 --db /srv/app/db", Args: cobra.ExactArgs(1),
		RunE: a.command(func(ctx context.Context, args []string) (err error) {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return &usageError{fmt.Errorf("%q is no number of a snapshot", args[0])}
			}
			db, err := f.reach(ctx)
			if err != nil {
				return err
			}
			defer db.close(&err)
			if err := db.Release(ctx, id); err != nil {
				return err
			}
			r := releaseResult{id, true}
			return a.print(r, r.text)
		}),
	}
	f.add(c)
	return c
}
