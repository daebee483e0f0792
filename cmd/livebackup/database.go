package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// databaseFlags say which database, and how to open it if nobody has it open.
type databaseFlags struct {
	dir    string
	maxRAM human.Size
	mend   func(mvcc.BlockNeed) (mvcc.MendImage, error) // of the repair command
}

func (f *databaseFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "db", "", "`directory` of the database (required)")
	c.Flags().Var(&f.maxRAM, "max-ram", "memory for the database if this command has to open it; 0 is a quarter of what the host allows")
	require(c, "db")
}

// require marks a flag that names a directory as required.
func require(c *cobra.Command, flag string) {
	for _, err := range []error{c.MarkFlagRequired(flag), c.MarkFlagDirname(flag)} {
		if err != nil {
			panic(err) // the flag was not defined: a mistake in this package
		}
	}
}

// database is a database in reach: served by another process, or open here.
type database struct {
	livebackup.Source
	served bool
	own    io.Closer // nil if served
}

// servedWithin is how long a process that has just opened the database is given
// to serve it: opening may take recovery.
const servedWithin = 2 * time.Second

// reach asks the process that has the database open, or opens it.
func (f *databaseFlags) reach(ctx context.Context) (*database, error) {
	if err := mustBeThere(f.dir); err != nil {
		return nil, err
	}
	until := time.Now().Add(servedWithin)
	for {
		db, err := f.tryReach(ctx)
		if !errors.Is(err, mvcc.ErrLocked) {
			return db, err
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%w: another process has it open and does not serve it "+
				"(it has to call livebackup.Serve for a backup while it runs)", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(servedWithin / 20):
		}
	}
}

func (f *databaseFlags) tryReach(ctx context.Context) (*database, error) {
	if db, err := f.served(ctx); db != nil || err != nil {
		return db, err
	}
	o := mvcc.Options{MaxRAM: int64(f.maxRAM), Mend: f.mend, Existing: true}
	db, err := kv.Open(f.dir, kv.Options{Store: o})
	if err == nil {
		return &database{Source: livebackup.NewSource(db.Store()), own: db}, nil
	}
	if !errors.Is(err, kv.ErrForeignRoot) && (f.mend == nil || !errors.Is(err, block.ErrCorrupt)) {
		return nil, err
	}
	store, err := mvcc.Open(f.dir, o) // of a program that knows blocks, not keys; or to repair it
	if err != nil {
		return nil, err
	}
	return &database{Source: livebackup.NewSource(store), own: store}, nil
}

// served is the database through the process that has it open; nil if none serves it.
func (f *databaseFlags) served(ctx context.Context) (*database, error) {
	client, err := livebackup.Dial(f.dir)
	if err == nil {
		return &database{Source: client, served: true}, nil
	}
	if !errors.Is(err, livebackup.ErrNotServed) {
		return nil, err
	}
	return nil, context.Cause(ctx)
}

// dial reaches the process that serves a database, for what only that can do.
func dial(dir string) (*livebackup.Client, error) {
	if err := mustBeThere(dir); err != nil {
		return nil, err
	}
	return livebackup.Dial(dir)
}

// mustBeThere refuses a directory without a database, and says what is there instead.
func mustBeThere(dir string) error {
	_, err := os.Stat(filepath.Join(dir, "data"))
	if errors.Is(err, fs.ErrNotExist) {
		_, dirErr := os.Stat(dir)
		if dirErr != nil {
			return fmt.Errorf("%s: %w: there is no such directory", dir, mvcc.ErrNotDatabase)
		}
		return fmt.Errorf("%s: %w: it holds no file named data", dir, mvcc.ErrNotDatabase)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w: %w", dir, mvcc.ErrNotDatabase, err)
	}
	return err
}

// close closes what reach opened, and adds its error to the one that the command
// ends with.
func (d *database) close(err *error) {
	if d.own == nil {
		return
	}
	if closeErr := d.own.Close(); closeErr != nil {
		*err = errors.Join(*err, fmt.Errorf("close database: %w", closeErr))
	}
}

// how says which process works.
func (d *database) how() string {
	if d.served {
		return "live, through the process that has it open"
	}
	return "opened by this command: no other process has it open"
}
