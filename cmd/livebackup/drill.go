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
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

const drillLong = `Restores for practice: into a directory of its own, rolls forward, opens the
database, reads every block and proves every tree, compares it with the backup
read in place, and removes it. That it went well, how long a restore takes, and
which commit was reached is recorded; "livebackup list" shows it. What one that
was killed has left in --scratch, the next one there removes.`

type drillFlags struct {
	restoreFlags
	scratch  string
	noRecord bool
}

func (a *app) drill() *cobra.Command {
	var f drillFlags
	c := &cobra.Command{
		Use: "drill --repo DIR [--scratch DIR]", Short: "Restore for practice, check, compare and remove",
		Long: drillLong, Example: "  livebackup drill --repo /backups/app --scratch /var/tmp", Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runDrill(ctx, f) }),
	}
	f.repo.add(c)
	c.Flags().StringVar(&f.scratch, "scratch", "", "`directory` to restore in, with room for the database; the system's for temporary files if left out")
	c.Flags().StringVar(&f.backup, "backup", "", "exactly this `backup`; the newest state if left out")
	c.Flags().Var(&f.maxRAM, "max-ram", "memory for rolling forward and checking; 0 is a quarter of what the host allows")
	c.Flags().BoolVar(&f.noRecord, "no-record", false, "leave the repository as it is")
	if err := c.MarkFlagDirname("scratch"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	return c
}

// drillResult is what the drill command prints.
type drillResult struct {
	LSN      block.LSN           `json:"lsn"`
	Time     time.Time           `json:"time"`
	Backup   livebackup.BackupID `json:"backup"`
	LogBytes int64               `json:"log_bytes"`
	Compared uint64              `json:"blocks_compared"`
	Restored time.Duration       `json:"restored_ns"`
	Duration time.Duration       `json:"duration_ns"`
}

func (a *app) runDrill(ctx context.Context, f drillFlags) error {
	t, err := f.wanted()
	if err != nil {
		return err
	}
	if f.scratch == "" {
		f.scratch = os.TempDir()
	}
	repo, err := f.repo.open(ctx)
	if err != nil {
		return err
	}
	p := a.progress("drill")
	res, err := livebackup.Drill(ctx, repo, t, f.scratch, livebackup.DrillOptions{
		MaxRAM: int64(f.maxRAM), Progress: p.report, NoRecord: f.noRecord,
		Check: func(ctx context.Context, dir string) error { return checkRestored(ctx, dir, int64(f.maxRAM)) },
	})
	p.end()
	if err != nil {
		return err
	}
	out := drillResult{res.Restore.LSN, res.Restore.Time, res.Restore.Manifest.ID, res.Restore.LogBytes, res.Compared, res.Restored, res.Duration}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "restored LSN %v, of %s,\n  from backup %v, in %s\n", out.LSN, exactly(out.Time), out.Backup, human.Elapsed(out.Restored))
		fmt.Fprintf(w, "  checked: sound; %s compared with the backup; removed again\n", human.Plural(out.Compared, "block"))
	})
}

// checkRestored proves every block and, if it is a database of keys, every tree.
func checkRestored(ctx context.Context, dir string, maxRAM int64) error {
	o := mvcc.Options{MaxRAM: maxRAM, Existing: true}
	db, err := kv.Open(dir, kv.Options{Store: o})
	if errors.Is(err, kv.ErrForeignRoot) {
		store, err := mvcc.Open(dir, o)
		if err != nil {
			return err
		}
		defer store.Close()
		res, err := store.Check(ctx, nil)
		if err == nil && len(res.Problems) > 0 {
			err = fmt.Errorf("%w: %s", block.ErrCorrupt, res.Problems[0])
		}
		return err
	}
	if err != nil {
		return err
	}
	return errors.Join(db.Check(ctx), db.Close())
}
