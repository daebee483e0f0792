package mvcc

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// backupStatus is the status of the only live backup.
func backupStatus(t *testing.T, s *Store) BackupStatus {
	t.Helper()
	list := s.Status().Backups
	if len(list) != 1 {
		t.Fatalf("%d live backups, want 1", len(list))
	}
	return list[0]
}

// Whoever looks sees how far a backup is, and how fast it was lately.
func TestBackupStatus_Progress(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(100))
	p := openBackup(t, c.s)
	began := time.Now()
	first := backupStatus(t, c.s)
	if first.Blocks != 0 || first.Share != 0 || first.BlocksTotal != p.b.info.Blocks || first.Owner != "test" || first.Rung != RungCache {
		t.Fatalf("at the start: %+v", first)
	}
	if id := c.s.Status().Snapshots[0].ID; id != first.ID {
		t.Fatalf("number %d, in the list of snapshots %d", first.ID, id)
	}
	c.s.followBackups(began)
	ok(t, p.pull(t, 10))
	half := backupStatus(t, c.s)
	if half.Blocks != 10 || half.Bytes != 10*4096 || half.Share <= 0 || half.Share >= 1 {
		t.Fatalf("on the way: %+v", half)
	}
	if rate := p.b.track.blocksPerSecond(began.Add(5 * time.Second)); rate < 1.9 || rate > 2.1 {
		t.Fatalf("%v blocks per second, want 10 in 5 s", rate)
	}
	// Only the last ten seconds count.
	for i := range 40 {
		c.s.followBackups(began.Add(time.Duration(i) * time.Second))
	}
	if rate := p.b.track.blocksPerSecond(began.Add(41 * time.Second)); rate != 0 {
		t.Fatalf("%v blocks per second of a backup that stands still", rate)
	}
	ok(t, p.rest(t))
	if last := backupStatus(t, c.s); last.Share != 1 || last.Blocks != last.BlocksTotal {
		t.Fatalf("at the end: %+v", last)
	}
	ok(t, p.b.Close())
	if list := c.s.Status().Backups; len(list) != 0 {
		t.Fatalf("after Close: %+v", list)
	}
	mustClose(t, c.s)
}

// An incremental counts in the map how much changed before it looks at it, and knows soon
// about how many blocks it will hand out, whether few of each extent changed or all: in the
// end exactly as many. So it shows how far it is.
func TestBackupStatus_Incremental(t *testing.T) {
	for what, every := range map[string]int{"everything": 1, "one of each extent": 8, "nothing": 0} {
		t.Run(what, func(t *testing.T) {
			c, _ := newCrashRun(t, chance.Seed(t), func(o *Options) { o.LogBytesMax = 0 })
			ids := someBlocks(t, c.s, 1200)
			base := c.s.newestLSN()
			for i, id := range ids {
				if every > 0 && int(id)%every == 0 {
					set(t, c.s, ids[i], byte(i))
				}
			}
			settle(t, c.s)
			p := openIncremental(t, c.s, base, 8)
			if st := backupStatus(t, c.s); st.Share != 0 || st.BlocksTotal != 0 || st.Base != base {
				t.Fatalf("at the start: %+v", st)
			}
			var totals []uint64
			was := BackupStatus{}
			for !p.done {
				ok(t, p.pull(t, 10))
				st := backupStatus(t, c.s)
				if st.Share < was.Share || st.BlocksTotal < st.Blocks {
					t.Fatalf("it was %+v, it is %+v", was, st)
				}
				totals, was = append(totals, st.BlocksTotal), st
			}
			if was.Share != 1 || was.BlocksTotal != was.Blocks {
				t.Fatalf("at the end: %+v", was)
			}
			for i, total := range totals {
				if i > len(totals)/4 && (total < was.Blocks*2/3 || total > was.Blocks*3/2) {
					t.Fatalf("after %d of %d pulls it expects %d blocks, there are %d", i, len(totals), total, was.Blocks)
				}
			}
			if p.b.Total() != was.Blocks {
				t.Fatalf("%d blocks in all, not %d", p.b.Total(), was.Blocks)
			}
			ok(t, p.b.Close())
			mustClose(t, c.s)
		})
	}
}

// All groups are counted before the first of them is looked at: when it hands out its
// first block an incremental knows about how many there will be, wherever they are.
func TestBackupStatus_IncrementalCountsAllGroupsFirst(t *testing.T) {
	s, near := oneBlock(t, smallOptions(simfs.New()))
	var ids []block.ID
	for group := range uint64(groupsSpread) {
		tx, err := s.BeginWrite()
		ok(t, err)
		s.firstGroup = group
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		ids = append(ids, b.ID())
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
	}
	base := s.newestLSN()
	for _, id := range append(ids, near) {
		set(t, s, id, 2)
	}
	settle(t, s)
	p := openIncremental(t, s, base, 0)
	ok(t, p.pull(t, 1))
	if st := backupStatus(t, s); st.BlocksTotal <= st.Blocks {
		t.Errorf("after the first block: %+v", st)
	}
	ok(t, p.rest(t))
	for _, id := range ids {
		if p.images[id] == nil {
			t.Errorf("block %v was changed, and is not in the incremental", id)
		}
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// What a backup met, watermarks and how full each level was, is in its cost, also
// after it was closed; what came before and after it is not.
func TestBackup_RecordsWhatItMet(t *testing.T) {
	synctest.Test(t, whatABackupMet) // its clock stands still: the store finds no watermark of its own
}

func whatABackupMet(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(5))
	crossing := func(used int64) {
		c.s.emit(Event{Kind: EventWatermark, Level: Level{Name: "ram", State: "low", Used: used, Limit: 100}, Was: "normal"})
	}
	crossing(1)
	p := openBackup(t, c.s)
	for i := range crossingsMax + 3 {
		crossing(int64(1000 + i))
	}
	c.s.live.see(time.Now(), []Level{{Name: "ram", Used: 1 << 40, Limit: 1 << 41}, {Name: "host", Used: 7, Limit: 8}})
	c.s.live.see(time.Now(), []Level{{Name: "ram", Used: 5, Limit: 100}})
	ok(t, p.b.Close())
	crossing(2)
	got := p.b.Cost()
	if len(got.Crossings) != crossingsMax || got.CrossingsLeftOut != 3 || got.Crossings[0].Used != 1000 {
		t.Fatalf("%d watermarks, %d left out: %+v", len(got.Crossings), got.CrossingsLeftOut, got.Crossings)
	}
	found := 0
	for _, l := range got.Levels {
		if l == (LevelPeak{"ram", 1 << 40, 1 << 41}) || l.Name == "host" && l.Used >= 7 {
			found++
		}
	}
	if found != 2 {
		t.Fatalf("peaks %+v", got.Levels)
	}
	mustClose(t, c.s)
}

// A watermark that the store crosses is told to its backups.
func TestBackup_RecordsTheStoresWatermarks(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), func(o *Options) { o.LogHoldMax = 1 << 20 })
	p := openBackup(t, c.s)
	c.s.marks.heldLog.Watch(time.Now(), 1<<20, 1<<20) // as if it had been full
	c.s.watch(time.Now())
	ok(t, p.b.Close())
	for _, x := range p.b.Cost().Crossings {
		if x.Level == LevelHeldLog && x.Was == "critical" && x.State == "normal" {
			mustClose(t, c.s)
			return
		}
	}
	t.Fatalf("%+v", p.b.Cost().Crossings)
}

func TestSetPace(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	if err := c.s.SetPace(0, 5); !errors.Is(err, ErrNoBackup) {
		t.Fatalf("without a backup: %v", err)
	}
	a, b := openBackup(t, c.s), openBackup(t, c.s)
	for _, nonsense := range []int64{0, -2} {
		if err := c.s.SetPace(0, nonsense); !errors.Is(err, ErrOptions) {
			t.Fatalf("%d: %v", nonsense, err)
		}
	}
	ok(t, c.s.SetPace(0, 100))
	ok(t, c.s.SetPace(b.b.live.ID(), PaceUnlimited))
	if a.b.Pace() != 100 || b.b.Pace() != PaceUnlimited || c.s.Status().Backups[0].PaceBytesPerSecond != 100 {
		t.Fatalf("%d, %d", a.b.Pace(), b.b.Pace())
	}
	ok(t, b.b.Close())
	if err := c.s.SetPace(b.b.live.ID(), 7); !errors.Is(err, ErrNoBackup) {
		t.Fatalf("of a closed one: %v", err)
	}
	ok(t, a.b.Close())
	mustClose(t, c.s)
}

// The buckets tile all lengths of time: each lies at or below the bound of its own
// bucket and above that of the one before.
func TestCommitLatency_Buckets(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	for range 100_000 {
		d := time.Duration(rng.Int64N(1 << (10 + rng.IntN(30))))
		i := latencyBucket(d)
		if i < 0 || i >= latencyBuckets {
			t.Fatalf("%v: bucket %d", d, i)
		}
		if bound := LatencyBound(i); bound >= 0 && d > bound || i > 0 && d <= LatencyBound(i-1) {
			t.Fatalf("%v is in bucket %d: above %v, up to %v", d, i, LatencyBound(max(i-1, 0)), bound)
		}
	}
	if latencyBucket(time.Hour) != latencyBuckets-1 || latencyBucket(-1) != 0 {
		t.Fatal("the ends")
	}
}

// A quantile is at most half more than it is, and what came between two looks is
// what was added.
func TestCommitLatency_QuantilesOfWhatCameBetween(t *testing.T) {
	synctest.Test(t, quantilesOfWhatCameBetween) // whose clock stands still
}

func quantilesOfWhatCameBetween(t *testing.T) {
	var c commitLatency
	add := func(n int, d time.Duration) {
		for range n {
			c.end(time.Now().Add(-d))
		}
	}
	add(1000, time.Second)
	before := c.read()
	add(98, 5*time.Millisecond)
	add(2, 100*time.Millisecond)
	after := c.read()
	between := after.Since(before)
	if n := between.Count(); n != 100 {
		t.Fatalf("%d came between, want 100", n)
	}
	if q := between.Quantile(0.5); q < 5*time.Millisecond || q > 8*time.Millisecond {
		t.Errorf("half took up to %v, want 5 ms", q)
	}
	if q := between.Quantile(0.99); q < 100*time.Millisecond || q > 150*time.Millisecond {
		t.Errorf("99 %% took up to %v, want 100 ms", q)
	}
	if q := after.Quantile(0.5); q < time.Second || after.Max < time.Second {
		t.Errorf("of all, half took up to %v, at most %v", q, after.Max)
	}
	if none := before.Since(before); none.Quantile(0.99) != 0 || none.Count() != 0 {
		t.Errorf("of none: %v", none.Quantile(0.99))
	}
	if again := before.Since(after); again.Count() != before.Count() {
		t.Errorf("a store that was opened again: %d", again.Count())
	}
}

// One in so many commits is counted, whether it waits for the disk or not.
func TestCommitLatency_IsSampled(t *testing.T) {
	o := smallOptions(simfs.New())
	ok(t, o.FS.Mkdir(testDir, 0o700))
	s := mustOpen(t, o)
	for range 3*latencyEvery + 1 {
		tx, err := s.BeginWrite()
		ok(t, err)
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
	}
	if c := s.Status().Commits; c.Count() != 3 || c.Sum <= 0 || c.Every != latencyEvery {
		t.Fatalf("%d of %v commits were counted: %+v", c.Count(), s.newestLSN(), c)
	}
	mustClose(t, s)
}
