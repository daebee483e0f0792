package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/hooks"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

const backupLong = `Takes a backup of a database into a repository: a directory, which is made
if it does not exist. Each database has a repository of its own.

A backup is full or incremental: then it has what changed since its base, the
newest sound backup of the database's own history unless --base names another.
With --type auto it is incremental, unless there is no base, the database no
longer knows what changed since, or the incrementals on the full backup have
become many or large. An incremental compares some of what it leaves out with
its base; if that is not the same, it says so, and a full backup is taken.

If a process has the database open and serves it, the backup is live: that
process goes on reading and writing, and the backup is exactly the state at one
commit. If no process has it open, this command opens it, and none can until it
is done.

If what the process keeps for the backup outgrows what it may keep, the backup
falls forward: it goes on without, and is exact at a later commit. With
--on-exhaustion abort it ends instead.

The backup appears in the repository when it is whole and durable. If anything
goes wrong before, or on Ctrl-C, what was written is removed again, or, if that
is much, kept for the next backup, which goes on with it. With
--verify the backup stays in the repository whatever reading it back finds.

--on-start, --on-watermark and --on-end name a command, or a URL. A command gets
what there is to say as JSON on standard input, and SPILLWAY_EVENT, _DATABASE,
_REPOSITORY, _LABEL, _LEVEL, _STATE, _TEXT, _OUTCOME, _BACKUP, _ERROR in its
environment; a URL gets the JSON by POST. What goes wrong with them is told, and
never fails the backup.`

const backupExample = `  livebackup backup --db /srv/app/db --repo /backups/app
  livebackup backup --db /srv/app/db --repo /backups/app --type full
  livebackup backup --db /srv/app/db --repo /backups/app --rate 20MB/s --verify
  livebackup backup --db /srv/app/db --repo /backups/app --json | jq -r .id`

// compressionDefault is how --compression once called the choice of package livebackup.
const compressionDefault = "default"

// newBackupFlags are the flags with their defaults.
func newBackupFlags() backupFlags {
	return backupFlags{
		kind: choice[livebackup.BackupType]{word: livebackup.TypeAuto, kind: "kind", words: []string{"auto", "full", "incremental"}},
		compression: choice[livebackup.Compression]{
			word: livebackup.CompressionFastest, kind: "level", words: []string{"fastest", "smaller", "none"}, also: compressionDefault,
		},
		exhausted: choice[mvcc.Exhaustion]{word: mvcc.ExhaustionForward, kind: "action", words: []string{"fall-forward", "abort"}},
		at:        choice[string]{word: startNow, kind: "when", words: []string{startNow, startQuiet}},
		within:    human.Duration(quietWithin),
	}
}

type backupFlags struct {
	database    databaseFlags
	repo        repositoryFlags
	kind        choice[livebackup.BackupType]
	base        string
	label       string
	compression choice[livebackup.Compression]
	rate        human.Rate
	workers     int
	exhausted   choice[mvcc.Exhaustion]
	fullSpeed   bool
	verify      bool
	priority    priorityFlags
	hooks       hookFlags
	dryRun      bool
	guards      guardFlags
	hurry       percent
	rescue      bool
	at          choice[string]
	within      human.Duration
}

func (a *app) backup() *cobra.Command {
	f := newBackupFlags()
	c := &cobra.Command{
		Use: "backup --db DIR --repo DIR", Short: "Take a backup, live if a process has the database open",
		Long: backupLong, Example: backupExample, Args: noArgs,
	}
	c.RunE = a.command(func(ctx context.Context, _ []string) error {
		if err := f.checkStart(c.Flags().Changed("within")); err != nil {
			return err
		}
		return a.runBackup(ctx, f)
	})
	f.database.add(c)
	f.repo.add(c)
	f.repo.addRecipients(c)
	f.kind.add(c, "type", "auto, full, or incremental: what changed since another backup")
	c.Flags().StringVar(&f.base, "base", "", "`backup` that an incremental adds to, instead of the newest")
	c.Flags().StringVar(&f.label, "label", "", "a `name` to find it by")
	f.compression.add(c, "compression", "how hard to compress: fastest, smaller or none")
	c.Flags().Var(&f.rate, "rate", "write no faster than this, like 20MB/s; 0 is as fast as it goes")
	c.Flags().IntVar(&f.workers, "workers", 0, "goroutines that compress; 0 is two, or one on up to three CPUs")
	f.exhausted.add(c, "on-exhaustion", "when what is kept for it outgrows what may be: fall-forward, to be exact at a later commit, or abort")
	c.Flags().BoolVar(&f.fullSpeed, "full-speed", false, "do not rest while others write to the database")
	c.Flags().Var(&f.hurry, "hurry-share", "do not rest either while what is kept for it takes more of temporary storage and overflow, like 50%; 0 is off")
	c.Flags().BoolVar(&f.verify, "verify", false, "read it back when it is done")
	f.priority.add(c)
	f.hooks.add(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "take none: say what it would take and cost, like plan")
	c.Flags().BoolVar(&f.rescue, "rescue", false, "of a database that has failed: its last durable commit")
	f.guards.add(c)
	f.at.add(c, "at", "now, or quiet: wait for the hour in which it costs least, by the database's history; without one it starts at once")
	c.Flags().Var(&f.within, "within", "with --at quiet: wait no longer than this")
	return c
}

// mustComplete lets shells complete the values of a flag.
func mustComplete(c *cobra.Command, flag string, values []string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
}

// options are what the flags ask for, checked.
func (f *backupFlags) options() (livebackup.BackupOptions, error) {
	base, err := parseBackup(f.base)
	o := livebackup.BackupOptions{
		Type: f.kind.word, Base: base,
		Owner: owner(), Label: f.label, Compression: f.compression.word,
		Workers: f.workers, BytesPerSecond: int64(f.rate), FullSpeed: f.fullSpeed,
		OnExhaustion: f.exhausted.word, Guards: f.guards.guards(), Rescue: f.rescue,
		HurryShare: float64(f.hurry) / 100,
	}
	if o.Compression == compressionDefault {
		o.Compression = ""
	}
	if err == nil {
		err = o.Validate()
	}
	return o, err
}

func (a *app) runBackup(ctx context.Context, f backupFlags) (err error) {
	if f.dryRun {
		return a.runPlan(ctx, f)
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
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
	if repo.Made() {
		a.note("repository: there was none at %s; made one", f.repo.dir)
	}
	if repo.SharesDevice(f.database.dir) {
		a.note("warning: the repository is on the same device as the database:\n  what destroys one takes both")
	}
	if f.at.word == startQuiet {
		if err := a.awaitQuiet(ctx, db, repo, &f, o); err != nil {
			return err
		}
	}
	res, failed, err := a.takeBackup(ctx, db, repo, &f, o)
	if err != nil {
		if res.Kept > 0 {
			a.note("%s that were written are kept: the next backup goes on with them", human.Plural(res.Kept, "block"))
		}
		return &recordedError{err, res.Record, failed}
	}
	if errors.Is(res.WhyFull, livebackup.ErrAuditMismatch) || errors.Is(res.WhyFull, livebackup.ErrNoBase) {
		a.warn("WARNING: an incremental was given up: %v", res.WhyFull)
	}
	out := backupResult{
		backupJSON: manifestJSON(res.Manifest), Live: db.served, MadeRepository: repo.Made(),
		BufferBytes: res.BufferBytes, Swept: res.Swept, Resumed: res.Resumed, Record: res.Record, HookErrors: failed,
	}
	out.Run = livebackup.Run{} // the record has it
	if res.WhyFull != nil {
		out.WhyFull = res.WhyFull.Error()
	}
	if f.verify {
		return a.verifyTaken(ctx, repo, out)
	}
	return a.print(out, out.text)
}

// takeBackup takes the backup, shows how far it is, and calls its hooks.
func (a *app) takeBackup(ctx context.Context, db *database, repo *livebackup.Repository, f *backupFlags, o livebackup.BackupOptions) (livebackup.Result, []hooks.Failure, error) {
	if err := f.priority.set(a); err != nil {
		return livebackup.Result{}, nil, err
	}
	p := a.progress("backup")
	o.Progress = p.report
	stop := p.follow(ctx, db, o.Owner)
	called := callHooks(ctx, &f.hooks, hooks.Notice{Database: f.database.dir, Repository: f.repo.dir, Label: f.label}, db)
	res, err := livebackup.Backup(ctx, db, repo, o)
	stop()
	p.end()
	if err != nil {
		res.Record.Error.Kind = outcomeOf(ctx, err).kind
	}
	return res, a.endHooks(called, res.Record), err
}

// verifyTaken proves the backup that was just taken, then prints both.
func (a *app) verifyTaken(ctx context.Context, repo *livebackup.Repository, out backupResult) error {
	p := a.progress("verify")
	proof, err := livebackup.Verify(ctx, repo, out.ID, livebackup.VerifyOptions{Progress: p.report})
	p.end()
	switch {
	case err == nil:
		out.State, out.Proof = livebackup.StateProven, &proof
	case errors.Is(err, block.ErrCorrupt):
		out.State, out.Damage = livebackup.StateDamaged, err.Error()
	}
	if err != nil {
		out.VerifyError = err.Error()
	}
	if printErr := a.print(out, out.text); err == nil || printErr != nil {
		return errors.Join(err, printErr)
	}
	return &damageError{fmt.Errorf("the backup was taken, but reading it back failed: %w", err)}
}

// owner is who takes the backup, as the database's status shows it.
func owner() string {
	who := "livebackup"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	host, _ := os.Hostname() // "" will do: it is for people
	return fmt.Sprintf("%s@%s pid %d", who, host, os.Getpid())
}

// backupJSON is a backup as programs read it.
type backupJSON struct {
	livebackup.Manifest
	Database   string            `json:"database"`
	Timeline   string            `json:"timeline"`
	State      livebackup.State  `json:"state"`
	Damage     string            `json:"damage,omitempty"`
	Unreadable string            `json:"unreadable,omitempty"`
	Disabled   string            `json:"disabled,omitempty"`
	Proof      *livebackup.Proof `json:"proof,omitempty"`
}

func manifestJSON(m livebackup.Manifest) backupJSON {
	return backupJSON{Manifest: m, Database: m.Database.String(), Timeline: m.Timeline.String(), State: livebackup.StateComplete}
}

// backupResult is what the backup command prints.
type backupResult struct {
	backupJSON
	Live           bool   `json:"live"`
	MadeRepository bool   `json:"made_repository"`        // there was none
	WhyFull        string `json:"why_full,omitempty"`     // why --type auto took a full backup
	VerifyError    string `json:"verify_error,omitempty"` // why --verify has no proof
	BufferBytes    int64  `json:"buffer_bytes"`           // memory that the backup's own buffers took
	Swept          int    `json:"swept"`                  // objects of dead backups that were removed
	Resumed        uint64 `json:"resumed,omitempty"`      // blocks that were taken over from a backup that was cut off

	Record     livebackup.Record `json:"record"`
	HookErrors []hooks.Failure   `json:"hook_errors,omitempty"`
}

func (r backupResult) text(w io.Writer) {
	m := r.Manifest
	fmt.Fprintf(w, "%s backup %v is complete, exact at LSN %v,\n  of %s\n", m.Kind, m.ID, m.EndLSN, exactly(m.Committed))
	if m.Kind == livebackup.KindIncremental {
		fmt.Fprintf(w, "  it adds to %v, exact at LSN %v;\n  %s of what did not change compared with it\n",
			m.Base, m.BaseLSN, human.Plural(m.Audit.Compared, "block"))
	}
	if fell := m.FallForward; fell != nil {
		fmt.Fprintf(w, "  it began at LSN %v; what was kept for it outgrew what may be, so it fell forward\n  at LSN %v and carries %s of redo behind that\n",
			m.LSN, fell.LSN, human.Bytes(fell.Bytes))
	}
	if r.WhyFull != "" {
		fmt.Fprintf(w, "  it is a full one, because:\n  %s\n", r.WhyFull)
	}
	if m.Blocks == 0 {
		fmt.Fprintf(w, "  no block is in it: none had changed; in %s\n", human.Elapsed(m.Duration))
	} else {
		fmt.Fprintf(w, "  %s of blocks stored in %s, in %s (%s)\n", human.Bytes(m.RawBytes), human.Bytes(m.StoredBytes),
			human.Elapsed(m.Duration), human.PerSecond(m.RawBytes, m.Duration))
	}
	fmt.Fprintf(w, "  a writer could wait %s when it started;\n  %s kept, %s of them shared, %s spilled\n", human.Elapsed(m.StartStall),
		human.Plural(m.Cost.OriginalsMade, "original"), human.Count(m.Cost.OriginalsShared), human.Count(m.Cost.OriginalsSpilled))
	if c := m.Cost; c.BlocksChanged > 0 {
		fmt.Fprintf(w, "  at most %s at once; of everything, to the end: %s\n",
			human.Plural(c.OriginalsPeak, "original"), human.Count(c.BlocksChanged))
	}
	if r.Resumed > 0 {
		fmt.Fprintf(w, "  it went on with %s that a backup that was cut off had written\n", human.Plural(r.Resumed, "block"))
	}
	if r.Swept > 0 {
		fmt.Fprintf(w, "  removed %s that a dead backup had left\n", human.Plural(r.Swept, "object"))
	}
	if r.Proof != nil {
		fmt.Fprintf(w, "  read back and proven: %s blocks in %s\n", human.Count(r.Proof.Blocks), human.Elapsed(r.Proof.Duration))
	}
}
