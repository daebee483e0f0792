package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func small(dir string) Options {
	return Options{Dir: dir, Records: 5000, ValueBytes: 64, Duration: 300 * time.Millisecond, Seed: 1, Store: mvcc.Options{MaxRAM: 16 << 20}}
}

// TestFillsOnceAndChanges: a database is filled once, has exactly the records
// asked for afterwards, whatever was changed, and nothing is served any more.
func TestFillsOnceAndChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	for i, d := range Distributions {
		o := small(dir)
		o.Distribution = d
		filled := map[bool]int{true: o.Records}[i == 0]
		for done := false; !done; o.Duration *= 4 { // a commit of a slow disk may take longer than that
			s, err := Run(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			done = s.Commits > 0
			if s.Filled != filled || s.Records != o.Records || done != (s.PerSecond() > 0) {
				t.Errorf("%s: %+v", d, s)
			}
			filled = 0
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, livebackup.SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket: %v", err)
	}
	db, err := kv.Open(dir, kv.Options{Store: mvcc.Options{MaxRAM: 16 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *kv.Tx) error {
		b, err := tx.Bucket([]byte(bucketName))
		if err != nil {
			return err
		}
		s, err := b.Stats()
		if err == nil && (s.Keys != 5000 || s.ValueBytes != 5000*64) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestServedUntilInterrupted: while it runs the database can be asked; a context
// that ends is no error, and what was done is told.
func TestServedUntilInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	o := small(filepath.Join(t.TempDir(), "db"))
	o.Duration = 0
	var asked atomic.Int64
	o.Tick = func(tick Tick) {
		if tick.Filling || tick.Latency.Count == 0 {
			return // of a slow disk: the next one
		}
		c, err := livebackup.Dial(o.Dir)
		if err == nil {
			_, err = c.Status(ctx)
		}
		if err != nil {
			t.Error(err)
		}
		asked.Add(1)
		if tick.Records != o.Records {
			t.Errorf("%+v", tick)
		}
		cancel(errors.New("enough"))
	}
	s, err := Run(ctx, o)
	if err != nil || asked.Load() == 0 || s.Commits == 0 {
		t.Errorf("%v, asked %d times, %+v", err, asked.Load(), s)
	}
}

// TestRate: writers do no more than they were told to.
func TestRate(t *testing.T) {
	o := small(filepath.Join(t.TempDir(), "db"))
	o.PerSecond, o.Writers = 100, 8
	s, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if most := uint64(100*s.Took.Seconds()) + 9; s.Commits > most {
		t.Errorf("%d commits, at most %d are due", s.Commits, most)
	}
}

func TestChoosers(t *testing.T) {
	for _, d := range Distributions {
		o := Options{Dir: "x", Records: 100, Distribution: d}
		if err := o.validate(); err != nil {
			t.Fatal(err)
		}
		c := newChooser(&o, 0, new(atomic.Uint64))
		seen := map[uint64]int{}
		for range 10_000 {
			seen[c.record()]++
		}
		most := 0
		for r, n := range seen {
			most = max(most, n)
			if r >= 100 {
				t.Fatalf("%s: record %d", d, r)
			}
		}
		if even := d == Sequential && most == 100 || d == Uniform && most < 200; even != (d != Zipf) || d == Zipf && most < 500 {
			t.Errorf("%s: the most frequent comes %d times", d, most)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory": {}, "records": {Dir: "x", Records: -1}, "values": {Dir: "x", ValueBytes: -1}, "duration": {Dir: "x", Duration: -1},
		"writers": {Dir: "x", Writers: -1}, "per transaction": {Dir: "x", PerTx: -1}, "rate": {Dir: "x", PerSecond: -1},
		"distribution": {Dir: "x", Distribution: "normal"},
	} {
		if _, err := Run(context.Background(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
