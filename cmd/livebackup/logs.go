package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

const logsLong = `Lists the log spaces of a repository, the oldest first: the archived log from
one backup to the next, with its range of LSNs and of times, and what is missing
in it. Any commit in a space without a hole can be restored; see
"livebackup restore --dry-run".`

func (a *app) logs() *cobra.Command {
	var f repositoryFlags
	c := &cobra.Command{
		Use: "logs --repo DIR", Short: "List log spaces with their LSNs, times and gaps",
		Long: logsLong, Example: "  livebackup logs --repo /backups/app", Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runLogs(ctx, f) }),
	}
	f.add(c)
	return c
}

func (a *app) runLogs(ctx context.Context, f repositoryFlags) error {
	repo, err := f.open(ctx)
	if err != nil {
		return err
	}
	spaces, err := livebackup.LogSpaces(ctx, repo)
	if err != nil {
		return err
	}
	spaces = listed(spaces)
	for i := range spaces {
		spaces[i].Holes = listed(spaces[i].Holes)
	}
	return a.print(spaces, func(w io.Writer) { logsText(w, spaces) })
}

func logsText(w io.Writer, spaces []livebackup.LogSpace) {
	if len(spaces) == 0 {
		fmt.Fprintln(w, "no log spaces yet")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FROM BACKUP\tLSN\tSINCE\tUNTIL\tBYTES")
	for _, s := range spaces {
		from := s.Backup.String()
		if s.Backup.IsZero() {
			from = "-"
		}
		until := when(s.Until)
		if len(until) > len(time.DateOnly) && until[:len(time.DateOnly)] == when(s.Since)[:min(len(when(s.Since)), len(time.DateOnly))] {
			until = until[len(time.DateOnly)+1:] // of the same day
		}
		fmt.Fprintf(t, "%s\t%v-%v\t%s\t%s\t%s\n", from, s.From, s.To, when(s.Since), until, human.Bytes(s.Bytes))
	}
	t.Flush()
	for _, s := range spaces {
		for _, h := range s.Holes {
			fmt.Fprintf(w, "NOT ARCHIVED: commits %v to %v\n", h.From+1, h.To)
		}
	}
}
