package demo

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(code) }))
}

// short is a run of a few seconds.
func short(t *testing.T) Options {
	return Options{
		Dir: t.TempDir(), LoadBytesMax: 10 << 20, HotBytes: 6 << 20, MaxRAM: 3 << 20, TempMax: 1 << 20,
		BackupTakes: 500 * time.Millisecond, Calm: 200 * time.Millisecond,
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestEverythingIsCompared: a run ends well only after each of the comparisons
// that the story promises, with originals spilled and overflowed, and it leaves
// nothing behind. The story fits terminals.
func TestEverythingIsCompared(t *testing.T) {
	o := short(t)
	var out bytes.Buffer
	o.Out = &out
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	var what []string
	for _, c := range r.Comparisons {
		what = append(what, c.What)
	}
	for _, want := range []string{
		"LSN of auditor and backup", "report twice: bucket files", "auditor twice: bucket counters",
		"restored: bucket files", "restored: bucket counters", "restored: sum of counters",
		"sum of counters is what it was at the start", "check of the restored database",
	} {
		if !slices.Contains(what, want) {
			t.Errorf("nobody compared %q; only %q", want, what)
		}
	}
	if !r.OK || r.AuditorLSN != r.BackupLSN || r.ReportLSN >= r.BackupLSN || r.OriginalsSpilled == 0 || r.OriginalsShared == 0 {
		t.Errorf("%+v", r)
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if utf8.RuneCountInString(line) > 80 {
			t.Errorf("too long: %s", line)
		}
	}
	empty(t, o.Dir)
}

// TestInterrupted: whenever the run is cancelled, it returns why, and leaves
// nothing behind.
func TestInterrupted(t *testing.T) {
	stopped := errors.New("stopped")
	for _, at := range []string{"Load", "Snapshots", "Backup", "Verify"} {
		o := short(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		o.Out = writerFunc(func(p []byte) (int, error) {
			if bytes.Contains(p, []byte(at)) {
				cancel(stopped)
			}
			return len(p), nil
		})
		if _, err := Run(ctx, o); !errors.Is(err, stopped) {
			t.Errorf("stopped at %s: %v", at, err)
		}
		empty(t, o.Dir)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestDifferencesAreSeen: a changed value, a missing record, a moved boundary
// between key and value, and a bucket too many are each a difference.
func TestDifferencesAreSeen(t *testing.T) {
	put := func(key, value string) func(*kv.Bucket) error {
		return func(b *kv.Bucket) error { return b.Put([]byte(key), []byte(value)) }
	}
	base := digestOf(t, put("a", "1"), put("b", "2"))
	if r := (&Report{}); len(r.compareDigests("same", base, digestOf(t, put("b", "2"), put("a", "1")))) == 0 || !r.equal() {
		t.Errorf("equal databases differ: %+v", r.Comparisons)
	}
	for name, other := range map[string]*digest{
		"changed": digestOf(t, put("a", "1"), put("b", "3")),
		"missing": digestOf(t, put("a", "1")),
		"moved":   digestOf(t, put("a", "1"), put("b2", "")),
		"more":    digestOf(t, put("a", "1"), put("b", "2"), func(b *kv.Bucket) error { _, err := b.Tx().CreateBucket([]byte("more")); return err }),
	} {
		r := &Report{}
		if r.compareDigests(name, base, other); r.equal() {
			t.Errorf("%s: not seen", name)
		}
	}
	if (&Report{}).equal() {
		t.Error("nothing compared, and yet all is equal")
	}
}

func digestOf(t *testing.T, changes ...func(*kv.Bucket) error) *digest {
	t.Helper()
	db, err := kv.Open(t.TempDir(), kv.Options{Store: mvcc.Options{MaxRAM: 16 << 20, Durability: mvcc.DurableNever}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var d *digest
	err = errors.Join(db.Update(func(tx *kv.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for _, change := range changes {
			err = errors.Join(err, change(b))
		}
		return err
	}), db.View(func(tx *kv.Tx) (err error) {
		d, err = readAll(context.Background(), tx)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestNothingProven: a run in which originals neither spilled nor overflowed is
// no success.
func TestNothingProven(t *testing.T) {
	d := &demo{report: &Report{Comparisons: []Comparison{{Equal: true}}}, story: story{out: writerFunc(func(p []byte) (int, error) { return len(p), nil })}}
	if err := d.verdict(); !errors.Is(err, ErrNotShown) || d.report.OK {
		t.Errorf("%v", err)
	}
	d.report.Comparisons[0].Equal = false
	if err := d.verdict(); !errors.Is(err, ErrDifferent) {
		t.Errorf("%v", err)
	}
}

func TestGeneratedTree(t *testing.T) {
	a, b := generateTree(1<<20), generateTree(1<<20)
	if len(a.files) != len(b.files) || a.bytes < 1<<20 || !a.generated {
		t.Fatalf("%d files of %d bytes, %d files", len(a.files), a.bytes, len(b.files))
	}
	for i := range a.files {
		x, _ := a.files[i].read()
		y, _ := b.files[i].read()
		if int64(len(x)) != a.files[i].size || !bytes.Equal(x, y) {
			t.Fatalf("file %d: %d and %d bytes, %d announced", i, len(x), len(y), a.files[i].size)
		}
	}
	if _, err := findTree(context.Background(), t.TempDir(), 0, 1<<20); err == nil {
		t.Error("an empty directory is a tree")
	}
}

// TestPlot: it fits 80x24, shows each level, names the moments, and has no holes.
func TestPlot(t *testing.T) {
	var samples []Sample
	for i := range 200 {
		n := int64(i) << 20
		samples = append(samples, Sample{At: time.Duration(i) * 100 * time.Millisecond, Commits: uint64(i * 100),
			RAM: min(n, 20<<20), Temporary: min(max(0, n-20<<20), 60<<20), Overflow: max(0, n-80<<20)})
	}
	marks := []mark{{time.Second, 'R'}, {2 * time.Second, 'B'}, {time.Hour, 'E'}}
	for _, b := range []brush{unicodeBrush, asciiBrush} {
		text := plot(samples, marks, b) + plotLegend(b)
		lines := strings.Split(text, "\n")
		if len(lines) > 20 {
			t.Errorf("%d lines", len(lines))
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("too long: %s", line)
			}
		}
		for _, want := range append(b.layers[:], 'R', 'B', 'E') {
			if !strings.ContainsRune(strings.Join(lines[:13], "\n"), want) {
				t.Errorf("no %c in\n%s", want, text)
			}
		}
	}
	if ascii := plot(samples, marks, asciiBrush); regexp.MustCompile(`[^\x00-\x7f]`).MatchString(ascii) {
		t.Error("ASCII is more than that")
	}
	if plot(nil, nil, asciiBrush) != "" {
		t.Error("a plot of nothing")
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"too fast": {BackupTakes: time.Millisecond}, "one writer": {Writers: 1}, "calm": {Calm: time.Nanosecond},
		"cannot overflow": {HotBytes: 1 << 20}, "nothing loaded": {LoadBytesMax: 1}, "negative": {OverflowMax: -1},
	} {
		if _, err := Run(context.Background(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
