package mvcc

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// promoted opens what Promote or Fork left, in the middle perhaps, and checks
// that it is the one or the other, whole.
func (l *standbyLog) promoted(t testing.TB, disk *simfs.FS, what string) (*Store, bool) {
	t.Helper()
	s, err := Open(testDir, smallOptions(disk))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if s.newestLSN() != l.c.m.newest() {
		t.Fatalf("%s: at LSN %v, it was %v", what, s.newestLSN(), l.c.m.newest())
	}
	checkAll(t, s, l.c.m)
	old := l.c.s.Timeline()
	forks := s.anchor.now.forks.list()
	if s.standby {
		if s.Timeline() != old || len(forks) != 0 {
			t.Fatalf("%s: a standby on %v, forks %v", what, s.Timeline(), forks)
		}
		return s, true
	}
	if s.Timeline() == old || !slices.Equal(forks, []block.Fork{{Timeline: old, LSN: l.c.m.newest()}}) {
		t.Fatalf("%s: a database on %v, forks %v; it was on %v", what, s.Timeline(), forks, old)
	}
	return s, false
}

// R20, L14: cut at any event, and again when it is opened, a promotion leaves
// the standby or the new database, whole; it can be repeated, and what is
// committed afterwards stays.
func TestR20_PromoteIsCrashSafe(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 6))
	l := newStandbyLog(t, seed)
	atEnd := l.disk.Crash(nil, simfs.DropAll)
	_, err := l.run(t, atEnd, DurableCommit, 0, rng)
	ok(t, err)
	before := atEnd.Crash(nil, simfs.DropAll)
	whole := before.Crash(nil, simfs.DropAll)
	ok(t, Promote(testDir, smallOptions(whole)))
	if open := whole.OpenFiles(); len(open) > 0 {
		t.Fatalf("open after Promote: %v", open)
	}
	if s, standby := l.promoted(t, whole, "promoted"); standby {
		t.Fatal("still a standby")
	} else {
		mustClose(t, s)
	}
	events, states := whole.Events(), map[bool]int{}
	step := 3
	if testing.Short() {
		step = 6
	}
	if *flagLong > 1 {
		step = 1
	}
	for k := 1 + rng.IntN(step); k <= events; k += step {
		disk := before.Crash(nil, simfs.DropAll)
		disk.CutAfter(k)
		if err := Promote(testDir, smallOptions(disk)); err == nil && disk.IsCut() {
			continue // its last event
		}
		crashes(disk, rng, 2, func(after *simfs.FS, how string) {
			l.afterPromote(t, after, rng, states, fmt.Sprintf("cut after %d of %d, %s", k, events, how))
		})
		l.afterPromote(t, disk.Kill(), rng, states, fmt.Sprintf("killed after %d of %d", k, events))
	}
	if states[true] == 0 || states[false] == 0 {
		t.Fatalf("standby or not: %v", states)
	}
}

// afterPromote opens a disk, perhaps cut while it is opened, promotes if that is
// still to be done, and writes.
func (l *standbyLog) afterPromote(t testing.TB, disk *simfs.FS, rng *rand.Rand, states map[bool]int, what string) {
	ro, err := Open(testDir, Options{FS: disk.Crash(nil, simfs.KeepAll), MaxRAM: 4 << 20, CloseWait: -1, ReadOnly: true})
	ok(t, err)
	checkAll(t, ro, l.c.m)
	ok(t, ro.Close())
	if rng.IntN(2) == 0 {
		disk.CutAfter(1 + rng.IntN(25))
		if s, err := Open(testDir, smallOptions(disk)); err == nil {
			_ = s.Close()
		} else if !disk.IsCut() {
			t.Fatalf("%s: %v", what, err)
		}
		disk = disk.Crash(rng, simfs.Random)
		what += ", cut when opened"
	}
	s, standby := l.promoted(t, disk, what)
	states[standby]++
	ok(t, s.Close())
	if standby {
		ok(t, Promote(testDir, smallOptions(disk)))
		s, standby = l.promoted(t, disk, what+", promoted again")
		if standby {
			t.Fatalf("%s: promoted, and still a standby", what)
		}
		ok(t, s.Close())
	}
	s, _ = l.promoted(t, disk, what)
	m := &model{at: slices.Clone(l.c.m.at), acked: l.c.m.newest()}
	c := &crashRun{t: t, o: smallOptions(disk), s: s, m: m, rng: rng}
	ok(t, c.commits(2, 5, 60))
	c.checkAfter(disk.Crash(nil, simfs.DropAll), what+", gone on", nil)
	ok(t, s.Close())
}

// Promote and Fork refuse what they are not for, and make no database of nothing.
func TestR20_PromoteAndForkRefuse(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(2, 5, 20))
	if err := Fork(testDir, c.o); !errors.Is(err, ErrLocked) {
		t.Fatalf("fork of an open database: %v", err)
	}
	disk := buildFrom(t, c.s, BuildOptions{Standby: true})
	mustClose(t, c.s)
	if err := Promote(testDir, c.o); !errors.Is(err, ErrNotStandby) {
		t.Fatalf("promotion of a primary: %v", err)
	}
	if err := Fork(testDir, smallOptions(disk)); !errors.Is(err, ErrStandby) {
		t.Fatalf("fork of a standby: %v", err)
	}
	o := c.o
	o.ReadOnly = true
	if err := Fork(testDir, o); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("fork, read-only: %v", err)
	}
	for _, f := range []func(string, Options) error{Promote, Fork} {
		if err := f("/nothing", c.o); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrNotDatabase) {
			t.Fatal(err)
		}
	}
	if _, err := fsys.Lstat("/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a database was made of nothing")
	}
	if open := append(fsys.OpenFiles(), disk.OpenFiles()...); len(open) > 0 {
		t.Fatalf("left open: %v", open)
	}
}

// R18, L14: a database that forks keeps the list of what led to it, the newest
// first, and forgets what is older than nine; LSNs go on.
func TestR18_ForksAreRemembered(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	var want []block.Fork
	for range forksMax + 2 {
		ok(t, c.commits(1, 5, 20))
		old := c.s.Timeline()
		p := openBackup(t, c.s)
		ok(t, p.rest(t))
		ok(t, p.b.Close())
		mustClose(t, c.s)
		// A restore: what is at or below the backup is shared.
		disk := simfs.New()
		ok(t, disk.Mkdir(testDir, 0o700))
		bl, err := NewBuilder(testDir, p.b.Info(), BuildOptions{FS: disk})
		ok(t, err)
		for id, im := range p.images {
			ok(t, bl.Write(id, im))
		}
		ok(t, bl.Finish())
		want = slices.Insert(want, 0, block.Fork{Timeline: old, LSN: p.b.Info().LSN})
		want = want[:min(len(want), forksMax)]
		c.o.FS = disk
		c.s = mustOpen(t, c.o)
		if got := c.s.anchor.now.forks.list(); !slices.Equal(got, want) {
			t.Fatalf("forks %v, want %v", got, want)
		}
		checkAll(t, c.s, c.m)
	}
	mustClose(t, c.s)
}
