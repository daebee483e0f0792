package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

const checkLong = `Reads every block of a database and proves every tree in it, as of now. If a
process has the database open and serves it, the check runs there and writers go
on; if not, this command opens the database.`

func (a *app) check() *cobra.Command {
	var f databaseFlags
	c := &cobra.Command{
		Use: "check --db DIR", Short: "Read every block and prove every tree of a database",
		Long: checkLong, Example: "  livebackup check --db /srv/app/db", Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runCheck(ctx, f) }),
	}
	f.add(c)
	return c
}

// checkResult is what the check command prints.
type checkResult struct {
	OK       bool          `json:"ok"`
	Live     bool          `json:"live"`
	LSN      block.LSN     `json:"lsn"`
	Blocks   uint64        `json:"blocks"`
	Bytes    int64         `json:"bytes"`
	Duration time.Duration `json:"duration_ns"`
	Problems []string      `json:"problems"`
}

func (a *app) runCheck(ctx context.Context, f databaseFlags) (err error) {
	db, err := f.reach(ctx)
	if err != nil {
		return err
	}
	defer db.close(&err)
	a.note("database: %s", db.how())
	began := time.Now()
	p := a.progress("check")
	res, err := db.Check(ctx, func(done, total uint64) {
		p.report(livebackup.Progress{Blocks: done, BlocksTotal: max(done, total)})
	})
	p.end()
	if err != nil {
		return err
	}
	out := checkResult{len(res.Problems) == 0, db.served, res.LSN, res.Blocks, res.Bytes, time.Since(began), res.Problems}
	out.Problems = listed(out.Problems)
	err = a.print(out, out.text)
	if !out.OK {
		err = errors.Join(&damageError{fmt.Errorf("%s: %w: %s", f.dir, block.ErrCorrupt, human.Plural(len(out.Problems), "problem"))}, err)
	}
	return err
}

func (r checkResult) text(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if r.OK {
		fmt.Fprintf(w, "sound as of LSN %v: %s blocks, %s, and every tree, in %s\n", r.LSN, human.Count(r.Blocks),
			human.Bytes(r.Bytes), human.Elapsed(r.Duration))
	}
}
