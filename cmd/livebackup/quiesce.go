package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
)

const quiesceLong = `Brings the files of a database to rest, runs a command, a snapshot of the file
system for example, and lets go. Meanwhile everything that was committed is in
the files and nothing is written to them: what the command copies of the
directory is a whole database. Writers wait, readers go on.

It lets go by itself when the command ends, when this process dies, and when
--timeout is over: then the copy is of no use, and the exit code says so.`

const quiesceExample = `  livebackup quiesce --db /srv/app/db --timeout 30s -- \
             lvcreate --snapshot --name app --size 1G /dev/vg/app`

func (a *app) quiesce() *cobra.Command {
	var f databaseFlags
	timeout := human.Duration(30 * time.Second)
	c := &cobra.Command{
		Use: "quiesce --db DIR -- COMMAND [ARGS]", Short: "Run a command while a database's files are at rest",
		Long: quiesceLong, Example: quiesceExample, Args: someCommand,
		RunE: a.command(func(ctx context.Context, args []string) error {
			return a.runQuiesce(ctx, f, time.Duration(timeout), args)
		}),
	}
	f.add(c)
	c.Flags().Var(&timeout, "timeout", "how long writers may wait, in all")
	return c
}

func someCommand(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("no command is given: write it behind --, like -- cp -r DIR COPY")
	}
	return nil
}

// quiesceResult is what the quiesce command prints.
type quiesceResult struct {
	LSN      block.LSN     `json:"lsn"` // what a copy has
	Duration time.Duration `json:"duration_ns"`
}

func (a *app) runQuiesce(ctx context.Context, f databaseFlags, timeout time.Duration, args []string) (err error) {
	db, err := f.reach(ctx)
	if err != nil {
		return err
	}
	defer db.close(&err)
	began := time.Now()
	quiet, err := db.Quiesce(ctx, timeout)
	if err != nil {
		return err
	}
	a.note("the files are at rest at LSN %v", quiet.LSN())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-quiet.Over():
			stop() // what the command does from here on is of no use
		case <-ctx.Done():
		}
	}()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.stderr, a.stderr // the result is this command's own
	failed := cmd.Run()
	if err := quiet.Release(); err != nil {
		return errors.Join(err, failed)
	}
	if failed != nil {
		return fmt.Errorf("%s: %w", args[0], failed)
	}
	out := quiesceResult{quiet.LSN(), time.Since(began)}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "done: a copy has LSN %v; writers waited %s\n", out.LSN, human.Elapsed(out.Duration))
	})
}
