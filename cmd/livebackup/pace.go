package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

const paceLong = `Tells a backup that runs how fast it may write to its repository from now on;
0 is as fast as it goes. Without a number all backups of the database are told.
"livebackup status" and "livebackup watch" have the numbers.

The process that serves the database passes it on: it does not matter where the
backup was started. It hears of it within a second or so.`

func (a *app) pace() *cobra.Command {
	var dir string
	var rate human.Rate
	c := &cobra.Command{
		Use: "pace --db DIR --rate RATE [NUMBER]", Short: "Change the rate of a backup while it runs",
		Long: paceLong, Args: cobra.MaximumNArgs(1),
		Example: "  livebackup pace --db /srv/app/db --rate 50MB/s\n  livebackup pace --db /srv/app/db --rate 0 17",
		RunE: a.command(func(ctx context.Context, args []string) error {
			return a.runPace(ctx, dir, rate, args)
		}),
	}
	c.Flags().StringVar(&dir, "db", "", "`directory` of the database (required)")
	require(c, "db")
	c.Flags().Var(&rate, "rate", "write no faster than this, like 20MB/s; 0 is as fast as it goes (required)")
	if err := c.MarkFlagRequired("rate"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	return c
}

// paceResult is what the pace command prints.
type paceResult struct {
	Backup         uint64 `json:"backup"`           // 0: all
	BytesPerSecond int64  `json:"bytes_per_second"` // 0: as fast as it goes
}

func (a *app) runPace(ctx context.Context, dir string, rate human.Rate, args []string) error {
	out := paceResult{BytesPerSecond: int64(rate)}
	if len(args) > 0 {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil || id == 0 {
			return &usageError{fmt.Errorf("%q is no number of a backup: \"livebackup status\" has them", args[0])}
		}
		out.Backup = id
	}
	client, err := dial(dir)
	if err != nil {
		return err
	}
	wanted := out.BytesPerSecond
	if wanted == 0 {
		wanted = mvcc.PaceUnlimited
	}
	if err := client.Pace(ctx, out.Backup, wanted); err != nil {
		return err
	}
	return a.print(out, func(w io.Writer) {
		how := "as fast as it goes"
		if rate > 0 {
			how = "no faster than " + human.Bytes(int64(rate)) + "/s"
		}
		who := "all backups were"
		if out.Backup > 0 {
			who = fmt.Sprintf("backup %d was", out.Backup)
		}
		fmt.Fprintf(w, "%s told to write %s\n", who, how)
	})
}
