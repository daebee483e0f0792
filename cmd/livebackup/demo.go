package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/demo"
	"github.com/spillwaydb/spillway/internal/human"
)

const demoLong = `Shows what live backups are, start to end, on real files: loads the Go
toolchain's own source tree into a new database, keeps writers changing it,
takes a live backup into a slow sink with so little memory and temporary storage
that originals spill and overflow, verifies it, restores it, and compares every
key and every value with what a reader saw at the backup's LSN.

It ends with code 3 if anything differs. Everything is made in one temporary
directory, which is removed at the end, also on Ctrl-C, unless --keep is given.`

const demoExample = `  livebackup demo
  livebackup demo --backup-takes 30s --writers 8
  livebackup demo --tree ~/src --keep
  livebackup demo --backup-takes 1s --load 16MiB --hot 12MiB --max-ram 4MiB \
                  --temp 2MiB`

type demoFlags struct {
	o                                 demo.Options
	backupTakes, calm                 human.Duration
	load, maxRAM, temp, overflow, hot human.Size
}

func (a *app) demo() *cobra.Command {
	f := demoFlags{
		backupTakes: human.Duration(10 * time.Second), calm: human.Duration(2 * time.Second),
		maxRAM: 16 << 20, temp: 16 << 20, overflow: 256 << 20, hot: 48 << 20,
	}
	c := &cobra.Command{
		Use: "demo", Short: "Show all of it on real files, in half a minute",
		Long: demoLong, Example: demoExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runDemo(ctx, f) }),
	}
	c.Flags().Var(&f.backupTakes, "backup-takes", "how slow the sink is: about how long the backup takes")
	c.Flags().Var(&f.calm, "calm", "how long writers are measured before and after")
	c.Flags().IntVar(&f.o.Writers, "writers", 4, "goroutines that write")
	c.Flags().StringVar(&f.o.Tree, "tree", "", "`directory` of files to load (default: the Go toolchain's sources)")
	c.Flags().Var(&f.load, "load", "load no more than this; 0 is all of it")
	c.Flags().Var(&f.hot, "hot", "how much of the files the writers change")
	c.Flags().Var(&f.maxRAM, "max-ram", "memory granted to the database")
	c.Flags().Var(&f.temp, "temp", "temporary storage granted to it")
	c.Flags().Var(&f.overflow, "overflow", "memory for originals when temporary storage is full")
	c.Flags().StringVar(&f.o.Dir, "dir", "", "`directory` to make the temporary one in (default: the system's)")
	c.Flags().BoolVar(&f.o.Keep, "keep", false, "keep the database, the repository and the restored copy")
	c.Flags().BoolVar(&f.o.ASCII, "ascii", !localeIsUTF8(), "draw with ASCII only (default: as the locale says)")
	return c
}

func (a *app) runDemo(ctx context.Context, f demoFlags) error {
	o := f.o
	o.BackupTakes, o.Calm = time.Duration(f.backupTakes), time.Duration(f.calm)
	o.LoadBytesMax, o.HotBytes = int64(f.load), int64(f.hot)
	o.MaxRAM, o.TempMax, o.OverflowMax = int64(f.maxRAM), int64(f.temp), int64(f.overflow)
	if !a.json {
		o.Out = a.stdout
	}
	if !a.quiet && isTerminal(a.stderr) {
		o.Live = a.stderr
	}
	report, err := demo.Run(ctx, o)
	bad := errors.Is(err, demo.ErrDifferent) || errors.Is(err, demo.ErrNotShown)
	if !a.json || err != nil && !bad {
		return err
	}
	if printErr := a.print(report, func(io.Writer) {}); printErr != nil {
		return printErr
	}
	if bad {
		return &damageError{err}
	}
	return nil
}

// localeIsUTF8 reports whether a terminal of this locale shows more than ASCII.
func localeIsUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(os.Getenv(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
