package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

const repairLong = `Finds damaged blocks of a database and puts back what belongs there. A block
comes from memory, from the database's own log, or from the newest sound backup
of the same history, rolled forward by the archived log and the database's own
to what the database has now. Each is proven before it is written, written with
a second copy as any other, read back, and listed with where it came from. What
cannot be repaired is listed with the reason: then "livebackup restore".

If a process has the database open and serves it, that process writes, and
readers and writers go on; if not, this command opens the database. --dry-run
changes nothing. --block names blocks that are to be compared with the backup
even if they look sound: an old version of a block, the rewriting of which was
lost, can be told in no other way.

Damage of the repository itself is not repaired: make a new backup.`

const repairExample = `  livebackup repair --db /srv/app/db --repo /backups/app --dry-run
  livebackup repair --db /srv/app/db --repo /backups/app
  livebackup repair --db /srv/app/db --repo /backups/app --block 0x2a`

type repairFlags struct {
	db     databaseFlags
	repo   repositoryFlags
	blocks []string
	dryRun bool
}

func (a *app) repair() *cobra.Command {
	var f repairFlags
	c := &cobra.Command{
		Use: "repair --db DIR --repo DIR", Short: "Put back damaged blocks from the newest sound backup and the log",
		Long: repairLong, Example: repairExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runRepair(ctx, f) }),
	}
	f.db.add(c)
	f.repo.add(c)
	c.Flags().StringSliceVar(&f.blocks, "block", nil, "look at the block with this `number`, damaged or not; several are allowed")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "only show what would be done")
	return c
}

// repairResult is what the repair command prints.
type repairResult struct {
	OK       bool            `json:"ok"`
	Live     bool            `json:"live"`
	DryRun   bool            `json:"dry_run"`
	Repaired int             `json:"repaired"` // or would be
	Failed   int             `json:"failed"`
	Blocks   []repairedBlock `json:"blocks"`
	// Problems are what a check still finds and no repair of blocks can mend.
	Problems []string `json:"problems,omitempty"`
	Error    string   `json:"error,omitempty"` // why it ended before it was through
}

type repairedBlock struct {
	mvcc.BlockRepaired
	Backup    string    `json:"backup,omitempty"`
	BackupLSN block.LSN `json:"backup_lsn,omitempty"`
	AsOf      block.LSN `json:"as_of,omitempty"`
	Error     string    `json:"error,omitempty"`
}

func (a *app) runRepair(ctx context.Context, f repairFlags) (err error) {
	ids, err := f.ids()
	if err != nil {
		return err
	}
	repo, err := f.repo.open(ctx)
	if err != nil {
		return err
	}
	var out repairResult
	if !f.dryRun {
		f.db.mend = livebackup.MendFrom(ctx, repo, func(b livebackup.RepairedBlock) { out.add(b) })
	}
	db, err := f.db.reach(ctx)
	if err != nil {
		if errors.Is(err, block.ErrCorrupt) {
			a.note(`the database cannot be opened: "livebackup restore" brings it back`)
		}
		return err
	}
	defer db.close(&err)
	a.note("database: %s", db.how())
	p := a.progress("check")
	res, err := livebackup.Repair(ctx, db, repo, livebackup.RepairOptions{
		Blocks: ids, DryRun: f.dryRun,
		Progress: func(done, total uint64) {
			p.report(livebackup.Progress{Blocks: done, BlocksTotal: max(done, total)})
		},
	})
	p.end()
	for _, b := range res.Blocks { // also those before an error: what was written is told
		out.add(b)
	}
	if err != nil && len(out.Blocks) == 0 {
		return err
	}
	out.Live, out.DryRun, out.Problems = db.served, f.dryRun, res.Check.Problems
	if f.dryRun {
		out.Problems = nil // they are of what is listed
	}
	out.Blocks = listed(out.Blocks)
	out.OK = err == nil && out.Failed == 0 && len(out.Problems) == 0
	if err != nil {
		out.Error = err.Error()
	}
	if printed := a.print(out, out.text); printed != nil {
		return errors.Join(err, printed)
	}
	if err != nil {
		return &damageError{err}
	}
	if !out.OK {
		return &damageError{fmt.Errorf("%s: %w: %s not repaired", f.db.dir, block.ErrCorrupt, human.Plural(max(out.Failed, len(out.Problems)), "problem"))}
	}
	return nil
}

// ids are the blocks named.
func (f *repairFlags) ids() (ids []block.ID, err error) {
	for _, s := range f.blocks {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--block %s: not the number of a block", s)}
		}
		ids = append(ids, block.ID(n))
	}
	return ids, nil
}

func (r *repairResult) add(b livebackup.RepairedBlock) {
	out := repairedBlock{BlockRepaired: b.BlockRepaired, BackupLSN: b.BackupLSN, AsOf: b.AsOf}
	if !b.Backup.IsZero() {
		out.Backup = b.Backup.String()
	}
	switch {
	case b.Err != nil:
		out.Error = b.Err.Error()
		r.Failed++
	case b.State != mvcc.RepairSound && b.State != mvcc.RepairFree:
		r.Repaired++
	}
	r.Blocks = append(r.Blocks, out)
}

func (r repairResult) text(w io.Writer) {
	for i := range r.Blocks {
		r.Blocks[i].text(w, r.DryRun)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	done := "repaired"
	if r.DryRun {
		done = "to be repaired"
	}
	switch {
	case r.Failed > 0:
		fmt.Fprintf(w, "%s %s, %d NOT\n", human.Plural(r.Repaired, "block"), done, r.Failed)
	case r.Repaired > 0:
		fmt.Fprintf(w, "%s %s\n", human.Plural(r.Repaired, "block"), done)
	case len(r.Problems) == 0:
		fmt.Fprintln(w, "no damage: nothing to repair")
	}
}

func (b repairedBlock) text(w io.Writer, dry bool) {
	found := b.Found
	if found == "" {
		found = "its place is sound"
		if b.State == mvcc.RepairFree {
			found = "it is not in use"
		}
	}
	fmt.Fprintf(w, "block %v at offset %d: %s\n", b.Block, b.Offset, found)
	verb := "repaired"
	if dry {
		verb = "would be repaired"
	}
	switch {
	case b.Error != "":
		fmt.Fprintf(w, "  NOT REPAIRED: %s\n", b.Error)
	case b.State == mvcc.RepairFree:
		fmt.Fprintln(w, "  free: no repair needed")
	case b.State == mvcc.RepairSound:
		fmt.Fprintln(w, "  no repair needed")
	case b.State == mvcc.RepairMap:
		fmt.Fprintf(w, "  %s: of the changed-block map; all that it speaks of counts as changed\n", verb)
	case b.State == mvcc.RepairImage && b.AsOf > b.BackupLSN:
		fmt.Fprintf(w, "  %s to LSN %v: from backup %s, with the archived log from LSN %v to %v\n", verb, b.LSN, b.Backup, b.BackupLSN, b.AsOf)
	case b.State == mvcc.RepairImage:
		fmt.Fprintf(w, "  %s to LSN %v: from backup %s\n", verb, b.LSN, b.Backup)
	case b.State == mvcc.RepairLog:
		fmt.Fprintf(w, "  %s to LSN %v: from the database's own log\n", verb, b.LSN)
	default:
		fmt.Fprintf(w, "  %s to LSN %v: from memory\n", verb, b.LSN)
	}
}
