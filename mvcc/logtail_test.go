package mvcc

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/wal"
)

// newCrashRun opens a new store on a new disk.
func newCrashRun(t testing.TB, seed uint64, set func(*Options)) (*crashRun, *simfs.FS) {
	t.Helper()
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	o := smallOptions(fsys)
	if set != nil {
		set(&o)
	}
	return &crashRun{t: t, o: o, s: mustOpen(t, o), m: newModel(), rng: rand.New(rand.NewPCG(seed, 77))}, fsys
}

func openTail(t testing.TB, s *Store, after block.LSN) *LogTail {
	t.Helper()
	tail, err := s.OpenLogTail("test", after)
	ok(t, err)
	return tail
}

// copied is a record that its reader keeps.
func copied(r LogRecord) LogRecord {
	r.Body = bytes.Clone(r.Body)
	return r
}

// records reads all that is durable.
func records(t testing.TB, tail *LogTail) (list []LogRecord) {
	t.Helper()
	_, err := tail.Read(1<<40, func(r LogRecord) error {
		list = append(list, copied(r))
		return nil
	})
	ok(t, err)
	return list
}

// R15, R6, R19: the tail hands out every durable commit once, whole, in order,
// in every mode, none above the horizon, with times that do not step back.
func TestR15_TailHandsOutDurableCommits(t *testing.T) {
	seed := chance.Seed(t)
	for _, d := range []Durability{DurableCommit, DurableNever} {
		c, _ := newCrashRun(t, seed, func(o *Options) { o.Durability = d })
		tail := openTail(t, c.s, 0)
		next, at, open := block.LSN(1), time.Time{}, false
		read := func() {
			limit := int64(c.rng.IntN(20000))
			sum := int64(0)
			got, err := tail.Read(limit, func(r LogRecord) error {
				info, err := ScanRecord(r.Body)
				ok(t, err)
				if r.LSN != next || r.LSN > c.s.log.Durable() {
					t.Fatalf("commit %v where %v is due, horizon %v", r.LSN, next, c.s.log.Durable())
				}
				if !open && (sum >= limit && sum > 0 || !info.Time.After(at)) || open && !info.Time.IsZero() {
					t.Fatalf("commit %v of %v behind one of %v, after %d bytes of %d", r.LSN, info.Time, at, sum, limit)
				}
				sum += int64(len(r.Body))
				if !open {
					at = info.Time
				}
				if open = !r.Last; r.Last {
					next++
				}
				return nil
			})
			ok(t, err)
			if got != next-1 || open {
				t.Fatalf("read up to %v, it says %v", next-1, got)
			}
			tail.Done(got)
		}
		for range 40 {
			ok(t, c.commits(c.rng.IntN(4), 6, 40))
			if c.rng.IntN(8) == 0 {
				ok(t, c.checkpoint())
			}
			read()
		}
		ok(t, c.s.log.Sync(c.s.log.End()))
		for next <= c.s.newestLSN() {
			read()
		}
		sum, err := tail.Sum(next - 1)
		ok(t, err)
		if want, err := c.s.log.Checksum(next - 1); err != nil || sum != want || sum == 0 {
			t.Fatalf("checksum %x, the log has %x, %v", sum, want, err)
		}
		tail.Close()
		tail.Close()
		if _, err := tail.Read(1, nil); !errors.Is(err, ErrClosed) {
			t.Fatalf("read of a closed tail: %v", err)
		}
		mustClose(t, c.s)
	}
}

// R14: the tail holds what it was not told is done; past the limit its log goes,
// and it says so; Status lists it.
func TestR14_TailHoldsLogUpToALimit(t *testing.T) {
	told := make(chan Event, 10)
	c, _ := newCrashRun(t, chance.Seed(t), func(o *Options) {
		o.LogHoldMax = 1 << 20
		o.OnEvent = func(e Event) {
			if e.Kind == EventLogGone {
				told <- e
			}
		}
	})
	if _, err := c.s.OpenLogTail("ahead", 1); !errors.Is(err, ErrBehind) {
		t.Fatalf("a tail above the horizon: %v", err)
	}
	tail := openTail(t, c.s, 0)
	fill := func(n int) {
		for range n {
			ok(t, c.commits(3, 20, 60))
			ok(t, c.checkpoint())
		}
	}
	fill(5)
	if list := c.s.Status().Holders; len(list) != 1 || list[0].Name != "test" || list[0].LSN != 1 || list[0].Bytes == 0 {
		t.Fatalf("holders: %+v", list)
	}
	if got := records(t, tail); got[0].LSN != 1 || got[len(got)-1].LSN != c.s.newestLSN() {
		t.Fatal("held log is not whole")
	}
	tail.Done(c.s.newestLSN())
	fill(3)
	if _, err := c.s.OpenLogTail("late", 0); !errors.Is(err, ErrLogGone) {
		t.Fatalf("a tail from where the log was let go: %v", err)
	}
	for c.s.Status().Holders != nil && len(c.s.Status().Holders) > 0 {
		fill(5)
		for _, l := range c.s.Status().Levels {
			if l.Name == LevelHeldLog && (l.Used > l.Limit || l.Limit != 1<<20) {
				t.Fatalf("held log: %+v", l)
			}
		}
	}
	if e := <-told; e.Holder.Name != "test" {
		t.Fatalf("told of %+v", e)
	}
	if _, err := tail.Read(1, nil); !errors.Is(err, ErrLogGone) || !errors.Is(err, wal.ErrReleased) {
		t.Fatalf("read behind the limit: %v", err)
	}
	if err := tail.Wait(context.Background()); !errors.Is(err, ErrLogGone) {
		t.Fatalf("wait behind the limit: %v", err)
	}
	tail.Close()
	mustClose(t, c.s)
}

// R14: what someone who follows the log still wanted is there when the store was
// closed or killed and is opened again, however many checkpoints were between;
// until somebody follows again, with time for others, and no longer.
func TestR14_FollowedLogSurvivesReopening(t *testing.T) {
	synctest.Test(t, followedLogSurvives)
}

func followedLogSurvives(t *testing.T) {
	for _, how := range []string{"closed", "killed", "power cut"} {
		c, fsys := newCrashRun(t, chance.Seed(t), nil)
		ok(t, c.commits(3, 20, 60))
		tail := openTail(t, c.s, 0)
		tail.Done(2)
		for range 5 {
			ok(t, c.commits(3, 20, 60))
			ok(t, c.checkpoint())
		}
		o := c.o
		switch how {
		case "closed":
			ok(t, c.s.Close())
		case "killed":
			o.FS = fsys.Kill()
		case "power cut":
			o.FS = fsys.Crash(nil, simfs.DropAll)
		}
		s := mustOpen(t, o)
		again := &crashRun{t: t, o: o, s: s, m: c.m, rng: c.rng}
		for range 3 { // as long as nobody has come
			ok(t, again.commits(2, 20, 60))
			ok(t, again.checkpoint())
		}
		tail2 := openTail(t, s, 2)
		if got := records(t, tail2); got[0].LSN != 3 || got[len(got)-1].LSN != s.newestLSN() {
			t.Fatalf("%s: followed from %v to %v", how, got[0].LSN, got[len(got)-1].LSN)
		}
		tail2.Close()
		time.Sleep(keptGrace / 2)
		openTail(t, s, 2).Close() // another one
		time.Sleep(keptGrace)
		ok(t, again.commits(2, 20, 60))
		ok(t, again.checkpoint())
		if n := s.log.Stats().HeldBytes; n != 0 {
			t.Fatalf("%s: %d bytes are held for nobody", how, n)
		}
		if how != "closed" {
			_ = c.s.Close()
		}
		mustClose(t, s)
	}
}

// Wait ends when there is something to read, when the tail or the store is
// closed, and with its context.
func TestLogTail_Wait(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	tail := openTail(t, c.s, 0)
	wait := func(ctx context.Context) (done <-chan struct{}) {
		done = async(func() { _ = tail.Wait(ctx) })
		mustWait(t, done, "Wait")
		return done
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := wait(ctx)
	cancel()
	<-done
	done = wait(context.Background())
	ok(t, c.allocMany(1))
	<-done
	ok(t, tail.Wait(context.Background())) // it was not read yet
	if got := records(t, tail); len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
	done = wait(context.Background())
	tail.Close()
	<-done
	if err := tail.Wait(context.Background()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	tail = openTail(t, c.s, 1)
	done = wait(context.Background())
	mustCloseWithTail(t, c.s)
	<-done
	if err := tail.Wait(context.Background()); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := tail.Read(1, nil); err != nil && !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	tail.Close()
}

func mustCloseWithTail(t testing.TB, s *Store) {
	t.Helper()
	ok(t, s.Close())
	if _, err := s.OpenLogTail("late", 0); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// A mark takes an LSN, changes nothing, is durable when Mark returns in every
// mode, and is found in the log.
func TestMark_IsACommitThatChangesNothing(t *testing.T) {
	for _, d := range []Durability{DurableCommit, DurableInterval, DurableNever} {
		c, fsys := newCrashRun(t, chance.Seed(t), func(o *Options) { o.Durability, o.SyncInterval = d, time.Hour })
		tail := openTail(t, c.s, 0)
		ok(t, c.commits(2, 5, 20))
		for _, bad := range []string{"", "\xff", strings.Repeat("x", 256)} {
			if _, err := c.s.Mark(bad); !errors.Is(err, ErrOptions) {
				t.Fatalf("mark %q: %v", bad, err)
			}
		}
		before := c.s.newestLSN()
		lsn, err := c.s.Mark("before the mistake")
		ok(t, err)
		c.m.at = append(c.m.at, c.m.at[before])
		if lsn != before+1 || c.s.newestLSN() != lsn {
			t.Fatalf("mark on %v has LSN %v, newest is %v", before, lsn, c.s.newestLSN())
		}
		r, err := c.s.BeginRead()
		ok(t, err)
		if r.LSN() != lsn {
			t.Fatalf("a reader sees %v, the mark is %v", r.LSN(), lsn)
		}
		checkRead(t, r, c.m)
		r.Close()
		list := records(t, tail)
		info, err := ScanRecord(list[len(list)-1].Body)
		ok(t, err)
		if list[len(list)-1].LSN != lsn || len(info.Marks) != 1 || info.Marks[0] != "before the mistake" || info.Time.IsZero() || info.Void {
			t.Fatalf("the log has %+v", info)
		}
		c.m.acked = lsn
		c.o.Durability = DurableCommit // for what checkAfter demands
		c.checkAfter(fsys.Crash(nil, simfs.DropAll), "power cut behind a mark", nil)
		ok(t, c.commits(2, 5, 20))
		tail.Close()
		mustClose(t, c.s)
	}
}
