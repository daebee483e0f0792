package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8/cwriter"

	"github.com/spillwaydb/spillway/internal/interrupt"
)

// app is one run of the command.
type app struct {
	stdout, stderr io.Writer
	json           bool
	quiet          bool
	began          bool   // a command runs: what goes wrong is no longer a matter of usage
	printed        bool   // there is a result: in JSON nothing may follow it
	path           string // of the command that was given
}

const rootLong = `livebackup takes backups of Spillway databases while they are being written to,
lists them, proves that they can be restored, and restores them.

It talks to the process that has the database open, through a socket in the
database's directory; if no process has it open, it opens the database itself.
"livebackup demo" shows all of it on real files, in half a minute.

Sizes are written like 64MiB or 1.5GB, rates like 20MB/s, durations like 30s or
2h. Exit codes are explained by "livebackup help exit-codes".`

const rootExample = `  livebackup demo
  livebackup backup  --db /srv/app/db --repo /backups/app
  livebackup list    --repo /backups/app
  livebackup verify  --repo /backups/app
  livebackup restore --repo /backups/app --to /srv/app/db.restored
  livebackup status  --db /srv/app/db`

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, release := interrupt.Context(ctx, func() {}) // how it ends says why
	defer release()
	a := &app{stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	a.path = c.CommandPath()
	if err != nil && !a.began {
		a.json = a.json || slices.Contains(args, "--json") // the flags may not have come so far
		err = &usageError{err}
	}
	return a.end(ctx, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "livebackup",
		Short:         "Live backups of Spillway databases",
		Long:          rootLong,
		Example:       rootExample,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON value instead of text, also for errors")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "show no progress")
	root.AddCommand(a.demo(), a.plan(), a.backup(), a.archive(), a.list(), a.logs(), a.verify(), a.restore(),
		a.drill(), a.get(), a.extract(), a.prune(), a.delete(), a.status(), a.release(), a.check(), a.repair(), a.mark(), a.quiesce(),
		a.promote(), a.fork(), exitCodesTopic())
	root.AddCommand(a.watch(), a.dashboard(), a.pace())
	root.InitDefaultHelpCmd()
	help := mustFind(root, "help")
	help.Args, help.Example = helpTopic, "  livebackup help restore\n  livebackup help exit-codes"
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	return root
}

// noArgs refuses arguments. Most that are given were meant for a flag.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q: %s takes flags only, like %s", args[0], c.CommandPath(), strings.TrimPrefix(c.Use, c.Name()+" "))
	}
	return nil
}

// mustFind is a command that was just added.
func mustFind(root *cobra.Command, name string) *cobra.Command {
	c, _, err := root.Find([]string{name})
	if err != nil {
		panic(err) // a mistake in this package
	}
	return c
}

// helpTopic refuses what there is no help on, and says what there is.
func helpTopic(c *cobra.Command, args []string) error {
	topic, rest, err := c.Root().Find(args)
	if err == nil && len(rest) == 0 {
		return nil
	}
	msg := fmt.Sprintf("there is no help on %q", strings.Join(args, " "))
	if near := topic.SuggestionsFor(args[0]); len(rest) == len(args) && len(near) > 0 {
		msg += fmt.Sprintf(": did you mean %q?", near[0])
	}
	msg += "\nThere is help on"
	column := 80
	for _, sub := range c.Root().Commands() {
		if column += 1 + len(sub.Name()); column > 78 {
			msg, column = msg+"\n ", 2+len(sub.Name())
		}
		msg += " " + sub.Name()
	}
	return errors.New(msg)
}

// command makes fn what a cobra command runs.
func (a *app) command(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := refuseEmpty(c); err != nil {
			return err
		}
		a.began = true
		return fn(c.Context(), args)
	}
}

// mayNotBeEmpty are flags that name something. An empty one is a variable of a script that
// was never set: it must not mean the current directory, or the newest state.
var mayNotBeEmpty = []string{"db", "repo", "to", "backup", "base", "name", "recover", "bucket", "scratch", "token-file"}

func refuseEmpty(c *cobra.Command) error {
	for _, name := range mayNotBeEmpty {
		if f := c.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty", name)
		}
	}
	return nil
}

// print writes a result: as JSON, or by text.
func (a *app) print(value any, text func(w io.Writer)) error {
	a.printed = true
	out := &sticky{w: a.stdout}
	if a.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(value); err != nil {
			out.err = err
		}
	} else {
		text(out)
	}
	if out.err != nil {
		return fmt.Errorf("the command is done, but its result cannot be printed: %w", out.err)
	}
	return nil
}

// sticky remembers the first error of a writer, and writes nothing behind it.
type sticky struct {
	w   io.Writer
	err error
}

func (s *sticky) Write(p []byte) (n int, err error) {
	if s.err == nil {
		n, s.err = s.w.Write(p)
	}
	return n, s.err
}

// note tells a person something that is no result.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// warn is note for what is told also to who wants no progress: a job at night that is quiet
// unless something goes wrong.
func (a *app) warn(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// isTerminal reports whether a person looks at what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && cwriter.IsTerminal(int(f.Fd()))
}
