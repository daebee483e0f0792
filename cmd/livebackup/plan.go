package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

const planLong = `Says what a backup would take and cost, without taking it: how long it lasts,
how many originals of changed blocks the database holds for it at most, how much
of temporary storage they need, whether they fit, and what happens if not. It
says that for now and for the best hour of the week to come.

It goes by the database's own history: how many different blocks change within
10 seconds to a day, for each hour of the week, kept in the database. It
takes a week until every hour was seen; what was not is taken to be like the
rest. How fast the backup is comes from --rate, else from the last backups in
the repository, else it is assumed, and the plan says so.

Of a database that was watched for less than a minute, or than a twentieth of
the time that the backup takes, it promises nothing: it then goes by how much is
being written right now, as if that hit all blocks alike, and says so. Where
what is being written right now would end otherwise than the history says, it
tells both.

PEAK is the forecast, AT MOST is what it cannot exceed whatever happens. The
verdicts: "fits"; "falls-forward": originals outgrow their room, the backup is
whole but exact at a later commit; "breaks": that cannot be promised either,
because redo is written about as fast as the sink takes it; "unknown": too
little was seen yet.

If no process has the database open it is read without writing to it. Nobody
writes then, so the forecast is for when the process runs again, with the room
that the defaults give.`

const planExample = `  livebackup plan --db /srv/app/db --repo /backups/app
  livebackup plan --db /srv/app/db --rate 20MB/s
  livebackup plan --db /srv/app/db --repo /backups/app --json | jq .now.verdict`

func (a *app) plan() *cobra.Command {
	f := newBackupFlags()
	f.dryRun = true
	c := &cobra.Command{
		Use: "plan --db DIR", Short: "Forecast what a backup would take and cost, and when to start it",
		Long: planLong, Example: planExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runPlan(ctx, f) }),
	}
	f.database.add(c)
	f.repo.addOptional(c)
	f.kind.add(c, "type", "auto, full, or incremental: what changed since another backup")
	c.Flags().StringVar(&f.base, "base", "", "`backup` that an incremental adds to, instead of the newest")
	c.Flags().Var(&f.rate, "rate", "how fast the repository takes what is written, like 20MB/s")
	f.exhausted.add(c, "on-exhaustion", "what the backup would do if originals find no room: fall-forward or abort")
	return c
}

func (a *app) runPlan(ctx context.Context, f backupFlags) (err error) {
	o, err := f.options()
	if err != nil {
		return err
	}
	db, err := f.database.reachToRead(ctx)
	if err != nil {
		return err
	}
	defer db.close(&err)
	repo, err := f.planRepository(ctx)
	if err != nil {
		return err
	}
	p, err := livebackup.PlanBackup(ctx, db, repo, o)
	if err != nil {
		return err
	}
	return a.print(p, func(w io.Writer) { backupPlanText(w, f.database.dir, db.served, p) })
}

// planRepository is the repository, nil if there is none yet.
func (f *backupFlags) planRepository(ctx context.Context) (*livebackup.Repository, error) {
	repo, err := f.repo.openIfNamed(ctx)
	if errors.Is(err, livebackup.ErrRepositoryNotFound) {
		return nil, nil
	}
	return repo, err
}

// reachToRead asks the process that has the database open, or opens it without writing
// to it.
func (f *databaseFlags) reachToRead(ctx context.Context) (*database, error) {
	if err := mustBeThere(f.dir); err != nil {
		return nil, err
	}
	if db, err := f.served(ctx); db != nil || err != nil {
		return db, err
	}
	store, err := mvcc.Open(f.dir, mvcc.Options{MaxRAM: int64(f.maxRAM), ReadOnly: true, AllowMemoryTemp: true, Temp: []mvcc.TempDir{{Path: f.dir, BytesMax: 1 << 30}}})
	if errors.Is(err, mvcc.ErrNeedsRecovery) {
		return nil, fmt.Errorf("%s was not closed in good order: \"livebackup check\" recovers it: %w", f.dir, err)
	}
	if err != nil {
		return nil, err
	}
	return &database{Source: livebackup.NewSource(store), own: store}, nil
}

func backupPlanText(w io.Writer, dir string, live bool, p *livebackup.BackupPlan) {
	how := "not open in any process: for when it is, with the room that the defaults give"
	if live {
		how = "open in another process"
	}
	fmt.Fprintf(w, "%s (%s)\n", dir, how)
	kind := p.Kind
	if p.Kind == livebackup.KindIncremental {
		kind += " on " + p.Base.String()
	}
	fmt.Fprintf(w, "backup     %s, %s of blocks\n", kind, human.Bytes(p.Now.Bytes))
	fmt.Fprintf(w, "history    %d of 168 hours of the week seen; of the time before now %s\n", p.HoursSeen, human.Elapsed(p.SeenLately))
	fmt.Fprintf(w, "sink       %s of blocks, %s written;\n           %s\n", perSecond(p.Sink.BlocksPerSecond), perSecond(p.Sink.StoredPerSecond), p.Sink.From)
	fmt.Fprintf(w, "room       %s in RAM, %s in temporary storage, %s overflow\n\n", human.Bytes(p.Room.Cache), human.Bytes(p.Room.Temporary), human.Bytes(p.Room.Overflow))
	forecastText(w, "now", &p.Now)
	if late := &p.AtThisRate; late.Verdict != forecast.NothingToSay && late.Verdict != p.Now.Verdict {
		fmt.Fprintln(w)
		forecastText(w, fmt.Sprintf("now, if it goes on as in the last %s", human.Elapsed(p.LatelyOver)), late)
	}
	switch {
	case p.Best == nil:
		fmt.Fprintln(w, "\nbest start not known yet: too few hours of the week were seen")
	case p.Best.Start.Equal(p.Now.Start):
		fmt.Fprintln(w, "\nbest start now: no hour of the week is clearly better")
	default:
		fmt.Fprintln(w)
		forecastText(w, "best start "+p.Best.Start.Local().Format("Mon 15:04"), p.Best)
	}
}

func perSecond(bytes float64) string { return human.PerSecond(int64(bytes), time.Second) }

// forecastText prints one forecast.
func forecastText(w io.Writer, title string, f *forecast.Forecast) {
	fmt.Fprintf(w, "%s: %s\n", title, verdictText(f))
	if f.Short {
		fmt.Fprintln(w, "  this is no promise: the history is too short. Taken is that changes go on")
		fmt.Fprintln(w, "  as fast as right now, and hit all blocks alike")
	}
	fmt.Fprintf(w, "  takes      %s\n", human.Elapsed(f.Duration))
	fmt.Fprintf(w, "  originals  peak %s, at most %s\n", human.Bytes(f.PeakOriginals), human.Bytes(f.PeakMax))
	fmt.Fprintf(w, "  temporary  needs %s, at most %s\n", human.Bytes(f.TempNeeded), human.Bytes(f.TempMax))
	fmt.Fprintf(w, "  redo       %s\n", perSecond(f.RedoPerSecond))
}

// verdictText is the verdict with what follows from it.
func verdictText(f *forecast.Forecast) string {
	full := human.Elapsed(f.FullAfter)
	switch {
	case f.Verdict == forecast.NothingToSay:
		return "unknown: too little was seen of this database's changes yet"
	case f.Verdict == forecast.Fits && f.Rung == mvcc.RungCache:
		return "fits, in RAM"
	case f.Verdict == forecast.Fits && f.Rung == mvcc.RungSpill:
		return "fits, in temporary storage"
	case f.Verdict == forecast.Fits:
		return "fits, with memory beyond MaxRAM"
	case f.Verdict == forecast.FallsForward:
		return fmt.Sprintf("falls-forward: no room after %s, then exact at a later commit", full)
	case f.CanFallForward:
		return fmt.Sprintf("breaks: no room after %s", full)
	}
	return fmt.Sprintf("breaks: no room after %s, and redo is written about as fast as\n  the sink takes it, so it cannot fall forward", full)
}
