package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// buildFrom makes a database of a backup on a new disk.
func buildFrom(t testing.TB, s *Store, bo BuildOptions) *simfs.FS {
	t.Helper()
	p := openBackup(t, s)
	ok(t, p.rest(t))
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	bo.FS = fsys
	bl, err := NewBuilder(testDir, p.b.Info(), bo)
	ok(t, err)
	for id, im := range p.images {
		ok(t, bl.Write(id, im))
	}
	ok(t, bl.Finish())
	ok(t, p.b.Close())
	return fsys
}

// newStandby builds a standby of a store and opens it.
func newStandby(t testing.TB, s *Store, set func(*Options)) (*Store, *simfs.FS) {
	t.Helper()
	fsys := buildFrom(t, s, BuildOptions{Standby: true})
	o := smallOptions(fsys)
	if set != nil {
		set(&o)
	}
	return mustOpen(t, o), fsys
}

func applyAll(t testing.TB, s *Store, list []LogRecord) {
	t.Helper()
	for _, r := range list {
		ok(t, s.Apply(r))
	}
}

// sameBlocks compares everything in use, trailers included, of two stores at the
// same LSN: the standby is its primary's copy, byte for byte.
func sameBlocks(t testing.TB, a, b *Store) {
	t.Helper()
	pa, pb := openBackup(t, a), openBackup(t, b)
	ok(t, pa.rest(t))
	ok(t, pb.rest(t))
	ia, ib := pa.b.Info(), pb.b.Info()
	if ia.LSN != ib.LSN || ia.HighWater != ib.HighWater || ia.Blocks != ib.Blocks || ia.Timeline != ib.Timeline {
		t.Fatalf("%+v and %+v", ia, ib)
	}
	for id, im := range pa.images {
		if string(im) != string(pb.images[id]) {
			t.Fatalf("block %v differs at LSN %v", id, ia.LSN)
		}
	}
	ok(t, pa.b.Close())
	ok(t, pb.b.Close())
}

// R20: a standby that applies its primary's log is its copy at every commit, in
// every mode, with readers who keep what they see, whatever is spilled, cleaned,
// freed and used again on the way; its reader's times are the primary's (R19).
func TestR20_StandbyFollowsItsPrimary(t *testing.T) {
	seed := chance.Seed(t)
	for _, d := range []Durability{DurableCommit, DurableInterval, DurableNever} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			c, _ := newCrashRun(t, seed, nil)
			ok(t, c.commits(5, 20, 100))
			standby, _ := newStandby(t, c.s, func(o *Options) { o.Durability = d })
			if !standby.Standby() || standby.Timeline() != c.s.Timeline() {
				t.Fatal("not a standby of the primary's timeline")
			}
			if _, err := standby.BeginWrite(); !errors.Is(err, ErrStandby) {
				t.Fatalf("a standby is written to: %v", err)
			}
			if _, err := standby.Mark("x"); !errors.Is(err, ErrStandby) {
				t.Fatalf("a standby is marked: %v", err)
			}
			tail := openTail(t, c.s, standby.newestLSN())
			var old []*ReadTx
			for i := range 12 * *flagLong {
				ok(t, c.commits(1+c.rng.IntN(4), 15, 120))
				switch c.rng.IntN(6) {
				case 0:
					ok(t, c.freeAll(10))
				case 1:
					ok(t, c.allocMany(90))
					ok(t, c.editMany(110)) // more than a quarter of RAM: it spills
				case 2:
					_, err := c.s.Mark("m")
					ok(t, err)
					c.m.at = append(c.m.at, c.m.at[c.m.newest()])
				}
				for _, r := range records(t, tail) {
					ok(t, standby.Apply(r))
					if r.Last && c.rng.IntN(4) == 0 {
						checkAll(t, standby, c.m)
						checkIncremental(t, standby, c.m, 1+block.LSN(c.rng.Uint64N(uint64(r.LSN))))
					}
				}
				tail.Done(c.s.newestLSN())
				if got, want := standby.lastCommitTime(), c.s.lastCommitTime(); !got.Equal(want) {
					t.Fatalf("time is %v, the primary's is %v", got, want)
				}
				if c.rng.IntN(3) == 0 {
					settle(t, standby)
				}
				if i%3 == 0 {
					r, err := standby.BeginRead()
					ok(t, err)
					old = append(old, r)
				}
				for _, r := range old {
					checkRead(t, r, c.m)
				}
			}
			ok(t, standby.log.Sync(standby.log.End()))
			sameBlocks(t, c.s, standby)
			for _, r := range old {
				r.Close()
			}
			res, err := standby.Check(context.Background(), nil)
			ok(t, err)
			if len(res.Problems) > 0 {
				t.Fatal(res.Problems)
			}
			tail.Close()
			mustClose(t, c.s)
			mustClose(t, standby)
		})
	}
}

// R20, L5: a commit larger than MaxRAM and than the log's limit is applied: its
// private blocks spill, and the log grows for it.
func TestR20_ApplyOfOneLargeCommit(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), func(o *Options) { o.MaxRAM *= 10 })
	ok(t, c.allocMany(10))
	standby, _ := newStandby(t, c.s, func(o *Options) { o.LogBytesMax = 3 << 20 })
	tail := openTail(t, c.s, standby.newestLSN())
	ok(t, c.change(func(w *writeOp) error {
		for range 1500 {
			b, err := w.tx.Alloc(block.TypeLeaf)
			if err != nil {
				return err
			}
			for i := range b.Payload() {
				b.Payload()[i] = byte(c.rng.Uint32())
			}
			w.note(b)
			b.Release()
		}
		return nil
	}))
	list := records(t, tail)
	if len(list) < 3 {
		t.Fatalf("%d records", len(list))
	}
	peaks := standby.cache.FollowPeaks()
	applyAll(t, standby, list[:len(list)-1])
	standby.watch(time.Now())
	used := standby.cache.PeaksSince(peaks).Temporary
	standby.cache.UnfollowPeaks(peaks)
	applyAll(t, standby, list[len(list)-1:])
	if used == 0 {
		t.Fatal("nothing was spilled: the commit is not large")
	}
	checkAll(t, standby, c.m)
	sameBlocks(t, c.s, standby)
	tail.Close()
	mustClose(t, c.s)
	mustClose(t, standby)
}

// R20, L10: a commit that its primary gave up half way takes its LSN and changes
// nothing.
func TestR20_ApplyOfAVoidCommit(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(10))
	standby, _ := newStandby(t, c.s, nil)
	tail := openTail(t, c.s, standby.newestLSN())
	ok(t, c.editMany(5))
	list := records(t, tail)
	half, void := list[0], list[0]
	half.Last = false
	void.Body = []byte{entryVoid}
	applyAll(t, standby, []LogRecord{half, void})
	c.m.at[c.m.newest()] = c.m.at[c.m.newest()-1]
	checkAll(t, standby, c.m)
	c.m.at = append(c.m.at, c.m.at[c.m.newest()])
	tail.Close()
	mustClose(t, c.s)
	mustClose(t, standby)
}

// R20: what does not fit is refused, typed, and changes nothing: the record of
// another commit says which one is due; a diff on another version, a free of a
// free block, an entry twice, a commit without a time are damage.
func TestR20_ApplyRefusesWhatDoesNotFit(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(30))
	standby, _ := newStandby(t, c.s, nil)
	if err := c.s.Apply(LogRecord{LSN: 2, Last: true}); !errors.Is(err, ErrNotStandby) {
		t.Fatalf("a primary is rolled forward: %v", err)
	}
	tail := openTail(t, c.s, standby.newestLSN())
	ok(t, c.editMany(5))
	ok(t, c.editMany(5))
	list := records(t, tail)
	var order *OrderError
	for _, r := range []LogRecord{list[1], {LSN: 1, Last: true}, {LSN: 99}} {
		if err := standby.Apply(r); !errors.As(err, &order) || order.Due != list[0].LSN || order.Got != r.LSN || !errors.Is(err, ErrOrder) {
			t.Fatalf("commit %v where %v is due: %v", r.LSN, list[0].LSN, err)
		}
	}
	data := c.m.at[1].ids()[0]
	head := list[0].Body[:17]
	for what, w := range map[string]func(*redoWriter){
		"diff on another version": func(w *redoWriter) {
			w.buf = append(w.buf, entryDiff, byte(data), 5, 9, 0, 0)
		},
		"diff of a free block": func(w *redoWriter) { w.buf = append(w.buf, entryDiff, 120, 5, 1, 0, 0) },
		"free of a free block": func(w *redoWriter) { w.free([]block.ID{120}) },
		"free twice":           func(w *redoWriter) { w.free([]block.ID{data, data}) },
		"a superblock":         func(w *redoWriter) { w.free([]block.ID{0}) },
		"no such place":        func(w *redoWriter) { w.free([]block.ID{1 << 60}) },
		"behind the high-water mark": func(w *redoWriter) {
			w.buf = append(w.buf, entryImage, 121, 5, 0, 0)
		},
		"two times":        func(w *redoWriter) { w.buf = append(w.buf, head...) },
		"unknown":          func(w *redoWriter) { w.buf = append(w.buf, 77) },
		"run out of block": func(w *redoWriter) { w.buf = append(w.buf, entryImage, byte(data), 5, 0xff, 0x7f, 1, 0, 0, 0) },
	} {
		bad := redoWriter{buf: append([]byte(nil), head...)}
		w(&bad)
		err := standby.Apply(LogRecord{LSN: list[0].LSN, Last: true, Body: bad.buf})
		if !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, errRedo) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if err := standby.Apply(LogRecord{LSN: list[0].LSN, Last: true, Body: list[0].Body[17:]}); !errors.Is(err, errRedo) {
		t.Fatalf("a commit without a time: %v", err)
	}
	checkAll(t, standby, c.m)
	applyAll(t, standby, list)
	checkAll(t, standby, c.m)
	// Half a commit in the log: it has to be opened again, and goes on.
	ok(t, c.editMany(5))
	next := records(t, tail)[0]
	half := next
	half.Last = false
	ok(t, standby.Apply(half))
	for range 2 {
		if err := standby.Apply(half); !errors.Is(err, errRedo) {
			t.Fatalf("the same record again: %v", err)
		}
	}
	checkAll(t, standby, c.m)
	ok(t, standby.Close())
	standby = mustOpen(t, standby.opts)
	ok(t, standby.Apply(next))
	sameBlocks(t, c.s, standby)
	tail.Close()
	mustClose(t, c.s)
	mustClose(t, standby)
}

// R20: a record that was changed on its way is refused, or is another commit that
// could have been: the standby never panics, and what it refuses changes nothing.
func TestR20_ApplyOfMangledRecords(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 13))
	c, _ := newCrashRun(t, seed, nil)
	ok(t, c.allocMany(40))
	disk := buildFrom(t, c.s, BuildOptions{Standby: true})
	tail := openTail(t, c.s, c.s.newestLSN())
	ok(t, c.change(func(w *writeOp) error { return w.some(20, 60) }))
	record := records(t, tail)[0]
	tail.Close()
	mustClose(t, c.s)
	open := func() *Store { return mustOpen(t, smallOptions(disk.Crash(nil, simfs.DropAll))) }
	s := open()
	refused := 0
	for range 250 * *flagLong {
		r := copied(record)
		for range 1 + rng.IntN(3) {
			at := rng.IntN(len(r.Body))
			switch rng.IntN(4) {
			case 0:
				r.Body = r.Body[:at+1]
			case 1:
				r.Body[at] = byte(rng.IntN(8))
			default:
				r.Body[at] ^= byte(1 << rng.IntN(8))
			}
		}
		r.Last = rng.IntN(10) > 0
		if err := s.Apply(r); err == nil {
			ok(t, s.Close())
			s = open()
			continue
		}
		refused++
		if rng.IntN(20) == 0 {
			checkAll(t, s, c.m)
		}
	}
	if refused == 0 {
		t.Fatal("everything was taken")
	}
	ok(t, s.Apply(record))
	checkAll(t, s, c.m)
	mustClose(t, s)
}

// R21: Close ends a commit that is half applied.
func TestR21_CloseOfAStandbyInACommit(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(10))
	standby, _ := newStandby(t, c.s, nil)
	tail := openTail(t, c.s, standby.newestLSN())
	ok(t, c.editMany(5))
	r := records(t, tail)[0]
	half := r
	half.Last = false
	ok(t, standby.Apply(half))
	ok(t, standby.Close())
	if err := standby.Apply(r); !errors.Is(err, ErrClosed) {
		t.Fatalf("applied to a closed store: %v", err)
	}
	standby = mustOpen(t, standby.opts)
	ok(t, standby.Apply(r))
	sameBlocks(t, c.s, standby)
	tail.Close()
	mustClose(t, c.s)
	mustClose(t, standby)
}

// standbyLog is a primary's history, for standbys that are cut.
type standbyLog struct {
	c    *crashRun
	disk *simfs.FS // of the standby as it was built
	list []LogRecord
}

func newStandbyLog(t testing.TB, seed uint64) *standbyLog {
	c, _ := newCrashRun(t, seed, nil)
	ok(t, c.commits(3, 10, 60))
	disk := buildFrom(t, c.s, BuildOptions{Standby: true})
	tail := openTail(t, c.s, c.s.newestLSN())
	ok(t, inOrder(
		func() error { return c.commits(4, 8, 60) },
		func() error { return c.allocMany(100) },
		func() error { return c.editMany(130) }, // spills, on the standby too
		func() error { return c.freeAll(20) },
		func() error { return c.commits(6, 8, 60) },
	))
	list := records(t, tail)
	tail.Close()
	mustClose(t, c.s)
	return &standbyLog{c, disk, list}
}

// run opens the standby on a disk and applies the rest of the log to it, until
// the power is cut. It returns how far what it acknowledged goes.
func (l *standbyLog) run(t testing.TB, disk *simfs.FS, d Durability, acked block.LSN, rng *rand.Rand) (block.LSN, error) {
	o := smallOptions(disk)
	o.Durability = d
	s, err := Open(testDir, o)
	if err != nil {
		return acked, err
	}
	defer s.Close()
	for _, r := range l.list {
		if r.LSN <= s.newestLSN() {
			continue
		}
		if err := s.Apply(r); err != nil {
			return acked, err
		}
		if r.Last && d == DurableCommit {
			acked = r.LSN
		}
		if rng.IntN(5) == 0 {
			if err := s.cleaner.awaitRound(s.cleaner.rounds()); err != nil {
				return acked, err
			}
		}
	}
	return acked, s.Close()
}

// check opens the standby on a disk: it is at a state of its primary, not before
// acked.
func (l *standbyLog) check(t testing.TB, disk *simfs.FS, acked block.LSN) {
	t.Helper()
	s := mustOpen(t, smallOptions(disk))
	if s.newestLSN() < acked || !s.standby {
		t.Fatalf("standby is at %v, %v was acknowledged", s.newestLSN(), acked)
	}
	checkAll(t, s, l.c.m)
	mustClose(t, s)
}

// R20: a standby that is cut at any event resumes from what it had made durable,
// again and again, and gets to where its primary is.
func TestR20_CrashResumes(t *testing.T) {
	seed := chance.Seed(t)
	l := newStandbyLog(t, seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	for _, d := range []Durability{DurableCommit, DurableNever} {
		whole := l.disk.Crash(nil, simfs.DropAll)
		_, err := l.run(t, whole, d, 0, rng)
		ok(t, err)
		events := whole.Events()
		cuts := 10 * *flagLong
		if testing.Short() {
			cuts = 4
		}
		for range cuts {
			disk, acked := l.disk.Crash(nil, simfs.DropAll), block.LSN(0)
			for range 3 { // cut, resume, cut again
				disk.CutAfter(1 + rng.IntN(events))
				acked, _ = l.run(t, disk, d, acked, rng)
				switch rng.IntN(3) {
				case 0:
					disk = disk.Crash(nil, simfs.DropAll)
				case 1:
					disk = disk.Crash(rng, simfs.Random)
				case 2:
					disk = disk.Kill()
				}
				l.check(t, disk.Crash(nil, simfs.KeepAll), acked)
			}
			_, err := l.run(t, disk, d, acked, rng)
			ok(t, err)
			l.check(t, disk, l.c.m.newest())
		}
	}
}
