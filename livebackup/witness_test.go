package livebackup

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// copiedTo is a copy of the database, which goes on by itself, with a repository of its own.
func (a *archived) copiedTo(repo string) *archived {
	a.t.Helper()
	c := a.copied()
	b := &archived{history: c, repo: openRepo(a.t, c.fs, repo)}
	b.attach(a.from)
	return b
}

// onceAt has a standby apply what there is, and compares it with what it should be at.
func (f *follower) onceAt(t *testing.T, lsn block.LSN, want map[block.ID]string) error {
	t.Helper()
	_, err := f.once(t.Context())
	if at, _ := f.store.NewestCommit(); at != lsn {
		t.Fatalf("at LSN %v, not %v: %v", at, lsn, err)
	}
	wantTexts(t, f.store, want)
	return err
}

// R18, R20: two copies of a database go on, each with a repository. A standby of the one
// that followed the other's repository applied what fitted, and was a mixture of the two, or
// found its own blocks corrupt.
func TestR18_FollowOfACopy(t *testing.T) {
	for seed := range uint64(12) {
		a := newArchived(t, seed)
		a.change(2)
		a.full()
		a.change(3)
		a.archive()
		b := a.copiedTo("/d/other")
		one, other := a, b
		if seed%2 == 1 { // whichever committed first
			one, other = b, a
		}
		one.change(4)
		one.full()
		one.archive()
		other.change(4)
		other.full()
		for other.from <= one.from {
			other.change(5)
			other.archive()
		}
		standby := one.standby("/d/standby")
		f := follower{repo: other.repo, store: standby}
		if err := f.onceAt(t, one.from, one.kept[one.from]); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		one.change(3)
		one.archive()
		f = follower{repo: one.repo, store: standby}
		if err := f.onceAt(t, one.from, one.kept[one.from]); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		standby.Close()
	}
}

// R18, R20: a machine is rolled back, its database and its repository with it, and goes on;
// a standby on another one has what was lost. It waited, and went on with other commits of
// the numbers that came next.
func TestR18_FollowOfARolledBackMachine(t *testing.T) {
	a := newArchived(t, 5)
	a.change(2)
	a.full()
	a.change(2)
	a.archive()
	before := a.copied()
	b := &archived{history: before, repo: openRepo(t, before.fs, "/d/repo")}
	b.attach(a.from)
	a.change(4)
	a.archive()
	standby := a.standby("/d/standby")
	defer standby.Close()
	f := follower{repo: a.repo, store: standby}
	if err := f.onceAt(t, a.from, a.kept[a.from]); err != nil {
		t.Fatal(err)
	}
	f.repo = b.repo // that is what is at its place now
	for b.from <= a.from {
		if err := f.onceAt(t, a.from, a.kept[a.from]); err != nil {
			t.Fatal(err)
		}
		b.change(1)
		b.archive()
	}
	if err := f.onceAt(t, a.from, a.kept[a.from]); !errors.Is(err, mvcc.ErrHistory) {
		t.Fatal(err)
	}
}

// L14: another timeline takes the place of a standby's. What there is of its own is applied;
// then it waited, for ever, and nobody heard why.
func TestL14_FollowOfAnAbandonedTimeline(t *testing.T) {
	a := newArchived(t, 6)
	a.change(2)
	a.full()
	a.change(2)
	fork := a.store.Status().NewestLSN
	a.archive()
	standby := a.standby("/d/standby")
	defer standby.Close()
	f := follower{repo: a.repo, store: standby}
	a.change(2)
	a.archive()
	left, kept := a.from, maps.Clone(a.kept[a.from])
	a.onNewTimeline("/d/db2", fork)
	a.grown(4)
	if err := f.onceAt(t, left, kept); err != nil || !errors.Is(f.abandoned, ErrTimelineAbandoned) {
		t.Fatal(err, f.abandoned)
	}
	ctx, stop := context.WithCancel(t.Context())
	told := 0
	if err := Follow(ctx, a.repo, standby, FollowOptions{Progress: func(p FollowProgress) {
		if told++; told == 3 {
			stop()
		}
		if !errors.Is(p.Abandoned, ErrTimelineAbandoned) {
			t.Error(p.Abandoned)
		}
	}, Every: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	stop()
	next := a.standby("/d/next")
	defer next.Close()
	a.change(1)
	a.archive()
	f = follower{repo: a.repo, store: next}
	if err := f.onceAt(t, a.from, a.kept[a.from]); err != nil || f.abandoned != nil {
		t.Fatal(err, f.abandoned)
	}
}

// R18: from the repository of another database, or of timelines that did not lead to the
// standby's, nothing can come; to one that is empty, or that is as yet of a timeline before,
// it can.
func TestR18_FollowOfAnotherDatabase(t *testing.T) {
	a := newArchived(t, 7)
	a.change(2)
	a.full()
	a.change(2)
	a.archive()
	fork := a.from
	standby := a.standby("/d/standby")
	defer standby.Close()
	stranger := newArchived(t, 8)
	stranger.change(2)
	stranger.full()
	if err := Follow(t.Context(), stranger.repo, standby, FollowOptions{}); !errors.Is(err, ErrForeignDatabase) {
		t.Fatal(err)
	}
	elsewhere := openRepo(t, simfs.New(), "/repo")
	f := follower{repo: elsewhere, store: standby}
	if err := f.onceAt(t, fork, a.kept[fork]); err != nil {
		t.Fatal(err)
	}
	of := mvcc.BackupInfo{Database: standby.Database(), Timeline: block.NewTimelineID()}
	if err := errors.Join(elsewhere.bind(t.Context(), of.Database), elsewhere.attach(t.Context(), of)); err != nil {
		t.Fatal(err)
	}
	if err := f.onceAt(t, fork, a.kept[fork]); !errors.Is(err, ErrForeignTimeline) {
		t.Fatal(err)
	}
	a.onNewTimeline("/d/db2", fork)
	main := a.repo
	second := openRepo(t, a.fs, "/d/second") // the timeline before has pushed to it
	err := second.bind(t.Context(), of.Database)
	of.Timeline = standby.Timeline()
	if err := errors.Join(err, second.attach(t.Context(), of)); err != nil {
		t.Fatal(err)
	}
	a.change(2)
	a.full()
	next := a.standby("/d/next") // of the new one
	defer next.Close()
	f = follower{repo: second, store: next}
	at, _ := next.NewestCommit()
	if err := f.onceAt(t, at, a.kept[at]); err != nil {
		t.Fatal(err)
	}
	a.repo = second
	a.attach(at)
	a.grown(3)
	if err := f.onceAt(t, a.from, a.kept[a.from]); err != nil {
		t.Fatal(err)
	}
	a.repo = main
}

// until commits and archives up to commit lsn.
func (a *archived) until(lsn block.LSN) {
	for a.from < lsn {
		a.change(1)
		a.archive()
	}
}

// R18: a standby has no checksum for what it has. That of a copy pushed backups to the
// repository of the database all the same, and archived log was rolled forward from them.
func TestR18_StandbyOfACopyPushesNothing(t *testing.T) {
	for seed := range uint64(6) {
		a := newArchived(t, seed)
		a.change(2)
		a.full()
		a.change(3)
		a.archive()
		b := a.copiedTo("/d/other")
		end := a.from + 4
		b.full()
		if seed%2 == 1 { // whichever committed first
			a.until(end)
		}
		b.until(end)
		a.until(end)
		copied := b.standby("/d/standby")
		for _, typ := range []BackupType{TypeFull, TypeIncremental} {
			if _, err := Backup(t.Context(), NewSource(copied), a.repo, BackupOptions{Type: typ}); !errors.Is(err, mvcc.ErrHistory) {
				t.Fatalf("seed %d, %s: %v", seed, typ, err)
			}
		}
		copied.Close()
		standby := a.standby("/d/standby")
		a.made = append(a.made, mustBackup(t, NewSource(standby), a.repo, BackupOptions{Type: TypeIncremental}))
		standby.Close()
		a.change(2)
		a.archive()
		a.wantAt(RestoreTarget{}, a.from, RestoreOptions{})
	}
}

// The backup of a copy's standby that got in when nothing told, since the log that says
// otherwise was not archived yet: it is not rolled forward by that.
func TestR18_NoRestoreFromAStandbyOfACopy(t *testing.T) {
	a := newArchived(t, 9)
	a.change(2)
	a.full()
	a.change(2)
	a.archive()
	b := a.copiedTo("/d/other")
	b.change(3)
	m := mustBackup(t, nameless{NewSource(b.store)}, a.repo, BackupOptions{Type: TypeFull})
	b.kept[m.EndLSN] = maps.Clone(b.model)
	a.change(6)
	a.archive()
	o := RestoreOptions{FS: a.fs, MaxRAM: 2 << 20}
	for _, target := range []RestoreTarget{{}, {LSN: a.from}, {Backup: m.ID, Recover: RecoverAll}} {
		if _, err := Restore(t.Context(), a.repo, target, "/d/none", o); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatalf("%+v: %v", target, err)
		}
	}
	a.wantAt(RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, a.from, RestoreOptions{})
	a.kept[m.EndLSN] = b.kept[m.EndLSN] // exactly that is what it says
	a.wantAt(RestoreTarget{Backup: m.ID}, m.EndLSN, RestoreOptions{})
}

// archiveOnce archives what is durable.
func archiveOnce(t *testing.T, src Source, repo *Repository) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Archive(ctx, src, repo, ArchiveOptions{}); err != nil {
		t.Fatal(err)
	}
}

// R18: the log of a standby has checksums of its own. It archived them as its primary's,
// who was refused as a copy from then on.
func TestR18_LogOfAStandbyHasNoChecksums(t *testing.T) {
	a := newArchived(t, 3)
	a.tail.Close()
	a.change(2)
	a.full()
	a.change(3)
	archiveOnce(t, NewSource(a.store), a.repo)
	main, other := a.repo, openRepo(t, a.fs, "/d/other")
	a.repo = other
	a.full()
	a.change(2)
	archiveOnce(t, NewSource(a.store), other)
	standby := a.standby("/d/standby")
	defer standby.Close()
	for range 2 { // the log of the second time ends where the standby has applied the first
		archiveOnce(t, NewSource(standby), main)
		a.change(3)
		archiveOnce(t, NewSource(a.store), other)
		f := follower{repo: other, store: standby}
		if _, err := f.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a.repo = main
	a.change(2)
	archiveOnce(t, NewSource(a.store), main)
	a.full()
	end, _ := a.store.NewestCommit()
	for lsn := a.made[0].EndLSN; lsn <= end; lsn++ {
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	a.attach(end)
}
