package mvcc

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// A Builder that was cut at any event goes on with what is there; what it does
// not find it is given again. A database that was finished is none until it is
// finished again. The result is the backup, whatever was kept.
func TestBuilder_Resumes(t *testing.T) {
	seed := seeded(t)
	rng := rand.New(rand.NewPCG(seed, 12))
	c, _ := newCrashRun(t, seed, nil)
	ok(t, c.commits(5, 20, 100))
	p := openBackup(t, c.s)
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	mustClose(t, c.s)
	fresh := func() *simfs.FS {
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		ok(t, fsys.SyncDir("/"))
		return fsys
	}
	build := func(fsys *simfs.FS, standby, resume bool) (reused int, err error) {
		b, err := NewBuilder(testDir, p.b.Info(), BuildOptions{FS: fsys, Standby: standby, Resume: resume})
		if err != nil {
			return 0, err
		}
		dst := make([]byte, b.geo.size)
		for id, im := range p.images {
			if resume && rng.IntN(4) > 0 {
				kept, err := b.Kept(id, 1)
				if err != nil {
					b.Abort()
					return 0, err
				}
				if kept {
					if _, err := b.file.ReadAt(dst, b.geo.offset(id)); err != nil || string(dst) != string(im) {
						t.Fatalf("block %v is kept, and another one: %v", id, err)
					}
					reused++
					continue
				}
			}
			if err := b.Write(id, im); err != nil {
				b.Abort()
				return 0, err
			}
		}
		return reused, b.Finish()
	}
	check := func(fsys *simfs.FS, standby bool) {
		t.Helper()
		s := mustOpen(t, smallOptions(fsys))
		if s.Standby() != standby || s.newestLSN() != p.b.Info().LSN || (s.Timeline() == p.b.Info().Timeline) != standby {
			t.Fatalf("standby %v at %v on %v", s.Standby(), s.newestLSN(), s.Timeline())
		}
		checkAll(t, s, c.m)
		mustClose(t, s)
	}
	whole := fresh()
	_, err := build(whole, false, false)
	ok(t, err)
	check(whole.Crash(nil, simfs.DropAll), false)
	if _, err := build(whole, false, false); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("built over a database: %v", err)
	}
	total := 0
	for range 25 * *flagLong {
		fsys := fresh()
		if rng.IntN(4) == 0 {
			fsys = whole.Crash(nil, simfs.DropAll) // it was finished, and nobody knows
		}
		fsys.CutAfter(1 + rng.IntN(whole.Events()))
		_, _ = build(fsys, false, true)
		fsys = fsys.Crash(rng, simfs.Random)
		if _, err := fsys.Lstat(testDir + "/log"); err == nil {
			if _, err := fsys.Lstat(testDir + "/data"); err != nil {
				continue // the name of the file was lost: the directory is for its owner to clear
			}
		}
		standby := rng.IntN(2) == 0
		n, err := build(fsys, standby, true)
		ok(t, err)
		total += n
		check(fsys.Crash(nil, simfs.DropAll), standby)
	}
	if total == 0 {
		t.Fatal("nothing was kept")
	}
}

// R18: a backup says which history it is of: the timelines that led to its own,
// and the name of its newest commit, where the log knows it and it means
// something to others.
func TestR18_BackupNamesItsHistory(t *testing.T) {
	c, _ := newCrashRun(t, seeded(t), nil)
	info := func(s *Store) BackupInfo {
		p := openBackup(t, s)
		defer p.b.Close()
		return p.b.Info()
	}
	ok(t, c.commits(3, 5, 20))
	first := info(c.s)
	if first.RecordSum != headAt(t, c.s, 3).Sum || first.RecordSum == 0 || len(first.History) != 0 {
		t.Fatalf("%+v", first)
	}
	standby, _ := newStandby(t, c.s, nil)
	if i := info(standby); i.RecordSum != 0 || i.Timeline != first.Timeline {
		t.Fatalf("of a standby: %+v", i)
	}
	mustClose(t, standby)
	ok(t, Promote(testDir, standby.opts))
	s := mustOpen(t, standby.opts)
	if i := info(s); i.RecordSum != 0 || i.Timeline == first.Timeline || len(i.History) != 1 || i.History[0] != (block.Fork{Timeline: first.Timeline, LSN: 3}) {
		t.Fatalf("of what was promoted: %+v", i)
	}
	again := &crashRun{t: t, o: standby.opts, s: s, m: c.m, rng: c.rng}
	ok(t, again.commits(1, 5, 20))
	if i := info(s); i.RecordSum != headAt(t, s, 4).Sum || i.RecordSum == 0 {
		t.Fatalf("of a commit behind: %+v", i)
	}
	mustClose(t, s)
	mustClose(t, c.s)
}

// R19: a standby's time is that of the commits that it applied, across an opening
// and a promotion, also if its own clock is behind: what is committed then is
// later.
func TestR19_TimeOfAStandby(t *testing.T) {
	c, _ := newCrashRun(t, seeded(t), nil)
	ok(t, c.allocMany(5))
	standby, _ := newStandby(t, c.s, nil)
	tail := openTail(t, c.s, standby.newestLSN())
	c.s.lastTime = c.s.lastTime.AddDate(1, 0, 0) // the primary's clock is a year ahead
	ok(t, c.editMany(3))
	ahead := c.s.lastCommitTime()
	applyAll(t, standby, records(t, tail))
	for range 2 {
		if got := standby.lastCommitTime(); !got.Equal(ahead) {
			t.Fatalf("the standby is at %v, its primary at %v", got, ahead)
		}
		mustClose(t, standby)
		standby = mustOpen(t, standby.opts)
	}
	mustClose(t, standby)
	ok(t, Promote(testDir, standby.opts))
	s := mustOpen(t, standby.opts)
	again := &crashRun{t: t, o: standby.opts, s: s, m: c.m, rng: c.rng}
	ok(t, again.editMany(3))
	if !s.lastCommitTime().After(ahead) {
		t.Fatalf("committed at %v behind %v", s.lastCommitTime(), ahead)
	}
	if err := s.Apply(LogRecord{}); !errors.Is(err, ErrNotStandby) {
		t.Fatal(err)
	}
	tail.Close()
	mustClose(t, s)
	mustClose(t, c.s)
}
