package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// verify reads the backup back.
func (d *demo) verify(ctx context.Context) (err error) {
	d.story.draw("reading the backup back")
	if d.report.Proof, err = livebackup.Verify(ctx, d.repo, livebackup.BackupID{}, livebackup.VerifyOptions{}); err != nil {
		return err
	}
	p := d.report.Proof
	d.story.begin("Verify", "read back through the restore path: %s blocks proven, in %s", human.Count(p.Blocks), human.Elapsed(p.Duration))
	return nil
}

func (d *demo) restore(ctx context.Context) error {
	d.story.draw("restoring")
	res, err := livebackup.Restore(ctx, d.repo, livebackup.RestoreTarget{}, d.path("restored"), livebackup.RestoreOptions{Databases: []string{d.path("db")}})
	if err != nil {
		return err
	}
	d.report.Restore = res.Duration
	d.story.begin("Restore", "%s beside the running database, in %s", human.Bytes(res.Manifest.RawBytes), human.Elapsed(res.Duration))
	return nil
}

// compare opens the restored database and compares all of it with what the
// auditor read through its snapshot while the backup was being taken.
func (d *demo) compare(ctx context.Context) (err error) {
	d.story.draw("comparing")
	db, err := d.open("restored")
	if err != nil {
		return fmt.Errorf("open restored database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	got, err := readAll(ctx, tx)
	if err = errors.Join(err, tx.Rollback()); err != nil {
		return fmt.Errorf("read restored database: %w", err)
	}
	d.report.compareDigests("restored", d.audited, got)
	d.report.compare("sum of counters is what it was at the start", human.Count(counters*counterStart), human.Count(got.sum))
	check, err := db.Store().Check(ctx, nil)
	if err != nil {
		return err
	}
	d.report.CheckedBlocks = check.Blocks
	sound := d.report.compare("check of the restored database", "no problems", problemsText(check.Problems))
	d.story.begin("Compare", "restored database against the auditor's snapshot at LSN %v", d.audited.lsn)
	for i, b := range got.buckets {
		d.story.say("%-9s %s%s", b.name, b, equalText(Comparison{Equal: i < len(d.audited.buckets) && b == d.audited.buckets[i]}))
	}
	d.story.say("the counters add up to %s%s", human.Count(got.sum), equalText(Comparison{Equal: got.sum == counters*counterStart}))
	d.story.say("every block and every tree: %s%s", sound.Got, equalText(sound))
	return nil
}

func problemsText(list []string) string {
	if len(list) == 0 {
		return "no problems"
	}
	return fmt.Sprintf("%d problems: %s", len(list), strings.Join(list, "; "))
}

// verdict sums up: what it cost, and whether all was equal.
func (d *demo) verdict() error {
	r := d.report
	d.costs()
	spilled := r.OriginalsSpilled > 0
	overflowed := false
	for _, l := range r.Levels {
		overflowed = overflowed || l.Name == mvcc.LevelOverflow && l.Peak > 0
	}
	switch {
	case !r.equal():
		d.story.print("\nDIFFERENT. This should never happen:\n" + differences(r))
		return ErrDifferent
	case !spilled || !overflowed:
		d.story.print("\nAll was equal, but originals did not spill and overflow: the run proves too little.\n")
		return fmt.Errorf("%w: %d spilled, overflow %v", ErrNotShown, r.OriginalsSpilled, overflowed)
	}
	r.OK = true
	d.story.print(fmt.Sprintf("\nAll %d comparisons are equal: the backup is exactly the state at LSN %v.\n(%s in all)\n",
		len(r.Comparisons), r.BackupLSN, human.Elapsed(r.Took)))
	return nil
}

func differences(r *Report) string {
	var out strings.Builder
	for _, c := range r.Comparisons {
		if !c.Equal {
			fmt.Fprintf(&out, "  %s: want %s, got %s\n", c.What, c.Want, c.Got)
		}
	}
	return out.String()
}

// costs says what the backup and the two snapshots cost.
func (d *demo) costs() {
	r := d.report
	d.story.print("\nWhat it cost\n")
	d.story.say("stall       a writer could wait %s when the backup opened", human.Elapsed(r.Backup.StartStall))
	d.story.say("commits/s   %s before, %s while it ran, %s after", rateText(r.Before), rateText(r.During), rateText(r.After))
	d.story.say("            (a dip is the price of so little memory: the originals\n"+
		"            take most of %s, and the readers read from disk)", human.Bytes(d.o.MaxRAM))
	d.story.say("originals   %s made; %s shared by several snapshots,\n            %s spilled to temporary storage",
		human.Count(r.OriginalsMade), human.Count(r.OriginalsShared), human.Count(r.OriginalsSpilled))
	for i, l := range r.Levels {
		head := ""
		if i == 0 {
			head = "peaks"
		}
		d.story.say("%-11s %-9s %s of %s%s", head, l.Name, human.Bytes(l.Peak), human.Bytes(l.Limit), watermarksText(r.Watermarks, l.Name))
	}
}

// watermarksText says how often a level crossed a watermark, and how far up.
func watermarksText(list []Watermark, level string) string {
	worst, count := mvcc.StateNormal, 0
	for _, w := range list {
		if w.Level != level {
			continue
		}
		count++
		if mvcc.StateRank(w.State) > mvcc.StateRank(worst) {
			worst = w.State
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("; %s, to %s", human.Plural(count, "watermark"), worst)
}

func rateText(t Throughput) string { return human.Count(int(t.PerSecond())) }

func throughputText(t Throughput) string {
	return fmt.Sprintf("%s commits/s, p99 %s, max %s", rateText(t), human.Elapsed(t.P99), human.Elapsed(t.Max))
}

func equalText(c Comparison) string {
	if c.Equal {
		return "   equal"
	}
	return "   DIFFERENT"
}
