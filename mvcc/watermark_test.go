package mvcc

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// levelNow is a store's level of that name.
func levelNow(t testing.TB, s *Store, name string) Level {
	t.Helper()
	for _, l := range s.Status().Levels {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("there is no level %q", name)
	return Level{}
}

// roomyHost is asked in the place of the system, which takes longer than the tests.
func roomyHost() (blockcache.HostMemory, error) {
	return blockcache.HostMemory{Limit: 1 << 40, Available: 1 << 40}, nil
}

// crossings are the states that events told of one level, by how full it is.
func crossings(s *Store, level string) (list []string) {
	for _, ev := range eventsOf(s, EventWatermark) {
		if ev.Level.Name == level && !ev.ByTime {
			list = append(list, ev.Level.State)
		}
	}
	return list
}

func sameStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
}

// TestWatermark_MarksAreTold: whoever draws a level knows where it warns.
func TestWatermark_MarksAreTold(t *testing.T) {
	o := smallOptions(simfs.New())
	o.Marks = map[string]Marks{"": {Low: 0.4}, LevelTemporary: {High: 0.6, Critical: 0.7}, LevelHeldLog: {Critical: 0.99}}
	s := mustOpen(t, o)
	for name, want := range map[string][3]float64{
		LevelTemporary: {0.4, 0.6, 0.7}, LevelOverflow: {0.4, 0.75, 0.9}, LevelHeldLog: {0.4, 0.75, 0.99},
		LevelSnapshotAge: {1, 2, 4}, LevelLog: {},
	} {
		if l := levelNow(t, s, name); l.Marks != want {
			t.Errorf("%s: %v, want %v", name, l.Marks, want)
		}
	}
	mustClose(t, s)
}

// TestWatermark_SnapshotAge: at once, twice and four times the age that is configured,
// for a reader with a name, a backup, and readers without one from when they keep
// something; back to normal when the last of them ends.
func TestWatermark_SnapshotAge(t *testing.T) {
	opens := map[string]func(*testing.T, *Store) func(){
		"reader": func(t *testing.T, s *Store) func() {
			r, err := s.BeginSnapshot(SnapshotOptions{Owner: "o"})
			ok(t, err)
			return r.Close
		},
		"no name": func(t *testing.T, s *Store) func() { return beginRead(t, s).Close },
		"backup":  func(t *testing.T, s *Store) func() { b := openBackup(t, s); return func() { ok(t, b.b.Close()) } },
	}
	for name, open := range opens {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := smallOptions(simfs.New())
				o.host = roomyHost
				o.SnapshotAgeWarn = time.Minute
				s, id := oneBlock(t, o)
				time.Sleep(3 * time.Minute)
				closeIt := open(t, s)
				set(t, s, id, 2)
				time.Sleep(50 * time.Second)
				sameStrings(t, "before", crossings(s, LevelSnapshotAge))
				time.Sleep(time.Minute)
				sameStrings(t, "after 110 s", crossings(s, LevelSnapshotAge), "low")
				time.Sleep(3 * time.Minute)
				sameStrings(t, "after 290 s", crossings(s, LevelSnapshotAge), "low", "high", "critical")
				if l := levelNow(t, s, LevelSnapshotAge); l.Unit != "ns" || time.Duration(l.Used).Round(time.Second) != 290*time.Second {
					t.Fatalf("%+v", l)
				}
				closeIt()
				time.Sleep(time.Second)
				sameStrings(t, "in the end", crossings(s, LevelSnapshotAge), "low", "high", "critical", "normal")
				mustClose(t, s)
			})
		})
	}
}

// TestWatermark_IdleReadersAreNoSnapshots: a database in which nothing is committed for
// hours, and that is read now and then, has no old snapshot.
func TestWatermark_IdleReadersAreNoSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := smallOptions(simfs.New())
		o.host = roomyHost
		o.SnapshotAgeWarn = time.Minute
		s, _ := oneBlock(t, o)
		for range 5 {
			time.Sleep(2 * time.Minute)
			r := beginRead(t, s)
			time.Sleep(time.Second)
			r.Close()
		}
		sameStrings(t, "idle", crossings(s, LevelSnapshotAge))
		mustClose(t, s)
	})
}

// TestWatermark_ArchiveLag: the age of the oldest commit that the archive does not have;
// an archive that goes away does not make it young.
func TestWatermark_ArchiveLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := smallOptions(simfs.New())
		o.host = roomyHost
		o.ArchiveLagWarn = time.Minute
		s, id := oneBlock(t, o)
		time.Sleep(2 * time.Minute)
		sameStrings(t, "without an archive", crossings(s, LevelArchiveLag))
		tail, err := s.OpenLogTail(nameArchive, s.newestLSN())
		ok(t, err)
		time.Sleep(2 * time.Minute)
		sameStrings(t, "with nothing to archive", crossings(s, LevelArchiveLag))
		for i := range 40 { // a commit every 5 s, archived 20 s later
			lsn := set(t, s, id, byte(i))
			time.Sleep(5 * time.Second)
			if i > 4 {
				tail.Done(lsn - 4)
			}
		}
		time.Sleep(time.Second)
		l := levelNow(t, s, LevelArchiveLag)
		if lag := time.Duration(l.Used); lag < 20*time.Second || lag > 22*time.Second {
			t.Fatalf("a lag of %v", lag)
		}
		sameStrings(t, "20 s behind", crossings(s, LevelArchiveLag))
		tail.Close()
		time.Sleep(time.Minute)
		sameStrings(t, "gone for a minute", crossings(s, LevelArchiveLag), "low")
		time.Sleep(4 * time.Minute)
		sameStrings(t, "gone for five", crossings(s, LevelArchiveLag), "low", "high", "critical")
		tail, err = s.OpenLogTail(nameArchive, s.newestLSN())
		ok(t, err)
		time.Sleep(time.Second)
		sameStrings(t, "back, and up to date", crossings(s, LevelArchiveLag), "low", "high", "critical", "normal")
		tail.Close()
		mustClose(t, s)
	})
}

// TestLagClock_Thins: over a long lag it remembers a bounded number of moments, and is
// wrong by no more than a small part of the lag.
func TestLagClock_Thins(t *testing.T) {
	var c lagClock
	now := time.Unix(1_000_000, 0)
	made := []time.Time{now}
	for lsn := block.LSN(1); lsn < 20_000; lsn++ {
		now = now.Add(time.Second)
		made = append(made, now)
		c.tick(now, lsn, now, 1)
		if len(c.seen) > momentsMax {
			t.Fatalf("it remembers %d moments", len(c.seen))
		}
	}
	for want := block.LSN(1); want < 20_000; want += 997 {
		c.tick(now, 19_999, now, want)
		is, due := c.age(now), now.Sub(made[want])
		if is > due || due-is > 20_000*time.Second/200 {
			t.Fatalf("commit %v is %v old, told %v", want, due, is)
		}
	}
}

// TestWatermark_Host: a host that runs out of memory is told of before it does, and before
// the reserve is touched that overflow leaves to others.
func TestWatermark_Host(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var available atomic.Int64
		available.Store(1 << 40)
		o := smallOptions(simfs.New())
		o.host = func() (blockcache.HostMemory, error) {
			return blockcache.HostMemory{Limit: 1 << 40, Available: available.Load()}, nil
		}
		s, _ := oneBlock(t, o)
		for available.Load() > 0 {
			available.Add(-1 << 33)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		sameStrings(t, "filling", crossings(s, LevelHost), "low", "high", "critical")
		soon := 0
		for i, ev := range eventsOf(s, EventWatermark) {
			if left := ev.Level.Limit - ev.Level.Used; i == 0 && (ev.Level.Name != LevelHost || left < s.opts.HostReserve) {
				t.Errorf("the first warning is of %s, with %d bytes left of a reserve of %d", ev.Level.Name, left, s.opts.HostReserve)
			}
			if ev.ByTime && ev.Level.Name == LevelHost && StateRank(ev.Level.TimeState) > StateRank(ev.Was) {
				soon++
				if left := 100 * float64(ev.Level.Limit-ev.Level.Used) / float64(ev.Level.Limit); left < 20 && ev.Level.TimeState != "critical" {
					t.Errorf("%s told when %.0f %% are left", ev.Level.TimeState, left)
				}
			}
		}
		if soon == 0 {
			t.Error("that it will be full soon was not told")
		}
		mustClose(t, s)
	})
}
