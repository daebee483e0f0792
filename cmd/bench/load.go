package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/bench/load"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

const loadLong = `Holds a database open under a write load and serves it, so that livebackup can
be tried on it from another terminal:

  livebackup status  --db /tmp/busy
  livebackup backup  --db /tmp/busy --repo /tmp/backups --rate 20MB/s
  livebackup check   --db /tmp/busy

The database is made if it does not exist, and filled up to --records records.
Once a second it prints commits per second, how long they took, how full memory,
temporary storage, overflow and log are, how many snapshots live and what they
hold. Ctrl-C ends it cleanly.`

const loadExample = `  bench load --db /tmp/busy --records 1000000 --duration 60s
  bench load --db /tmp/busy --distribution zipf --writers 8 --rate 2000/s
  bench load --db /tmp/busy --max-ram 32MiB --temp 64MiB --value-size 1kB`

// loadFlags are load.Options as a person types them.
type loadFlags struct {
	o                         load.Options
	duration                  human.Duration
	valueSize, maxRAM, temp   human.Size
	overflow                  human.Size
	distribution, rate, durab string
	json, quiet               bool
}

func loadCommand(began *bool) *cobra.Command {
	f := loadFlags{valueSize: 100}
	c := &cobra.Command{
		Use: "load --db DIR", Short: "Hold a database open under a write load, and serve it",
		Long: loadLong, Example: loadExample, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			*began = true
			return f.run(c.Context(), c.OutOrStdout())
		},
	}
	f.add(c)
	return c
}

func (f *loadFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.o.Dir, "db", "", "directory of the database (required)")
	flags.IntVar(&f.o.Records, "records", 1_000_000, "fill it up to so many records")
	flags.Var(&f.duration, "duration", "write for so long; 0 is until Ctrl-C")
	flags.Var(&f.valueSize, "value-size", "size of a value")
	flags.StringVar(&f.distribution, "distribution", "uniform", "which records are changed: uniform, zipf or sequential")
	flags.IntVar(&f.o.Writers, "writers", 4, "goroutines that write")
	flags.IntVar(&f.o.PerTx, "per-tx", 1, "records that a transaction changes")
	flags.StringVar(&f.rate, "rate", "0", "transactions per second of all writers, like 500/s; 0 is as fast as it goes")
	flags.Uint64Var(&f.o.Seed, "seed", 1, "of the choice of records")
	flags.Var(&f.maxRAM, "max-ram", "memory for the database; 0 is a quarter of what the host allows")
	flags.Var(&f.temp, "temp", "temporary storage, in the database's directory; 0 is 1 GiB")
	flags.Var(&f.overflow, "overflow", "memory for originals when temporary storage is full; 0 is a quarter of --max-ram")
	flags.StringVar(&f.durab, "durability", "commit", "when a commit is acknowledged: commit, interval or never (see package mvcc)")
	flags.BoolVar(&f.json, "json", false, "print only the summary, as one JSON object")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only the summary")
	for _, err := range []error{
		c.MarkFlagRequired("db"), c.MarkFlagDirname("db"),
		c.RegisterFlagCompletionFunc("distribution", cobra.FixedCompletions([]string{"uniform", "zipf", "sequential"}, cobra.ShellCompDirectiveNoFileComp)),
		c.RegisterFlagCompletionFunc("durability", cobra.FixedCompletions([]string{"commit", "interval", "never"}, cobra.ShellCompDirectiveNoFileComp)),
	} {
		if err != nil {
			panic(err) // the flag was not defined: a mistake in this package
		}
	}
}

// options are the flags as Run wants them.
func (f *loadFlags) options() (load.Options, error) {
	o := f.o
	o.Duration, o.ValueBytes = time.Duration(f.duration), int(f.valueSize)
	o.Distribution = load.Distribution(f.distribution)
	o.Store.MaxRAM, o.Store.OverflowMax = int64(f.maxRAM), int64(f.overflow)
	durability, known := map[string]mvcc.Durability{
		"commit": mvcc.DurableCommit, "interval": mvcc.DurableInterval, "never": mvcc.DurableNever,
	}[f.durab]
	if !known {
		return o, &usageError{fmt.Errorf("durability %q is none of commit, interval, never", f.durab)}
	}
	o.Store.Durability = durability
	var err error
	if o.PerSecond, err = strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(f.rate, "/s")), 64); err != nil || !(o.PerSecond >= 0 && o.PerSecond < 1e9) {
		return o, &usageError{fmt.Errorf("%q is no rate: write transactions per second, like 500/s", f.rate)}
	}
	if f.temp > 0 {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return o, err
		}
		o.Store.Temp = []mvcc.TempDir{{Path: filepath.Clean(o.Dir), BytesMax: int64(f.temp)}}
	}
	return o, nil
}

func (f *loadFlags) run(ctx context.Context, out io.Writer) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if !f.json && !f.quiet {
		o.Tick = (&table{out: out}).tick
		o.Serving = func() { fmt.Fprintf(out, "serving %s; try: livebackup status --db %[1]s\n", o.Dir) }
	}
	s, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	if f.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else {
		summaryText(out, s)
	}
	if err == nil && o.Duration > 0 {
		err = context.Cause(ctx) // it was to run longer
	}
	return err
}
