package mvcc

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// build writes a backup's blocks, of those that are there already three in four
// only if they have to be; it returns how many stayed.
func (p *backupPull) build(t testing.TB, fsys *simfs.FS, bo BuildOptions, rng *rand.Rand) (kept int, err error) {
	bo.FS = fsys
	b, err := NewBuilder(testDir, p.b.Info(), bo)
	if err != nil {
		return 0, err
	}
	dst := make([]byte, b.geo.size)
	for id, im := range p.images {
		if bo.Resume && rng.IntN(4) > 0 {
			found, err := b.Kept(id, 1)
			if err != nil {
				b.Abort()
				return kept, err
			}
			if found {
				_, err := b.file.ReadAt(dst, b.geo.offset(id))
				if ok(t, err); string(dst) != string(im) {
					t.Fatalf("block %v is kept, and another one", id)
				}
				kept++
				continue
			}
		}
		if err := b.Write(id, im); err != nil {
			b.Abort()
			return kept, err
		}
	}
	return kept, b.Finish()
}

// A Builder that was cut at any event goes on with what is there; what it does
// not find it is given again. A database that was finished is none until it is
// finished again. The result is the backup, whatever was kept.
func TestBuilder_Resumes(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 12))
	c, _ := newCrashRun(t, seed, nil)
	ok(t, c.commits(5, 20, 100))
	p := openBackup(t, c.s)
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	mustClose(t, c.s)
	check := func(fsys *simfs.FS, standby bool) {
		t.Helper()
		s := mustOpen(t, smallOptions(fsys))
		if s.Standby() != standby || s.newestLSN() != p.b.Info().LSN || (s.Timeline() == p.b.Info().Timeline) != standby {
			t.Fatalf("standby %v at %v on %v", s.Standby(), s.newestLSN(), s.Timeline())
		}
		checkAll(t, s, c.m)
		mustClose(t, s)
	}
	whole, total := emptyDir(t), 0
	_, err := p.build(t, whole, BuildOptions{}, rng)
	ok(t, err)
	check(whole.Crash(nil, simfs.DropAll), false)
	if _, err := p.build(t, whole, BuildOptions{}, rng); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("built over a database: %v", err)
	}
	for range 25 * *flagLong {
		fsys := emptyDir(t)
		if rng.IntN(4) == 0 {
			fsys = whole.Crash(nil, simfs.DropAll) // it was finished, and nobody knows
		}
		fsys.CutAfter(1 + rng.IntN(whole.Events()))
		_, _ = p.build(t, fsys, BuildOptions{Resume: true}, rng)
		fsys = fsys.Crash(rng, simfs.Random)
		if _, err := fsys.Lstat(testDir + "/data"); err != nil && len(fsys.Names()) > 1 {
			continue // the file's name was lost, the log's not: the directory is for its owner to clear
		}
		standby := rng.IntN(2) == 0
		n, err := p.build(t, fsys, BuildOptions{Standby: standby, Resume: true}, rng)
		ok(t, err)
		total += n
		check(fsys.Crash(nil, simfs.DropAll), standby)
	}
	if total == 0 {
		t.Fatal("nothing was kept")
	}
}

// emptyDir is a disk with a directory for a database.
func emptyDir(t testing.TB) *simfs.FS {
	t.Helper()
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	return fsys
}

// R18: a backup says which history it is of: the timelines that led to its own,
// and the name of its newest commit, where the log knows it and it means
// something to others.
func TestR18_BackupNamesItsHistory(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
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
	c, _ := newCrashRun(t, chance.Seed(t), nil)
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
