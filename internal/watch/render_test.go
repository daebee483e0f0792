package watch

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/livebackup"
)

var update = flag.Bool("update", false, "write the golden files anew")

// busy is a database with everything going on.
func busy() View {
	at := time.Date(2026, 11, 22, 14, 3, 22, 0, time.UTC)
	level := func(name string, used, limit int64, state string, in time.Duration) Level {
		return Level{name, "bytes", used, limit, used, float64(used) / float64(max(limit, 1)), state, "normal", in, [3]float64{0.5, 0.75, 0.9}}
	}
	v := View{
		Time: at, Since: at, Dir: "/srv/app/db", Database: "0123456789abcdef", Mode: "read-write", FileBytes: 386 << 20,
		NewestLSN: 1234567, DurableLSN: 1234566, LastCommit: at,
		Writer: Writer{Span: 10 * time.Second, CommitsPerSecond: 4375.4, LatencyP50: 220 * time.Microsecond, LatencyP99: 1400 * time.Microsecond,
			LatencyMax: 12 * time.Millisecond, LogWaits: 3.4},
		Levels: []Level{
			level("ram", 15<<20, 24<<20, "low", 0), level("temporary", 3800<<10, 4<<20, "critical", 14*time.Second),
			level("overflow", 0, 6<<20, "normal", 0), level("index", 1<<20, 12<<20, "normal", 0),
			level("host", 9<<30, 24<<30, "normal", 0), level("log", 100<<20, 256<<20, "normal", 3*time.Hour),
			level("held log", 0, 1<<30, "normal", 0),
		},
		Backups: []Backup{
			{ID: 17, Owner: "root@db1 pid 4711", Label: "nightly", LSN: 1200000, Age: 95 * time.Second, Bytes: 185 << 20, TotalBytes: 386 << 20,
				Share: 0.48, BytesPerSecond: 19 << 20, TimeLeft: 11 * time.Second, Rung: "spill", LimitBytesPerSec: 20 << 20},
			{ID: 18, Owner: "root@db1 pid 4712", Incremental: true, LSN: 1234000, Age: 2 * time.Second, Bytes: 5 << 20, Share: 0.1,
				BytesPerSecond: 2 << 20, TimeLeft: 18 * time.Second, Rung: "cache"},
		},
		Snapshots: Snapshots{Readers: 3, OldestAge: 125 * time.Second, HeldBytes: 30 << 20},
		Repository: &Repository{Backups: 12, Newest: livebackup.BackupID{Sequence: 12, Random: 0x8f3a9c21}, Kind: "full", State: livebackup.StateProven,
			Committed: at.Add(-25 * time.Hour), Archived: true, ArchivedTo: 1234001, Until: at.Add(-7 * time.Second)},
	}
	v.Levels[3].Marks, v.Levels[5].Marks = [3]float64{0.2, 0.3, 0.95}, [3]float64{} // set otherwise, and none
	v.Levels[2].TimeState, v.Levels[2].TimeToFull = "high", 50*time.Second
	v.Levels = append(v.Levels, Level{"snapshot age", "ns", int64(2 * time.Hour), int64(4 * time.Hour), 0, 0.5, "low", "normal", 2 * time.Hour, [3]float64{1, 2, 4}})
	for i := range 30 {
		v.recent = append(v.recent, float64(i%10))
	}
	for i := range 20 {
		v.Events = append(v.Events, Event{at.Add(time.Duration(i-20) * time.Second), "watermark", "low", fmt.Sprintf("ram is low, was normal: %d MiB of 24 MiB", i)})
	}
	v.Events = append(v.Events, Event{at, "watermark", "critical", "temporary is critical, was high: 3.7 MiB of 4 MiB"})
	return v
}

func text(rows []Row) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(strings.TrimRight(r.Text(), " ") + "\n")
	}
	return b.String()
}

func TestRender_Golden(t *testing.T) {
	calm := busy()
	calm.Backups, calm.Events, calm.Repository, calm.Snapshots, calm.Writer = nil, nil, nil, Snapshots{}, Writer{}
	for i := range calm.Levels {
		calm.Levels[i].State, calm.Levels[i].TimeState, calm.Levels[i].TimeToFull = "normal", "normal", 0
	}
	lost := busy()
	lost.Error, lost.Since = "connection to the database was lost: the serving process closed it or ended", lost.Time.Add(-time.Minute)
	failed := busy()
	failed.Failed = "store has failed and must be reopened: sync log: input/output error"
	for name, c := range map[string]struct {
		v  View
		sc Screen
	}{
		"busy-80x24":    {busy(), Screen{80, 24, false}},
		"busy-120x40":   {busy(), Screen{120, 40, true}},
		"busy-40x10":    {busy(), Screen{40, 10, false}},
		"calm-80x24":    {calm, Screen{80, 24, false}},
		"lost-80x24":    {lost, Screen{80, 24, false}},
		"failed-40x10":  {failed, Screen{40, 10, false}},
		"nothing-80x24": {View{Time: busy().Time, Error: "x"}, Screen{80, 24, false}},
	} {
		got := text(Render(&c.v, c.sc))
		golden := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Whatever there is to show and however large the screen: no row is wider, there are
// as many as the screen has, and nothing that a terminal obeys is sent.
func TestRender_FitsAnyScreen(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		v := busy()
		v.Dir += strings.Repeat("/x", rng.IntN(60))
		v.Levels, v.Backups = v.Levels[:rng.IntN(8)], v.Backups[:rng.IntN(3)]
		v.Events = v.Events[:rng.IntN(22)]
		if len(v.Backups) > 0 {
			v.Backups[0].Label = "\x1b[31mred\x07" + strings.Repeat("ä漢", rng.IntN(40))
			v.Backups[0].Share = rng.Float64() * 2
		}
		if len(v.Levels) > 0 {
			v.Levels[0].Share = rng.Float64() * 1000
		}
		if rng.IntN(3) == 0 {
			v.Error = "bad\nnews " + strings.Repeat("and more ", 20)
		}
		sc := Screen{1 + rng.IntN(150), 1 + rng.IntN(50), rng.IntN(2) == 0}
		rows := Render(&v, sc)
		if len(rows) != sc.Height {
			t.Fatalf("%+v: %d rows", sc, len(rows))
		}
		for _, r := range rows {
			if n := r.width(); n > sc.Width {
				t.Fatalf("%+v: row of %d: %q", sc, n, r.Text())
			}
			for _, c := range r.Text() {
				if c < ' ' || c == 0x7f || c > 0x7e && !sc.Unicode {
					t.Fatalf("%+v: %q", sc, r.Text())
				}
			}
		}
	}
}

// A level that is critical, and a backup, are seen on the smallest screen.
func TestRender_WhatMattersStays(t *testing.T) {
	v := busy()
	all := text(Render(&v, Screen{40, 10, false}))
	for _, what := range []string{"critical", "BACKUP 17", "48%"} {
		if !strings.Contains(all, what) {
			t.Errorf("%q is not on\n%s", what, all)
		}
	}
}

func TestLine_IsOneLine(t *testing.T) {
	v := busy()
	v.Failed = "two\nlines"
	line := Line(&v)
	if strings.ContainsAny(line, "\n\x1b") || !utf8.ValidString(line) {
		t.Fatalf("%q", line)
	}
	for _, what := range []string{"lsn 1234567", "commits/s 4,375", "temporary 93% CRITICAL", "backup 17 48% 19 MiB/s 11 s left", "FAILED"} {
		if !strings.Contains(line, what) {
			t.Errorf("%q is not in %q", what, line)
		}
	}
}
