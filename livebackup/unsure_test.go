package livebackup

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// forkedAway is a database with two backups, the log of which is archived from the first
// one on; a state between them was restored, and the log of what was committed since is
// archived, too, but no backup was made. Behind the fork the two have commits of the same
// numbers.
func forkedAway(t *testing.T) (a *archived, end block.LSN) {
	t.Helper()
	a = newArchived(t, 7)
	a.change(2)
	a.full()
	a.change(3)
	fork := a.store.Status().NewestLSN
	a.archive()
	a.change(2)
	a.full()
	a.change(1)
	a.archive()
	left := maps.Clone(a.kept)
	a.onNewTimeline("/d/db2", fork)
	end = a.grown(6)
	for lsn := fork + 1; lsn <= a.made[1].EndLSN+1; lsn++ {
		if maps.Equal(a.kept[lsn], left[lsn]) {
			t.Fatalf("commit %v is the same on both timelines", lsn)
		}
	}
	return a, end
}

// The newest timeline has pushed nothing but log when its record is damaged: what is known
// leads to the one before it. A restore followed that into the abandoned future, without
// a word.
func TestL14_DamagedRecordBeforeOnlyLog(t *testing.T) {
	a, end := forkedAway(t)
	record, err := readSmall(t.Context(), a.repo.objects, timelineName(2), smallBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, a.repo, timelineName(2), flipped(record, 40))
	o := RestoreOptions{FS: a.fs, MaxRAM: 2 << 20}
	for _, target := range []RestoreTarget{{}, {Recover: RecoverNone}, {LSN: a.made[1].EndLSN}, {Backup: a.made[0].ID, Recover: RecoverAll}} {
		p, err := PlanRestore(t.Context(), a.repo, target)
		if err != nil || !errors.Is(p.Unsure, ErrTimelineUnsure) {
			t.Fatalf("%+v: %v, %v", target, p, err)
		}
		_, err = Restore(t.Context(), a.repo, target, "/d/none", o)
		if !errors.Is(err, ErrTimelineUnsure) || !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), timelineName(2)) {
			t.Fatalf("%+v: %v", target, err)
		}
		if _, err := a.fs.Lstat("/d/none"); err == nil {
			t.Fatal("something is at the target")
		}
	}
	if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: end}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), timelineName(2)) {
		t.Fatal(err)
	}
	a.wantAt(RestoreTarget{Backup: a.made[0].ID}, a.made[0].EndLSN, RestoreOptions{}) // exactly that
	o.AllowOlder = true
	res, err := Restore(t.Context(), a.repo, RestoreTarget{}, "/d/older", o)
	if err != nil || res.LSN != a.made[1].EndLSN+1 || !errors.Is(res.Unsure, ErrTimelineUnsure) {
		t.Fatalf("%+v, %v", res, err)
	}
	// The next push of the newest timeline writes its record anew.
	a.change(1)
	a.full()
	if p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{}); err != nil || p.Unsure != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	a.wantAt(RestoreTarget{LSN: end}, end, RestoreOptions{})
}

// L13: meanwhile a prune leaves what the log of that timeline is rolled forward from.
func TestL13_DamagedRecordBeforeOnlyLog(t *testing.T) {
	a, end := forkedAway(t)
	rewrite(t, a.repo, timelineName(2), []byte("not a record"))
	plan := mustPlan(t, a.repo, RetentionPolicy{Generations: 1})
	if _, err := Prune(t.Context(), a.repo, plan); err != nil {
		t.Fatal(err)
	}
	lsn := a.store.Status().NewestLSN
	if a.grown(1); a.from != lsn+1 {
		t.Fatal(a.from)
	}
	a.wantAt(RestoreTarget{}, a.from, RestoreOptions{})
	a.wantAt(RestoreTarget{LSN: end}, end, RestoreOptions{})
}

// A timeline has a second record, which says what was its newest state before a backup was
// deleted. Where that one is damaged the first one still says that it is the present one:
// the newest backup there is was taken for that, and it is one of the timeline before.
func TestL14_DamagedSecondRecord(t *testing.T) {
	a, end := forkedAway(t)
	a.change(2)
	a.full()
	if _, err := Delete(t.Context(), a.repo, a.made[2].ID, DeleteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	rewrite(t, a.repo, timelineName(3), []byte("not a record"))
	if p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{}); err != nil || p.Unsure != nil || p.LSN != end {
		t.Fatalf("%+v, %v", p, err)
	}
	a.wantAt(RestoreTarget{}, end, RestoreOptions{})
	if list := mustList(t, a.repo); list[1].State() != StateDisabled {
		t.Fatal(list[1].State())
	}
}

// The record of the newest timeline is damaged, its backups are there. A database on the
// timeline that it had left was let in, and took its place back.
func TestR18_DamagedRecordLetsNobodyBack(t *testing.T) {
	src, repo := newFake(1, 2, 4<<10), newRepo(t)
	mustBackup(t, src, repo, BackupOptions{})
	root := src.info
	src.info = forkOf(root, 0xa1, 80)
	mustBackup(t, src, repo, BackupOptions{})
	rewrite(t, repo, timelineName(2), []byte("not a record"))
	newest := src.info
	src.info = root
	src.info.LSN += 100
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
		t.Fatal(err)
	}
	src.info = newest
	mustBackup(t, src, repo, BackupOptions{})
	if list := mustList(t, repo); list[0].State() != StateDisabled || list[2].State() != StateComplete {
		t.Fatalf("%s, %s", list[0].State(), list[2].State())
	}
}

// A database is restored elsewhere from its backup at 10 and makes one at 20; the first one
// forks at 30, takes its place back, and has pushed nothing but log when its record is
// damaged. The log is rolled forward from the backup at 10, not from that at 20, which is
// newer and of neither.
func TestL13_UnknownLogBehindATimelineThatWasLeft(t *testing.T) {
	for _, damage := range []bool{false, true} {
		h := newStock()
		b1 := h.full()
		h.log(10, 30)
		first := h.now
		h.fork(b1)
		h.full()
		h.now, h.forks, h.lsn = block.TimelineID{3}, []block.Fork{{Timeline: first, LSN: 30}}, 30
		h.attach()
		h.log(30, 40)
		if damage {
			h.records.records = h.records.records[:2]
		}
		p := h.plan(RetentionPolicy{Generations: 1})
		list, logs := removed(p)
		for _, s := range list {
			if s == b1.Sequence {
				t.Errorf("damaged %v: the backup at 10 goes\n%s", damage, reasons(p))
			}
		}
		if logs != 0 {
			t.Errorf("damaged %v: %d logs go\n%s", damage, logs, reasons(p))
		}
	}
}
