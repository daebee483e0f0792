package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/livebackup"
)

const statusLong = `Shows a database as its operators see it: its size, how full each level is and
whether a watermark was crossed, and the live snapshots with what each holds.

Levels: "ram" is what MaxRAM grants, "temporary" is where originals spill to,
"overflow" is memory beyond MaxRAM for originals when that is full, "index" is
what MaxRAM has to give for knowing where originals are (when that is full,
temporary storage counts as full), "host" is the memory of the machine or the
container, "log" is what recovery would read.

HOLDS is what a snapshot keeps; FREES is what ending it now would give back.

Of a live backup LEFT is how long it will still take, and VERDICT how it will
end, by how the database changed in the last hour: "fits", or that its originals
have no room left in so long and it falls forward or breaks then.

It asks the process that serves the database. If none does, this command opens
the database for a moment, and no other program can open it meanwhile: do not
poll a database that is not served.`

func (a *app) status() *cobra.Command {
	var f databaseFlags
	c := &cobra.Command{
		Use: "status --db DIR", Short: "Show levels, watermarks, and live snapshots with what each holds",
		Long: statusLong, Example: "  livebackup status --db /srv/app/db", Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runStatus(ctx, f) }),
	}
	f.add(c)
	return c
}

func (a *app) runStatus(ctx context.Context, f databaseFlags) (err error) {
	db, err := f.reach(ctx)
	if err != nil {
		return err
	}
	defer db.close(&err)
	s, err := db.Status(ctx)
	if err != nil {
		return err
	}
	ahead, err := livebackup.Outlooks(ctx, db, &s)
	if err != nil {
		return err
	}
	out := newStatusReport(&s, ahead, db.served)
	return a.print(out, out.text)
}
