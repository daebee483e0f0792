package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/demo"
	"github.com/spillwaydb/spillway/kv"
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

// TestJSON_OneValue: an error whose result was printed adds nothing to it in JSON. What
// goes wrong behind a result is told beside it.
func TestJSON_OneValue(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		adds bool
	}{
		{&damageError{&incompleteError{errors.New("lost")}}, exitPartial, false},
		{&damageError{fmt.Errorf("problem: %w", block.ErrCorrupt)}, exitDamage, false},
		{livebackup.ErrBackupNotFound, exitRefused, true},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, json: true}
		if code := a.end(context.Background(), c.err); code != c.code || (out.Len() > 0) != c.adds {
			t.Errorf("%v: code %d, %q", c.err, code, out.String())
		}
	}
	var out, told bytes.Buffer
	a := &app{stdout: &out, stderr: &told, json: true}
	if err := a.print("restored", nil); err != nil {
		t.Fatal(err)
	}
	code := a.end(context.Background(), mvcc.ErrNoSpace)
	if code != exitNoSpace || out.String() != "\"restored\"\n" || !strings.Contains(told.String(), mvcc.ErrNoSpace.Error()) {
		t.Errorf("code %d, %q, %q", code, out.String(), told.String())
	}
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
		{fmt.Errorf("%w: %w", livebackup.ErrArchiving, livebackup.ErrClaimed), "busy", 5},
		{&livebackup.LogLostError{Lost: livebackup.LogRange{From: 1, To: 9}}, "incomplete", 8},
		{&livebackup.LogLostError{Object: "x", Cause: &block.CorruptError{}}, "damaged", 3},
		{&fs.PathError{Op: "mkdir", Path: "x", Err: fs.ErrNotExist}, "not_found", 4},
		{kv.ErrIncompatibleValue, "not_found", 4},
		{fmt.Errorf("%w: %w", livebackup.ErrRepositoryWrite, &fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}), "not_allowed", 4},
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
