package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/demo"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

// TestHelpFitsTerminals: every line of every help text has 80 columns or less,
// and every command has an example and says what it does.
func TestHelpFitsTerminals(t *testing.T) {
	root := (&app{}).root()
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if n := utf8.RuneCountInString(line); n > 80 {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), n, line)
			}
		}
		if c.Runnable() && (c.Example == "" || c.Short == "" || c.Long == "" || c.Args == nil) {
			t.Errorf("%s: example, texts or rule for arguments is missing", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

// TestExitCodes: errors that carry several meanings get the one that helps most.
func TestExitCodes(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		err  error
		kind string
		code int
	}{
		{errors.New("what"), "failed", 1},
		{&usageError{mvcc.ErrLocked}, "usage", 2},
		{fmt.Errorf("open: %w: %w", mvcc.ErrLocked, errors.New("flock")), "locked", 5},
		{fmt.Errorf("%w: %w", livebackup.ErrRepositoryWrite, livebackup.ErrRepositoryFull), "no_space", 6},
		{fmt.Errorf("x: %w", &block.CorruptError{}), "damaged", 3},
		{fmt.Errorf("%w: %w", livebackup.ErrBackupDamaged, &block.CorruptError{}), "damaged", 3},
		{&snapshot.BrokenError{Cause: &block.CorruptError{}}, "snapshot_broken", 7},
		{&mvcc.VersionError{Found: 9, Known: 1}, "unknown_format", 4},
		{demo.ErrDifferent, "different", 3},
	} {
		if o := outcomeOf(ctx, c.err); o.kind != c.kind || o.code != c.code {
			t.Errorf("%v: %+v, want %s %d", c.err, o, c.kind, c.code)
		}
	}
	for _, o := range outcomes {
		if !strings.Contains(exitCodesText, fmt.Sprintf("\n  %d ", o.code)) {
			t.Errorf("exit code %d of %s is not documented", o.code, o.kind)
		}
	}
}
