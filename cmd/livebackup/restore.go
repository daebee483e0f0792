package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

const restoreLong = `Builds the database of a backup in a directory that does not exist yet, or is
empty; its parent must exist, on the same file system. Without --backup it
takes the newest.

It builds beside the target and renames when every block is proven and durable:
there is nothing at the target, or the whole database. A restored database
begins a new timeline.`

const restoreExample = `  livebackup restore --repo /backups/app --to /srv/app/db.restored
  livebackup restore --repo /backups/app --to /tmp/old \
                     --backup 0000000012-8f3a9c21`

func (a *app) restore() *cobra.Command {
	var dir, target, name string
	c := &cobra.Command{
		Use: "restore --repo DIR --to DIR [--backup BACKUP]", Short: "Restore a backup to a new directory",
		Long: restoreLong, Example: restoreExample, Args: cobra.MaximumNArgs(1),
		RunE: a.command(func(ctx context.Context, args []string) error {
			if len(args) == 1 { // as verify takes it
				if name != "" {
					return &usageError{fmt.Errorf("two backups: %s and %s", name, args[0])}
				}
				name = args[0]
			}
			return a.runRestore(ctx, dir, target, name)
		}),
	}
	c.Flags().StringVar(&dir, "repo", "", "directory of the repository (required)")
	c.Flags().StringVar(&target, "to", "", "directory to restore to (required)")
	c.Flags().StringVar(&name, "backup", "", "which backup; the newest if left out")
	require(c, "repo")
	require(c, "to")
	complete := func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeBackup(c.Context(), dir)
	}
	if err := c.RegisterFlagCompletionFunc("backup", complete); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	return c
}

// restoreResult is what the restore command prints.
type restoreResult struct {
	Target   string        `json:"target"`
	Duration time.Duration `json:"duration_ns"`
	Backup   backupJSON    `json:"backup"`
}

func (a *app) runRestore(ctx context.Context, dir, target, name string) error {
	id, err := parseBackup(name)
	if err != nil {
		return err
	}
	repo, err := livebackup.OpenRepository(ctx, dir, livebackup.RepositoryOptions{})
	if err != nil {
		return err
	}
	p := a.progress("restore")
	res, err := livebackup.Restore(ctx, repo, id, target, livebackup.RestoreOptions{Progress: p.report})
	p.end()
	if err != nil {
		return err
	}
	out := restoreResult{res.Target, res.Duration, manifestJSON(res.Manifest)}
	return a.print(out, out.text)
}

func (r restoreResult) text(w io.Writer) {
	m := r.Backup.Manifest
	fmt.Fprintf(w, "restored backup %v to %s\n", m.ID, r.Target)
	fmt.Fprintf(w, "  %s in %s (%s)\n  the database is at LSN %v, of %s\n", human.Bytes(m.RawBytes), human.Elapsed(r.Duration),
		human.PerSecond(m.RawBytes, r.Duration), m.EndLSN, m.Committed.Local().Format(time.DateTime))
}
