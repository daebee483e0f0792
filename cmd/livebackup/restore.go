package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/internal/interrupt"
	"github.com/spillwaydb/spillway/livebackup"
)

const restoreLong = `Builds a database in a directory that does not exist yet, or is empty; its
parent must exist, on the same file system.

Without more it restores the newest state that can be reached: the newest
backup, rolled forward by the archived log to its end. Another state is named by
  --backup ID    exactly this backup
  --at TIME      the last commit at or before a time
  --lsn N        this commit
  --name MARK    the commit that was marked so
and --before takes the commit before it, to leave a mistake out. The cheapest
way from a sound backup is found, and shown by --dry-run, with what else can be
restored.

It builds beside the target and renames when every block is proven and durable:
there is nothing at the target, or the whole database. One that was interrupted
goes on when the same command is given again. A restored database begins a new
timeline; with --standby it stays one that reads and rolls forward, until
"livebackup promote".`

const restoreExample = `  livebackup restore --repo /backups/app --to /srv/app/db.restored
  livebackup restore --repo /backups/app --to /tmp/old \
                     --backup 0000000012-8f3a9c21
  livebackup restore --repo /backups/app --to /srv/app/db.new \
                     --at "2026-11-27 14:05:00+01:00" --dry-run`

type restoreFlags struct {
	repo       repositoryFlags
	target     string
	backup     string
	recover    string
	at         human.Moment
	lsn        uint64
	mark       string
	before     bool
	dryRun     bool
	allowOlder bool
	standby    bool
	follow     bool
	maxRAM     human.Size
}

func (a *app) restore() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use: "restore --repo DIR --to DIR", Short: "Restore a state of the database to a new directory",
		Long: restoreLong, Example: restoreExample, Args: cobra.MaximumNArgs(1),
	}
	c.RunE = a.command(func(ctx context.Context, args []string) error {
		name, err := namedBackup(args) // as verify takes it
		switch {
		case err != nil:
			return err
		case name != "" && f.backup != "":
			return &usageError{fmt.Errorf("two backups: %s and %s", f.backup, name)}
		case f.lsn == 0 && c.Flags().Changed("lsn"):
			return &usageError{errors.New("--lsn 0: commits are numbered from 1 on")}
		case name != "":
			f.backup = name
		}
		return a.runRestore(ctx, f)
	})
	f.add(c)
	return c
}

func (f *restoreFlags) add(c *cobra.Command) {
	f.repo.add(c)
	s := c.Flags()
	s.StringVar(&f.target, "to", "", "`directory` to restore to (required, but for --dry-run)")
	s.StringVar(&f.backup, "backup", "", "start from this `backup`, and with nothing else restore exactly it")
	s.StringVar(&f.recover, "recover", "", "`how` far to roll forward: all, none or until (a moment)")
	s.Var(&f.at, "at", `the last commit at or before this time, like "2026-11-27 14:05:00Z"`)
	s.Uint64Var(&f.lsn, "lsn", 0, "the commit with this `number`")
	s.StringVar(&f.mark, "name", "", "the commit with this `name`, see \"livebackup mark\"")
	s.BoolVar(&f.before, "before", false, "the commit before that moment, not its own")
	s.BoolVar(&f.dryRun, "dry-run", false, "only show the way, what else can be restored, and how long it may take")
	s.BoolVar(&f.allowOlder, "allow-older", false, "if a backup or a timeline cannot be read, take an older one")
	s.BoolVar(&f.standby, "standby", false, "leave it a standby, which reads and rolls forward")
	s.BoolVar(&f.follow, "follow", false, "with --standby: go on rolling forward, until Ctrl-C")
	s.Var(&f.maxRAM, "max-ram", "memory for rolling forward; 0 is a quarter of what the host allows")
	mustComplete(c, "recover", []string{"all", "none", "until"})
	if err := c.MarkFlagDirname("to"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	complete := func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return f.repo.complete(c.Context())
	}
	if err := c.RegisterFlagCompletionFunc("backup", complete); err != nil {
		panic(err) // as above
	}
}

// wanted is the state that the flags name.
func (f *restoreFlags) wanted() (t livebackup.RestoreTarget, err error) {
	t = livebackup.RestoreTarget{
		Recover: livebackup.Recover(f.recover), At: f.at.Time, LSN: block.LSN(f.lsn), Mark: f.mark, Exclusive: f.before,
	}
	t.Backup, err = parseBackup(f.backup)
	return t, err
}

// restoreResult is what the restore command prints.
type restoreResult struct {
	Target   string                `json:"target"`
	Duration time.Duration         `json:"duration_ns"`
	LSN      block.LSN             `json:"lsn"`
	Time     time.Time             `json:"time"` // of that commit; year 1 if the repository does not tell
	Backup   backupJSON            `json:"backup"`
	Chain    []livebackup.BackupID `json:"chain"`
	LogBytes int64                 `json:"log_bytes"` // rolled forward
	Passed   []livebackup.BackupID `json:"passed,omitempty"`
	Lost     *livebackup.LogRange  `json:"lost,omitempty"`
	Unsure   string                `json:"unsure,omitempty"`
	Standby  bool                  `json:"standby"`
}

func (a *app) runRestore(ctx context.Context, f restoreFlags) error {
	t, err := f.wanted()
	switch {
	case err != nil:
		return err
	case f.target == "" && !f.dryRun:
		return &usageError{errors.New("where to? --to is missing")}
	case f.follow && !f.standby:
		return &usageError{errors.New("--follow is for --standby")}
	}
	repo, err := f.repo.open(ctx)
	if err != nil {
		return err
	}
	if f.at.Assumed != "" {
		a.note("no zone was given: taking the time for %s, that is %s", f.at.Assumed, f.at.Time.UTC().Format(time.RFC3339))
	}
	if f.dryRun {
		return a.planRestore(ctx, repo, t)
	}
	here, _ := os.Getwd() // "" will do: it is for a note
	p := a.progress("restore")
	res, err := livebackup.Restore(ctx, repo, t, f.target, livebackup.RestoreOptions{
		Progress: p.report, AllowOlder: f.allowOlder, Standby: f.standby, MaxRAM: int64(f.maxRAM),
	})
	p.end()
	if err != nil {
		switch {
		case interrupt.Code(ctx) != 0:
			a.note("what was built is kept: the same command goes on with it")
		case errors.Is(err, livebackup.ErrBackupDamaged) && !f.allowOlder:
			a.note("--allow-older takes an older backup, and what the archived log adds to it, if that is sound")
		case errors.Is(err, livebackup.ErrTimelineUnsure) && !f.allowOlder:
			a.note("if the database is there still, its next backup or archive puts this right;\n  --allow-older restores the newest state of the timelines that are known")
		}
		return err
	}
	if res.Target == here {
		a.note("the current directory was replaced by the database: \"cd .\" leads into it")
	}
	out := restoreResult{
		Target: res.Target, Duration: res.Duration, LSN: res.LSN, Time: res.Time, Backup: manifestJSON(res.Manifest),
		Chain: res.Chain, LogBytes: res.LogBytes, Passed: res.Passed, Lost: res.Lost, Unsure: message(res.Unsure), Standby: f.standby,
	}
	if err := a.print(out, out.text); err != nil {
		return err
	}
	if f.follow {
		if err := a.follow(ctx, repo, f); err != nil {
			return err
		}
	}
	if res.Lost != nil {
		return &damageError{&incompleteError{fmt.Errorf("commits %v were made and could not be reached", res.Lost.Commits())}}
	}
	return nil
}

// incompleteError says that less was restored than there once was.
type incompleteError struct{ cause error }

func (e *incompleteError) Error() string { return e.cause.Error() }
func (e *incompleteError) Unwrap() error { return e.cause }

func (r restoreResult) text(w io.Writer) {
	m := r.Backup.Manifest
	fmt.Fprintf(w, "restored backup %v to %s\n", m.ID, r.Target)
	if n := len(r.Chain) - 1; n > 0 {
		fmt.Fprintf(w, "  with %s below it\n", human.Plural(n, "backup"))
	}
	if r.LSN > m.EndLSN {
		fmt.Fprintf(w, "  rolled forward from LSN %v to %v: %s of log\n", m.EndLSN, r.LSN, human.Bytes(r.LogBytes))
	}
	bytes := m.RawBytes
	if m.BlocksInUse > 0 { // an incremental has some of the blocks, and others are there
		bytes = int64(m.BlocksInUse) * int64(m.BlockSize)
	}
	fmt.Fprintf(w, "  %s in %s (%s)\n  the database is at LSN %v, of %s\n", human.Bytes(bytes), human.Elapsed(r.Duration),
		human.PerSecond(bytes, r.Duration), r.LSN, exactly(r.Time))
	if r.Standby {
		fmt.Fprintln(w, `  it is a standby: "livebackup promote" makes it one that can be written`)
	}
	for _, id := range r.Passed {
		fmt.Fprintf(w, "  backup %v could not be read and was passed over\n", id)
	}
	tellUnsure(w, r.Unsure)
	if r.Lost != nil {
		fmt.Fprintf(w, "NOT RESTORED: commits %v: the log of them is lost\n", r.Lost.Commits())
	}
}

// message is the text of an error, "" if there is none.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func tellUnsure(w io.Writer, why string) {
	if why != "" {
		fmt.Fprintf(w, "UNSURE: %s\n", why)
	}
}

// exactly is a moment to the second, in the zone of this machine, which it names.
func exactly(t time.Time) string {
	if t.IsZero() {
		return "a time that the repository does not tell"
	}
	return t.Local().Format("2006-01-02 15:04:05 -07:00")
}

// planJSON is a plan as programs read it.
type planJSON struct {
	Backup    backupJSON                  `json:"backup"`
	Chain     []livebackup.BackupID       `json:"chain"`
	LSN       block.LSN                   `json:"lsn"`
	Time      time.Time                   `json:"time"`
	Before    livebackup.LogPoint         `json:"before"`
	Next      livebackup.LogPoint         `json:"next"`
	Logs      []string                    `json:"logs"`
	ReadBytes int64                       `json:"read_bytes"`
	Estimate  time.Duration               `json:"estimate_ns"`
	Window    []livebackup.ReachableRange `json:"window"`
	Lost      *livebackup.LogRange        `json:"lost,omitempty"`
	Unsure    string                      `json:"unsure,omitempty"`
}

func (a *app) planRestore(ctx context.Context, repo *livebackup.Repository, t livebackup.RestoreTarget) error {
	p, err := livebackup.PlanRestore(ctx, repo, t)
	if err != nil {
		return err
	}
	out := planJSON{
		Backup: manifestJSON(p.Backup), Chain: p.Chain, LSN: p.LSN, Time: p.Time, Before: p.Moment.Before, Next: p.Moment.Next,
		Logs: listed(p.Logs), ReadBytes: p.ReadBytes, Estimate: p.Estimate, Window: listed(p.Window), Lost: p.Lost, Unsure: message(p.Unsure),
	}
	return a.print(out, out.text)
}

func (p planJSON) text(w io.Writer) {
	fmt.Fprintf(w, "would restore LSN %v, of %s\n", p.LSN, exactly(p.Time))
	fmt.Fprintf(w, "  from backup %v (%s, LSN %v, started %s)\n", p.Backup.ID, p.Backup.Kind, p.Backup.EndLSN, when(p.Backup.Started))
	if n := len(p.Chain) - 1; n > 0 {
		fmt.Fprintf(w, "  with %s below it\n", human.Plural(n, "backup"))
	}
	if len(p.Logs) > 0 {
		fmt.Fprintf(w, "  rolled forward by %s of archived log\n", human.Plural(len(p.Logs), "object"))
	}
	fmt.Fprintf(w, "  reading %s, in about %s\n", human.Bytes(p.ReadBytes), human.Elapsed(p.Estimate))
	if p.Before.LSN != 0 {
		fmt.Fprintf(w, "  the commit before it:  LSN %v, of %s\n", p.Before.LSN, exactly(p.Before.Time))
	}
	if p.Next.LSN != 0 {
		fmt.Fprintf(w, "  the commit behind it:  LSN %v, of %s\n", p.Next.LSN, exactly(p.Next.Time))
	}
	fmt.Fprintln(w, "can be restored:")
	for i, r := range p.Window {
		if i > 0 {
			fmt.Fprintf(w, "  HOLE: LSN %v to %v\n", p.Window[i-1].To+1, r.From-1)
		}
		fmt.Fprintf(w, "  LSN %v to %v,\n    of %s to %s\n", r.From, r.To, exactly(r.FromTime), exactly(r.ToTime))
	}
	tellUnsure(w, p.Unsure)
	if p.Lost != nil {
		fmt.Fprintf(w, "LOST: commits %v were made and cannot be reached\n", p.Lost.Commits())
	}
}
