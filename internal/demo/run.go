package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/spill"
)

// demo is one run.
type demo struct {
	o       Options
	dir     string
	story   story
	report  *Report
	sampler sampler

	db      *kv.DB
	tree    *tree
	writers *writers
	repo    *livebackup.Repository
	rate    int64 // of the sink, bytes per second

	oldReader *reader // the report's
	auditor   *reader
	audited   *digest // what the auditor read
}

// Run tells the story. The report is there also if the run ended with
// ErrDifferent or ErrNotShown; any other error comes with what was found so far.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	d := &demo{o: o, report: &Report{}, story: story{out: o.Out, live: o.Live}}
	var err error
	if d.dir, err = os.MkdirTemp(o.Dir, "spillway-demo-"); err != nil {
		return nil, fmt.Errorf("make temporary directory: %w", err)
	}
	err = d.run(ctx)
	d.report.Took = time.Since(began)
	if o.Keep {
		d.report.Dir = d.dir
		d.story.print(fmt.Sprintf("\nKept: %s (db, repository, restored)\n", d.dir))
	} else if removeErr := os.RemoveAll(d.dir); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("remove temporary directory: %w", removeErr))
	}
	if err == nil {
		err = d.verdict()
	}
	return d.report, err
}

// run is the story. A failure of a goroutine ends it by its context.
func (d *demo) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := d.load(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.db.Close()) }()
	if err := d.live(ctx, cancel); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if err := d.verify(ctx); err != nil {
		return err
	}
	if err := d.restore(ctx); err != nil {
		return err
	}
	return d.compare(ctx)
}

// live is the part in which writers write.
func (d *demo) live(ctx context.Context, cancel context.CancelCauseFunc) error {
	hot := hotFiles(d.tree, d.o.HotBytes)
	d.writers = startWriters(ctx, d.db, d.o.Writers, hot, cancel)
	defer d.writers.end()
	d.startSampler(ctx)
	defer d.sampler.end()
	defer d.closeReaders()
	for _, step := range []func(context.Context) error{d.before, d.openReport, d.backup, d.repeat, d.after} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) closeReaders() {
	for _, r := range []**reader{&d.oldReader, &d.auditor} {
		if *r != nil {
			(*r).close()
			*r = nil
		}
	}
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// open opens a database with little memory and less temporary storage.
func (d *demo) open(name string) (*kv.DB, error) {
	temp := d.path("temporary")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, err
	}
	o := mvcc.Options{
		MaxRAM: d.o.MaxRAM, OverflowMax: d.o.OverflowMax, OnEvent: d.sampler.event,
		Temp: []mvcc.TempDir{{Path: temp, BytesMax: d.o.TempMax}},
	}
	db, err := kv.Open(d.path(name), kv.Options{Store: o})
	if errors.Is(err, spill.ErrMemoryFS) {
		d.story.say("(its files are in memory, so temporary storage is, too)")
		o.AllowMemoryTemp = true
		db, err = kv.Open(d.path(name), kv.Options{Store: o})
	}
	return db, err
}

func (d *demo) load(ctx context.Context) (err error) {
	if d.tree, err = findTree(ctx, d.o.Tree, d.o.LoadBytesMax, (d.o.MaxRAM+d.o.TempMax)/4); err != nil {
		return err
	}
	r := d.report
	r.Tree, r.Generated, r.Counters = d.tree.name, d.tree.generated, counters
	d.story.begin("Load", "%s files of %s", human.Count(len(d.tree.files)), d.tree.name)
	if d.db, err = d.open("db"); err != nil {
		return err
	}
	l := &loader{db: d.db, txBytes: min(4<<20, d.o.MaxRAM/8)}
	began := time.Now()
	err = l.load(ctx, d.tree, func(files int, bytes int64) {
		d.story.draw(fmt.Sprintf("%s files, %s", human.Count(files), human.Bytes(bytes)))
	})
	if err != nil {
		return errors.Join(err, d.db.Close())
	}
	st := d.db.Store().Status()
	r.Files, r.FileBytes, r.LoadTook = l.done, l.bytes, time.Since(began)
	r.Blocks, r.BlockSize = st.AllocatedBlocks, st.BlockSize
	size := int64(st.AllocatedBlocks) * int64(st.BlockSize)
	d.rate = l.sinkRate(size, d.o.BackupTakes)
	r.SinkRate = d.rate
	d.story.say("and %s counters, one record each: %s in blocks of %s\n(%s); granted: %s of memory, %s of temporary storage", human.Count(counters),
		human.Bytes(size), human.Bytes(int64(st.BlockSize)), human.Elapsed(r.LoadTook), human.Bytes(d.o.MaxRAM), human.Bytes(d.o.TempMax))
	return nil
}

// before measures writers that no snapshot concerns.
func (d *demo) before(ctx context.Context) error {
	d.story.begin("Write", "%d writers rewrite, create and delete files; each transaction also\n"+
		"moves an amount between two counters: their sum must not change", d.o.Writers)
	if err := d.tune(ctx); err != nil {
		return err
	}
	end := d.writers.measured()
	if err := d.wait(ctx, d.o.Calm); err != nil {
		return err
	}
	d.report.Before = end()
	d.story.say("without a backup: %s", throughputText(d.report.Before))
	return nil
}

// tune has writers change so much at a time that they will have changed most of
// the hot files when the backup is half way.
func (d *demo) tune(ctx context.Context) error {
	end := d.writers.measured()
	if err := d.wait(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	files := float64(end().Bytes) / float64(d.writers.fileSize) / 0.3
	due := float64(d.o.HotBytes) / float64(d.writers.fileSize) / (d.o.BackupTakes.Seconds() / 2)
	d.writers.perTx.Store(max(1, min(16, int64(due/max(files, 1)+0.5))))
	return nil
}

func (d *demo) wait(ctx context.Context, t time.Duration) error {
	d.show(func(s Sample) string { return fmt.Sprintf("%s commits", human.Count(s.Commits)) })
	defer d.show(nil)
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reportAge is how much older the report's snapshot is than the auditor's.
const reportAge = time.Second

func (d *demo) openReport(ctx context.Context) (err error) {
	if d.oldReader, err = openReader(d.db); err != nil {
		return err
	}
	d.sampler.mark('R')
	d.oldReader.read(ctx)
	d.report.ReportLSN = d.oldReader.tx.LSN()
	d.story.begin("Snapshots", "a report opens a snapshot at LSN %v and reads everything", d.report.ReportLSN)
	return d.wait(ctx, reportAge)
}

// opened is told when the auditor's snapshot and the backup's are open.
func (d *demo) opened(auditor block.LSN, b mvcc.BackupInfo) {
	d.sampler.mark('B')
	r := d.report
	r.AuditorLSN, r.BackupLSN = auditor, b.LSN
	c := r.compare("LSN of auditor and backup", fmt.Sprint(auditor), fmt.Sprint(b.LSN))
	d.story.say("%s later an auditor opens a snapshot at LSN %v, and\nthe backup opens its own at LSN %v%s",
		human.Elapsed(reportAge), auditor, b.LSN, equalText(c))
	d.story.say("(for that the demo held its writers for %s; a backup does not)", human.Elapsed(r.WritersHeld))
	d.story.begin("Backup", "of %s to a slow sink (%s), while the writers go on;\nwhen it opened, a writer could wait %s at most",
		human.Bytes(int64(b.Blocks)*int64(b.BlockSize)), human.PerSecond(d.rate, time.Second), human.Elapsed(b.StartStall))
}

func (d *demo) backup(ctx context.Context) (err error) {
	if d.repo, err = livebackup.OpenRepository(ctx, d.path("repository"), livebackup.RepositoryOptions{Create: true}); err != nil {
		return err
	}
	src := &pairedSource{Source: livebackup.NewSource(d.db.Store()), d: d}
	end := d.writers.measured()
	began := time.Now()
	res, err := livebackup.Backup(ctx, src, d.repo, livebackup.BackupOptions{
		Owner: "demo", Label: "live", BytesPerSecond: d.rate,
		Progress: func(p livebackup.Progress) { d.show(backupLine(p)) },
	})
	d.show(nil)
	d.auditor = src.auditor
	if err != nil {
		return err
	}
	d.sampler.mark('C')
	d.report.During = end()
	m := res.Manifest
	d.report.Backup = m
	if waited := d.report.SinkWaited; waited > sampleTime {
		d.story.say("(the sink waited %s for originals to overflow)", human.Elapsed(waited))
	}
	d.story.say("complete, exact at LSN %v: %s stored in %s, in %s", m.EndLSN, human.Bytes(m.RawBytes),
		human.Bytes(m.StoredBytes), human.Elapsed(time.Since(began)))
	d.story.say("meanwhile:        %s", throughputText(d.report.During))
	return nil
}

// backupLine is the live line while the backup runs.
func backupLine(p livebackup.Progress) func(Sample) string {
	return func(s Sample) string {
		return fmt.Sprintf("%3d%%  originals: memory %s, spilled %s, overflow %s", 100*p.Blocks/max(1, p.BlocksTotal),
			human.Bytes(s.RAM), human.Bytes(s.Temporary), human.Bytes(s.Overflow))
	}
}

// repeat reads both snapshots once more, out of the originals, and ends them.
func (d *demo) repeat(ctx context.Context) error {
	for _, r := range []struct {
		who    string
		reader *reader
		keep   **digest
	}{{"report", d.oldReader, nil}, {"auditor", d.auditor, &d.audited}} {
		d.show(func(s Sample) string { return "the " + r.who + " reads everything again" })
		first, second, err := r.reader.again(ctx)
		d.show(nil)
		if err != nil {
			return fmt.Errorf("%s: %w", r.who, err)
		}
		equal := true
		for _, c := range d.report.compareDigests(r.who+" twice", first, second) {
			equal = equal && c.Equal
		}
		d.story.say("the %s reads everything again, as of LSN %v%s", r.who, first.lsn, equalText(Comparison{Equal: equal}))
		if r.keep != nil {
			*r.keep = first
		}
	}
	st := d.db.Store().Status()
	d.report.OriginalsMade, d.report.OriginalsShared = st.Originals.OriginalsMade, st.Originals.OriginalsShared
	d.report.OriginalsSpilled = st.Cache.Spilled
	d.closeReaders()
	d.sampler.mark('E')
	return nil
}

func (d *demo) after(ctx context.Context) error {
	end := d.writers.measured()
	if err := d.wait(ctx, d.o.Calm); err != nil {
		return err
	}
	d.report.After = end()
	d.story.say("afterwards:       %s", throughputText(d.report.After))
	d.writers.end()
	d.sampler.end()
	d.tell()
	return nil
}

// tell puts what the sampler saw into the report, and draws it.
func (d *demo) tell() {
	s, r := &d.sampler, d.report
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Samples, r.Watermarks = s.samples, append([]Watermark{}, s.watermarks...)
	for _, l := range s.levels {
		if l.Name != "host" && l.Unit == "bytes" { // ages have no place among sizes
			r.Levels = append(r.Levels, LevelPeak{l.Name, max(s.peaks[l.Name], l.Peak), l.Limit})
		}
	}
	b := unicodeBrush
	if d.o.ASCII {
		b = asciiBrush
	}
	d.story.print("\n" + plot(s.samples, s.marks, b) + plotLegend(b) + "\n")
}
