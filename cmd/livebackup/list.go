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

const listExample = `  livebackup list --repo /backups/app
  livebackup list --repo /backups/app --json | jq -r '.[-1].id'`

func (a *app) list() *cobra.Command {
	var f repositoryFlags
	c := &cobra.Command{
		Use: "list --repo DIR", Short: "List the backups of a repository, oldest first",
		Long: `Lists the backups of a repository, oldest first, without reading their blocks.

States: "complete" is whole as far as names and sizes tell, "proven" was read
back by verify or restored by a drill, "damaged" cannot be restored, "disabled"
belongs to a future that was abandoned by a restore and is restored only by its
name, "unreadable" means that its manifest could not be read just now.`,
		Example: listExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runList(ctx, f) }),
	}
	f.add(c)
	return c
}

func (a *app) runList(ctx context.Context, f repositoryFlags) error {
	repo, err := f.open(ctx)
	if err != nil {
		return err
	}
	entries, err := livebackup.List(ctx, repo)
	if err != nil {
		return err
	}
	list := make([]backupJSON, 0, len(entries))
	for i := range entries {
		list = append(list, entryJSON(&entries[i]))
	}
	return a.print(list, func(w io.Writer) { listText(w, list) })
}

func entryJSON(e *livebackup.Entry) backupJSON {
	b := manifestJSON(e.Manifest)
	b.ID, b.State, b.Proof, b.Disabled = e.ID, e.State(), e.Proof, e.Disabled
	if e.Damage != nil {
		b.Damage = e.Damage.Error()
	}
	if e.Unreadable != nil {
		b.Unreadable = e.Unreadable.Error()
	}
	return b
}

func listText(w io.Writer, list []backupJSON) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no backups yet")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BACKUP\tKIND\tSTARTED\tSIZE\tSTORED\tSTATE\tLABEL")
	for _, b := range list {
		fmt.Fprintf(t, "%v\t%s\t%s\t%s\t%s\t%s\t%s\n", b.ID, shortKind(b.Kind), when(b.Started),
			human.Bytes(b.RawBytes), human.Bytes(b.StoredBytes), b.State, printable(b.Label))
	}
	t.Flush()
	if b := newestDrill(list); b != nil {
		fmt.Fprintf(w, "newest proven point: LSN %v, of %s;\n  a drill restored it from %v in %s on %s\n", b.Proof.Drill.LSN,
			exactly(b.Proof.Drill.Committed), b.ID, human.Elapsed(b.Proof.Drill.Restored), when(b.Proof.Verified))
	}
	for _, b := range list {
		if b.Damage != "" {
			fmt.Fprintf(w, "%v is damaged: %s\n", b.ID, b.Damage)
		}
		if b.Unreadable != "" {
			fmt.Fprintf(w, "%v cannot be read: %s\n", b.ID, b.Unreadable)
		}
		if b.Disabled != "" {
			fmt.Fprintf(w, "%v is disabled: %s\n", b.ID, b.Disabled)
		}
	}
}

// shortKind leaves room for a label in 80 columns.
func shortKind(kind string) string {
	switch kind {
	case livebackup.KindIncremental:
		return "incr"
	case "":
		return "-"
	}
	return kind
}

// newestDrill is the backup whose drill led furthest, nil if there was none.
func newestDrill(list []backupJSON) (best *backupJSON) {
	for i := range list {
		b := &list[i]
		if b.Proof == nil || b.Proof.Drill == nil || !b.Proof.OK {
			continue
		}
		if best == nil || b.Proof.Drill.LSN >= best.Proof.Drill.LSN {
			best = b
		}
	}
	return best
}

// when is a moment as people read it, in their time zone.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
