package livebackup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestPlanBackup_Sink: the rate that was asked for counts, then what the last backups
// did; what is only assumed says so.
func TestPlanBackup_Sink(t *testing.T) {
	entry := func(raw, stored int64, took time.Duration) Entry {
		return Entry{Manifest: Manifest{RawBytes: raw, StoredBytes: stored, Duration: took}}
	}
	list := []Entry{entry(1, 1, time.Hour), entry(100, 50, time.Second), {}, entry(200, 100, time.Second), entry(300, 150, time.Second)}
	for _, x := range []struct {
		entries     []Entry
		rate        int64
		raw, stored float64
		from        string
	}{
		{nil, 0, sinkAssumed, sinkAssumed, "assumed"},
		{nil, 70, 70, 70, "not known"},
		{list, 0, 200, 100, "the last backups"},
		{list, 70, 140, 70, "the rate asked for"},
	} {
		s := sinkOf(x.entries, x.rate)
		if s.BlocksPerSecond != x.raw || s.StoredPerSecond != x.stored || !strings.Contains(s.From, x.from) {
			t.Errorf("%+v, want %+v", s, x)
		}
	}
}

// TestPlanBackup_Room: half of MaxRAM, what is left of temporary storage as far as
// MaxRAM can know of it, and of overflow.
func TestPlanBackup_Room(t *testing.T) {
	st := mvcc.Status{BlockSize: 4096, Levels: []mvcc.Level{
		{Name: "ram", Used: 3, Limit: 1 << 20}, {Name: "temporary", Used: 1 << 20, Limit: 64 << 20},
		{Name: "overflow", Used: 5, Limit: 4}, {Name: "index", Used: 0, Limit: 88 * 100},
	}}
	if got, want := RoomForOriginals(&st), (forecast.Room{Cache: 1 << 19, Temporary: 100 * 4096}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestPlanBackup_Remote: a served database is planned for like one of our own.
func TestPlanBackup_Remote(t *testing.T) {
	dir := t.TempDir()
	fake := newFake(1, 50, 4<<10)
	fake.status = mvcc.Status{BlockSize: 4096, AllocatedBlocks: 50}
	served(t, fake, ServeOptions{Dir: dir})
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := PlanBackup(context.Background(), client, nil, BackupOptions{BytesPerSecond: 4096})
	if err != nil || p.Kind != KindFull || p.Now.Bytes != 50*4096 || p.Now.Duration.Round(time.Second) != 50*time.Second || p.Now.Verdict != forecast.NothingToSay {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := PlanBackup(context.Background(), client, nil, BackupOptions{Type: TypeIncremental}); !errors.Is(err, ErrNoBase) {
		t.Fatal(err)
	}
}
