package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/bench/load"
	"github.com/spillwaydb/spillway/internal/interrupt"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is an error of the command line.
type usageError struct{ cause error }

func (e *usageError) Error() string { return e.cause.Error() }
func (e *usageError) Unwrap() error { return e.cause }

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, release := interrupt.Context(ctx, func() { fmt.Fprintln(stderr, "\nstopping; once more to kill") })
	defer release()
	began := false // a command runs: what goes wrong is no longer a matter of usage
	root := &cobra.Command{
		Use: "bench", Short: "Keeps databases busy, and measures backups", SilenceUsage: true, SilenceErrors: true,
		Example: "  go run ./cmd/bench load --db /tmp/busy --records 1000000 --duration 60s\n" +
			"  go run ./cmd/bench backup --out bench/results/backup.json",
	}
	root.AddCommand(loadCommand(&began), backupCommand(&began), taskCommand(&began))
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if code := interrupt.Code(ctx); code != 0 && errors.Is(err, context.Cause(ctx)) {
		return code
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	var usage *usageError
	if !began || errors.As(err, &usage) || errors.Is(err, load.ErrOptions) {
		fmt.Fprintln(stderr, `Try "bench --help".`)
		return 2
	}
	return 1
}
