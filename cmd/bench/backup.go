package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/bench"
)

const backupLong = `Measures backups by themselves, each against what is named beside it:

   9  an incremental with 0.1 % of the blocks changed: what it reads, against the
      database; its time, against a full backup
  10  a full backup until it is durable, against cp and fsync; its proof, against
      cmp
  11  a restore of a full backup with ten incrementals, against that of one full
  12  log rolled forward, against 8 durable clients who made it
  13  each compression: how fast writers go on, for how long

What each reads is dropped from the system's cache before. The table goes to
standard output, all raw results to --out. It takes about seven minutes, and 5 GB
below --dir, on a quiet machine.`

const backupExample = `  bench backup --out bench/results/backup.json
  bench backup --rows 9,12 --repeats 5
  bench backup --quick`

// backupFlags are a bench.Plan as a person types it.
type backupFlags struct {
	out, dir, profiles string
	rows               []int
	repeats            int
	quick              bool
}

func backupCommand(began *bool) *cobra.Command {
	f := backupFlags{}
	c := &cobra.Command{
		Use: "backup", Short: "Measure backups, chains, log and compression",
		Long: backupLong, Example: backupExample, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			*began = true
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.out, "out", "", "file for the raw results, which must not exist; default: one in the system's directory for temporary files")
	flags.StringVar(&f.dir, "dir", "", "directory for databases, on a real disk; default: that of the results")
	flags.IntSliceVar(&f.rows, "rows", bench.RepositoryRows(), "rows to measure")
	flags.IntVar(&f.repeats, "repeats", 3, "how often each is measured")
	flags.BoolVar(&f.quick, "quick", false, "small databases and short times: does it work at all?")
	flags.StringVar(&f.profiles, "cpu-profiles", "", "directory for a CPU profile of each measurement that has one")
	return c
}

// taskName is the command by which the program starts itself for one measurement.
const taskName = "task"

func taskCommand(began *bool) *cobra.Command {
	return &cobra.Command{
		Use: taskName, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			*began = true
			return bench.Serve(c.Context(), []bench.Engine{bench.Spillway{}}, c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// run measures, and reports also what an interrupted or failed run has found.
func (f *backupFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	for _, row := range f.rows {
		if !slices.Contains(bench.RepositoryRows(), row) {
			return &usageError{fmt.Errorf("row %d is none of %v", row, bench.RepositoryRows())}
		}
	}
	if f.repeats < 1 {
		return &usageError{errors.New("repeats must be positive")}
	}
	if f.out == "" {
		f.out = filepath.Join(os.TempDir(), "bench-backup-"+time.Now().UTC().Format("2006-01-02T150405Z")+".json")
	}
	if f.dir == "" {
		f.dir = filepath.Dir(f.out)
	}
	dir, err := os.MkdirTemp(f.dir, "bench-data-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if f.profiles != "" {
		if err := os.MkdirAll(f.profiles, 0o755); err != nil {
			return err
		}
	}
	plan := bench.Plan{
		Ours: bench.Spillway{}, Child: bench.Child{Args: []string{taskName}}, Dir: dir, Rows: f.rows,
		Records: 1_000_000, Repeats: f.repeats, Quick: f.quick, CPUProfiles: f.profiles, Progress: stderr,
	}
	if f.quick {
		plan.Records = 20_000
	}
	report, err := plan.Run(ctx)
	if report == nil {
		return err
	}
	err = errors.Join(err, report.WriteTable(stdout), report.WriteFile(f.out))
	fmt.Fprintf(stderr, "raw results: %s\n", f.out)
	return err
}
