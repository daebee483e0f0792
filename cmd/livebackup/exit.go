package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/demo"
	"github.com/spillwaydb/spillway/internal/hooks"
	"github.com/spillwaydb/spillway/internal/interrupt"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/livebackup/dashboard"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/spill"
)

// The exit codes. They are part of the command's interface: none changes its
// meaning.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamage  = 3
	exitRefused = 4
	exitBusy    = 5
	exitNoSpace = 6
	exitBroken  = 7
	exitPartial = 8
	exitGuard   = 9
)

const exitCodesText = `Exit codes:
  0    done
  1    failed: an I/O error, or anything that has no code of its own
  2    usage: an unknown command, flag or argument, or a value that is nonsense
  3    damage: the database or the backup is damaged, or the demo found a
       difference
  4    refused: not a database or repository, not found, unknown format, target
       not empty, wrong repository or key, cannot be reached, no permission, a
       file system that is read-only, or the database is in emergency: it has
       failed, or the host is short of memory
  5    busy: another process has the database open and does not serve it, too
       many backups run, another restore to this target, another archive or
       prune runs, or writers did not come to rest
  6    no space: the repository, the restore target or the database's disk is
       full
  7    broken off: the snapshot was broken, the connection to the serving
       process was lost, or the time of a quiesce ran out; try again
  8    restored, but not all: commits that were made are lost with their log,
       and the output says which
  9    a guard's limit was reached: the backup was ended early, or did not begin
  130  interrupted (Ctrl-C); 143 terminated; 129 its terminal was closed. What
       was half done is removed, or kept for the same command, which goes on
       with it when it is given again`

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodesText}
}

// usageError is an error of the command line.
type usageError struct{ cause error }

func (e *usageError) Error() string { return e.cause.Error() }
func (e *usageError) Unwrap() error { return e.cause }

// damageError says that the result, which was printed, is bad news or not all
// that was asked for.
type damageError struct{ cause error }

func (e *damageError) Error() string { return e.cause.Error() }
func (e *damageError) Unwrap() error { return e.cause }

// recordedError is an error of a backup, with the record of what became of it.
type recordedError struct {
	cause  error
	record livebackup.Record
	hooks  []hooks.Failure
}

func (e *recordedError) Error() string { return e.cause.Error() }
func (e *recordedError) Unwrap() error { return e.cause }

// outcome is what an error means to who called.
type outcome struct {
	kind string // stable, for programs
	code int
}

// outcomes by error; the first that matches counts.
var outcomes = []struct {
	is error
	outcome
}{
	{livebackup.ErrNotServed, outcome{"not_served", exitBusy}},
	{mvcc.ErrLocked, outcome{"locked", exitBusy}},
	{livebackup.ErrClaimed, outcome{"busy", exitBusy}},
	{livebackup.ErrBusy, outcome{"busy", exitBusy}},
	{livebackup.ErrRestoreRunning, outcome{"busy", exitBusy}},
	{livebackup.ErrPruneRunning, outcome{"busy", exitBusy}},
	{livebackup.ErrBackupInUse, outcome{"busy", exitBusy}},
	{livebackup.ErrArchiving, outcome{"busy", exitBusy}},
	{snapshot.ErrTooManyBackups, outcome{"busy", exitBusy}},
	{livebackup.ErrRepositoryFull, outcome{"no_space", exitNoSpace}},
	{livebackup.ErrTargetFull, outcome{"no_space", exitNoSpace}},
	{mvcc.ErrNoSpace, outcome{"no_space", exitNoSpace}},
	{mvcc.ErrGuard, outcome{"guard", exitGuard}},
	{mvcc.ErrEmergency, outcome{"emergency", exitRefused}},
	{mvcc.ErrNoSnapshot, outcome{"not_found", exitRefused}},
	{snapshot.ErrBroken, outcome{"snapshot_broken", exitBroken}},
	{livebackup.ErrLeaseExpired, outcome{"lease_expired", exitBroken}},
	{livebackup.ErrDisconnected, outcome{"disconnected", exitBroken}},
	{livebackup.ErrServerClosed, outcome{"disconnected", exitBroken}},
	{livebackup.ErrAuditMismatch, outcome{"damaged", exitDamage}},
	{livebackup.ErrNoBase, outcome{"no_base", exitRefused}},
	{livebackup.ErrBackupDamaged, outcome{"damaged", exitDamage}},
	{block.ErrCorrupt, outcome{"damaged", exitDamage}},
	{mvcc.ErrBehind, outcome{"damaged", exitDamage}},
	{mvcc.ErrNotInUse, outcome{"damaged", exitDamage}}, // a block that something leads to
	{demo.ErrDifferent, outcome{"different", exitDamage}},
	{livebackup.ErrRepositoryNotFound, outcome{"not_found", exitRefused}},
	{livebackup.ErrBackupNotFound, outcome{"not_found", exitRefused}},
	{livebackup.ErrNotRepository, outcome{"not_repository", exitRefused}},
	{mvcc.ErrNotDatabase, outcome{"not_database", exitRefused}},
	{kv.ErrForeignRoot, outcome{"not_database", exitRefused}},
	{livebackup.ErrVersion, outcome{"unknown_format", exitRefused}},
	{mvcc.ErrVersion, outcome{"unknown_format", exitRefused}},
	{kv.ErrVersion, outcome{"unknown_format", exitRefused}},
	{livebackup.ErrForeignDatabase, outcome{"wrong_repository", exitRefused}},
	{livebackup.ErrRepositoryAhead, outcome{"wrong_repository", exitRefused}},
	{livebackup.ErrForeignTimeline, outcome{"wrong_repository", exitRefused}},
	{livebackup.ErrLogOverlap, outcome{"wrong_repository", exitRefused}},
	{livebackup.ErrLogForeign, outcome{"wrong_repository", exitRefused}},
	{livebackup.ErrTimelineAbandoned, outcome{"abandoned", exitRefused}},
	{mvcc.ErrHistory, outcome{"other_history", exitRefused}},
	{mvcc.ErrNotPrivate, outcome{"not_allowed", exitRefused}},
	{spill.ErrNotPrivate, outcome{"not_allowed", exitRefused}},
	{livebackup.ErrBackupKept, outcome{"kept", exitRefused}},
	{livebackup.ErrBackupNeeded, outcome{"kept", exitRefused}},
	{livebackup.ErrKeyNeeded, outcome{"wrong_key", exitRefused}},
	{livebackup.ErrWrongKey, outcome{"wrong_key", exitRefused}},
	{livebackup.ErrNotEncrypted, outcome{"wrong_key", exitRefused}},
	{livebackup.ErrKeyFile, outcome{"wrong_key", exitRefused}},
	{livebackup.ErrUnreachable, outcome{"unreachable", exitRefused}},
	{livebackup.ErrNotArchived, outcome{"unreachable", exitRefused}},
	{livebackup.ErrLogGap, outcome{"incomplete", exitPartial}},
	{livebackup.ErrRedoTooLarge, outcome{"too_large", exitRefused}},
	{livebackup.ErrMarkNotFound, outcome{"not_found", exitRefused}},
	{dashboard.ErrNotLoopback, outcome{"usage", exitUsage}},
	{mvcc.ErrNoBackup, outcome{"not_found", exitRefused}},
	{kv.ErrBucketNotFound, outcome{"not_found", exitRefused}},
	{kv.ErrIncompatibleValue, outcome{"not_found", exitRefused}},
	{kv.ErrKeyTooLarge, outcome{"usage", exitUsage}},
	{kv.ErrKeyRequired, outcome{"usage", exitUsage}},
	{errNoRecord, outcome{"not_found", exitRefused}},
	{mvcc.ErrStandby, outcome{"standby", exitRefused}},
	{mvcc.ErrReadOnly, outcome{"read_only", exitRefused}},
	{mvcc.ErrNeedsRecovery, outcome{"needs_recovery", exitRefused}},
	{mvcc.ErrNotStandby, outcome{"not_standby", exitRefused}},
	{livebackup.ErrQuietOver, outcome{"quiet_over", exitBroken}},
	{livebackup.ErrNoQuiet, outcome{"busy", exitBusy}},
	{livebackup.ErrTargetNotEmpty, outcome{"target_not_empty", exitRefused}},
	{livebackup.ErrTargetIsDatabase, outcome{"target_in_use", exitRefused}},
	{livebackup.ErrTargetMountPoint, outcome{"target_in_use", exitRefused}},
	{livebackup.ErrTargetIsRepository, outcome{"target_in_use", exitRefused}},
	{livebackup.ErrPeerNotAllowed, outcome{"not_allowed", exitRefused}},
	{fs.ErrPermission, outcome{"not_allowed", exitRefused}},
	{syscall.EROFS, outcome{"not_allowed", exitRefused}},
	{fs.ErrNotExist, outcome{"not_found", exitRefused}},
	{mvcc.ErrOptions, outcome{"usage", exitUsage}},
	{livebackup.ErrOptions, outcome{"usage", exitUsage}},
	{demo.ErrOptions, outcome{"usage", exitUsage}},
}

// outcomeOf says what err means. A signal outweighs what followed from it.
func outcomeOf(ctx context.Context, err error) outcome {
	if code := interrupt.Code(ctx); code != 0 {
		return outcome{"interrupted", code}
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return outcome{"usage", exitUsage}
	}
	var result *damageError
	if errors.As(err, &result) && errors.Is(err, block.ErrCorrupt) {
		return outcome{"damaged", exitDamage} // also if that could not be recorded
	}
	var partial *incompleteError
	if errors.As(err, &partial) {
		return outcome{"incomplete", exitPartial}
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.outcome
		}
	}
	return outcome{"failed", exitFailed}
}

// errorJSON is an error as programs read it.
type errorJSON struct {
	Error struct {
		Kind     string `json:"kind"`
		Message  string `json:"message"`
		ExitCode int    `json:"exit_code"`
	} `json:"error"`
	Record     *livebackup.Record `json:"record,omitempty"` // of a backup
	HookErrors []hooks.Failure    `json:"hook_errors,omitempty"`
}

// end tells how the run ended and returns its exit code.
func (a *app) end(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	o := outcomeOf(ctx, err)
	var printed *damageError
	if a.json && errors.As(err, &printed) {
		return o.code // the result says it
	}
	if a.json && !a.printed {
		var e errorJSON
		e.Error.Kind, e.Error.Message, e.Error.ExitCode = o.kind, err.Error(), o.code
		var recorded *recordedError
		if errors.As(err, &recorded) {
			e.Record, e.HookErrors = &recorded.record, recorded.hooks
		}
		if a.print(e, nil) == nil {
			return o.code
		}
	}
	fmt.Fprintf(a.stderr, "livebackup: %v\n", err)
	if o.code == exitUsage {
		fmt.Fprintf(a.stderr, "Try \"%s --help\".\n", cmp.Or(a.path, "livebackup"))
	}
	return o.code
}
