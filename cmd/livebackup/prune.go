package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

const pruneLong = `Removes old backups and archived log. A generation is a full backup with the
incrementals that add to it; the newest --generations are kept, and with
--window what it takes to restore any moment of that length. Damaged and
disabled backups are no generations and push none out. The newest state, and
what a kept backup needs or someone reads now, stays. Small objects of archived
log that stay are merged.

--dry-run shows what would go and what stays, each with the reason.`

const pruneExample = `  livebackup prune --repo /backups/app --dry-run
  livebackup prune --repo /backups/app --generations 7 --window 2days`

type pruneFlags struct {
	repo         repositoryFlags
	generations  int
	window       human.Duration
	keepDisabled bool
	dryRun       bool
}

func (f *pruneFlags) policy() livebackup.RetentionPolicy {
	return livebackup.RetentionPolicy{Generations: f.generations, Window: time.Duration(f.window), KeepDisabled: f.keepDisabled}
}

func (f *pruneFlags) check() error {
	if f.generations < 1 {
		return &usageError{fmt.Errorf("--generations %d: at least one is kept", f.generations)}
	}
	return nil
}

func (a *app) prune() *cobra.Command {
	var f pruneFlags
	c := &cobra.Command{
		Use: "prune --repo DIR", Short: "Remove old backups and archived log",
		Long: pruneLong, Example: pruneExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runPrune(ctx, f) }),
	}
	f.repo.add(c)
	c.Flags().IntVar(&f.generations, "generations", livebackup.GenerationsDefault, "how many to keep; 7 is one for each day of a week")
	c.Flags().Var(&f.window, "window", "keep every moment of this length reachable, like 2days")
	c.Flags().BoolVar(&f.keepDisabled, "keep-disabled", false, "keep disabled backups until they are deleted by name")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "only show what would go, and why")
	return c
}

func (a *app) runPrune(ctx context.Context, f pruneFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	repo, err := f.repo.open(ctx)
	if err != nil {
		return err
	}
	plan, err := livebackup.PlanPrune(ctx, repo, f.policy())
	if err != nil {
		return err
	}
	if f.dryRun {
		plan.Backups, plan.Logs = listed(plan.Backups), listed(plan.Logs)
		return a.print(plan, func(w io.Writer) { planText(w, &plan) })
	}
	res, err := livebackup.Prune(ctx, repo, plan)
	if err != nil {
		return err
	}
	return a.printPruned(res)
}

func planText(w io.Writer, p *livebackup.PrunePlan) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tBACKUP\tKIND\tLSN\tSIZE\tWHY")
	for _, b := range p.Backups {
		fmt.Fprintf(t, "%s\t%v\t%s\t%v\t%s\t%s\n", fate(b.Remove), b.ID, shortKind(b.Kind), b.LSN, human.Bytes(b.Bytes), b.Reason)
	}
	t.Flush()
	kept, gone, freed := 0, 0, int64(0)
	for _, l := range p.Logs {
		if l.Remove {
			gone, freed = gone+1, freed+l.Bytes
		} else {
			kept++
		}
	}
	if len(p.Logs) > 0 {
		fmt.Fprintf(w, "archived log: %s kept, %s (%s) would go\n", human.Plural(kept, "object"), human.Plural(gone, "object"), human.Bytes(freed))
	}
	mergesText(w, "would merge", p.Merges)
	backups, _, bytes := p.Removes()
	fmt.Fprintf(w, "would remove %s and free %s\n", human.Plural(backups, "backup"), human.Bytes(bytes))
}

func fate(remove bool) string {
	if remove {
		return "remove"
	}
	return "keep"
}

func (a *app) printPruned(r livebackup.PruneResult) error {
	r.Backups, r.Logs, r.Spared, r.Merged = listed(r.Backups), listed(r.Logs), listed(r.Spared), listed(r.Merged)
	return a.print(r, func(w io.Writer) { pruneText(w, r) })
}

// listed is a list that is an empty one in JSON if there is nothing in it, not null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func mergesText(w io.Writer, verb string, merges []livebackup.LogMerge) {
	n := 0
	for _, m := range merges {
		n += m.Objects
	}
	if n > 0 {
		fmt.Fprintf(w, "%s %s of log into %d\n", verb, human.Plural(n, "object"), len(merges))
	}
}

func pruneText(w io.Writer, r livebackup.PruneResult) {
	for _, id := range r.Backups {
		fmt.Fprintf(w, "removed backup %v\n", id)
	}
	for _, b := range r.Spared {
		fmt.Fprintf(w, "kept backup %v: %s\n", b.ID, b.Reason)
	}
	mergesText(w, "merged", r.Merged)
	for _, why := range r.Unmerged {
		fmt.Fprintf(w, "warning: %s\n", why)
	}
	fmt.Fprintf(w, "removed %s and %s of log: %s are free\n", human.Plural(len(r.Backups), "backup"),
		human.Plural(len(r.Logs), "object"), human.Bytes(r.Bytes))
}

const deleteLong = `Deletes one backup that is named. It refuses what prune would keep by the same
flags, unless --force is given, and never deletes a backup that incrementals add
to, unless --dependants deletes these with it.`

func (a *app) delete() *cobra.Command {
	var f pruneFlags
	var o livebackup.DeleteOptions
	c := &cobra.Command{
		Use: "delete --repo DIR BACKUP", Short: "Delete one backup",
		Long: deleteLong, Example: "  livebackup delete --repo /backups/app 0000000012-8f3a9c21", Args: cobra.ExactArgs(1),
		RunE: a.command(func(ctx context.Context, args []string) error {
			name, err := namedBackup(args)
			if err == nil {
				err = f.check()
			}
			if err != nil {
				return err
			}
			id, err := parseBackup(name)
			if err != nil {
				return err
			}
			repo, err := f.repo.open(ctx)
			if err != nil {
				return err
			}
			o.Policy = f.policy()
			res, err := livebackup.Delete(ctx, repo, id, o)
			if err != nil {
				return err
			}
			return a.printPruned(res)
		}),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.repo.complete(c.Context())
		},
	}
	f.repo.add(c)
	c.Flags().IntVar(&f.generations, "generations", livebackup.GenerationsDefault, "as of prune")
	c.Flags().Var(&f.window, "window", "as of prune")
	c.Flags().BoolVar(&o.Force, "force", false, "also what prune would keep")
	c.Flags().BoolVar(&o.Dependants, "dependants", false, "with the incrementals that add to it")
	return c
}
