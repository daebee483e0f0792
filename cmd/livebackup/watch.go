package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/internal/watch"
)

const watchLong = `Shows a database while it works: how many commits there are a second and how
long they take, how full each level is, how far each backup is and when it will
be done, and what happened last. With --repo also how much would be lost with
the database's disk.

Levels are those of "livebackup status". A gauge has the marks that the database
was opened with: from there on the level is low, high, critical. FULL IN is when
it is full if it goes on like that.

q or Ctrl-C quits. If standard output is no terminal, each look is one line, and
so is each event; with --json a look is one JSON object a line, with lengths of
time in nanoseconds.

The database must be served by the process that has it open.`

type watchFlags struct {
	dir      string
	repo     repositoryFlags
	interval human.Duration
	count    int
}

func (a *app) watch() *cobra.Command {
	f := watchFlags{interval: human.Duration(time.Second)}
	c := &cobra.Command{
		Use: "watch --db DIR [--repo DIR]", Short: "Watch levels, writers and backups while they work",
		Long: watchLong, Args: noArgs,
		Example: "  livebackup watch --db /srv/app/db --repo /backups/app\n  livebackup watch --db /srv/app/db --interval 10s --json >> watch.jsonl",
		RunE:    a.command(func(ctx context.Context, _ []string) error { return a.runWatch(ctx, f) }),
	}
	c.Flags().StringVar(&f.dir, "db", "", "`directory` of the database (required)")
	require(c, "db")
	f.repo.addOptional(c)
	c.Flags().Var(&f.interval, "interval", "time between two looks, at least 100ms")
	c.Flags().IntVar(&f.count, "count", 0, "quit after so many looks; 0: never")
	return c
}

// sampler looks at a served database.
func (f *watchFlags) sampler(ctx context.Context) (*watch.Sampler, error) {
	if f.count < 0 {
		return nil, &usageError{fmt.Errorf("--count %d: 0 is without end", f.count)}
	}
	if time.Duration(f.interval) < 100*time.Millisecond {
		return nil, &usageError{fmt.Errorf("an interval of %v is too short: it must be at least 100ms", &f.interval)}
	}
	client, err := dial(f.dir)
	if err != nil {
		return nil, err
	}
	repo, err := f.repo.openIfNamed(ctx)
	if err != nil {
		return nil, err
	}
	return watch.NewSampler(client, repo), nil
}

func (a *app) runWatch(ctx context.Context, f watchFlags) error {
	s, err := f.sampler(ctx)
	if err != nil {
		return err
	}
	if a.json || !isTerminal(a.stdout) || os.Getenv("TERM") == "dumb" {
		return a.watchLines(ctx, s, f)
	}
	return watchScreen(ctx, s, f, os.Stdin, a.stdout.(*os.File))
}

// watchLines prints each look as a line. To be stopped is how it ends.
func (a *app) watchLines(ctx context.Context, s *watch.Sampler, f watchFlags) error {
	tick := time.NewTicker(time.Duration(f.interval))
	defer tick.Stop()
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	for n := 1; ; n++ {
		v := s.Sample(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var err error
		if a.json {
			err = e.Encode(&v)
		} else {
			_, err = fmt.Fprintln(a.stdout, strings.Join(append(watch.EventLines(&v), watch.Line(&v)), "\n"))
		}
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		if n == f.count {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
