package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

const verifyLong = `Reads a backup back from the medium and decodes it on the very path that a
restore takes, down to the checksum of every block; only the writing is left
out. What it finds, good or bad, is recorded in the repository; list shows it.

Without BACKUP it takes the newest.`

const verifyExample = `  livebackup verify --repo /backups/app
  livebackup verify --repo /backups/app 0000000012-8f3a9c21`

func (a *app) verify() *cobra.Command {
	var f repositoryFlags
	var o livebackup.VerifyOptions
	c := &cobra.Command{
		Use: "verify --repo DIR [BACKUP]", Short: "Prove that a backup can be restored",
		Long: verifyLong, Example: verifyExample, Args: cobra.MaximumNArgs(1),
		RunE: a.command(func(ctx context.Context, args []string) error {
			name, err := namedBackup(args)
			if err != nil {
				return err
			}
			return a.runVerify(ctx, f, name, o)
		}),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.complete(c.Context())
		},
	}
	f.add(c)
	c.Flags().BoolVar(&o.NoRecord, "no-record", false, "leave the repository as it is: for one that cannot be written")
	return c
}

// parseBackup reads the name of a backup; "" is the newest.
func parseBackup(name string) (id livebackup.BackupID, err error) {
	if name == "" {
		return id, nil
	}
	if id, err = livebackup.ParseBackupID(name); err != nil {
		return id, &usageError{fmt.Errorf(`%q is no backup: names are like 0000000012-8f3a9c21, see "livebackup list"`, name)}
	}
	return id, nil
}

// namedBackup is the backup that an argument names, "" if there is no argument. An empty
// one is a mistake.
func namedBackup(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	if args[0] == "" {
		return "", &usageError{errors.New("the name of the backup is empty")}
	}
	return args[0], nil
}

func (a *app) runVerify(ctx context.Context, f repositoryFlags, name string, o livebackup.VerifyOptions) error {
	id, err := parseBackup(name)
	if err != nil {
		return err
	}
	repo, err := f.open(ctx)
	if err != nil {
		return err
	}
	p := a.progress("verify")
	o.Progress = p.report
	proof, err := livebackup.Verify(ctx, repo, id, o)
	p.end()
	found := !proof.Backup.IsZero() && (errors.Is(err, block.ErrCorrupt) || proof.OK) // and perhaps could not be recorded
	if err != nil && !found {
		return err
	}
	text := func(w io.Writer) { proofText(w, proof) }
	if printErr := a.print(proof, text); printErr != nil {
		return errors.Join(err, printErr)
	}
	if err != nil {
		return &damageError{err}
	}
	return nil
}

func proofText(w io.Writer, p livebackup.Proof) {
	if !p.OK {
		fmt.Fprintf(w, "backup %v is DAMAGED; %s blocks were good before that\n", p.Backup, human.Count(p.Blocks))
		return
	}
	fmt.Fprintf(w, "backup %v is proven:\n  %s blocks, %s, in %s (%s)\n", p.Backup, human.Count(p.Blocks),
		human.Bytes(p.RawBytes), human.Elapsed(p.Duration), human.PerSecond(p.RawBytes, p.Duration))
}
