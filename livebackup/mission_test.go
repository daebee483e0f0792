package livebackup

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// S4-07: of a database that is open for reading only, and of a standby, full and
// incremental backups are taken, and are its state.
func TestMission_OfflineBackups(t *testing.T) {
	a := newArchived(t, 11)
	a.commit(5, 0, 0)
	a.change(4)
	a.full()
	a.change(5)
	a.archive()
	end := a.from
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	open := func(dir string, readOnly bool) *mvcc.Store {
		store, err := mvcc.Open(dir, mvcc.Options{FS: a.fs, MaxRAM: 4 << 20, Temp: []mvcc.TempDir{}, ReadOnly: readOnly})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	take := func(store *mvcc.Store, repo *Repository, kind BackupType, at block.LSN) {
		t.Helper()
		m := mustBackup(t, NewSource(store), repo, smallGroups(kind))
		if m.EndLSN != at || m.Kind != string(kind) {
			t.Fatalf("a %s backup of LSN %v, want %s of %v", m.Kind, m.EndLSN, kind, at)
		}
		a.n++
		dir := fmt.Sprintf("/d/offline%d", a.n)
		if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, dir, RestoreOptions{FS: a.fs, MaxRAM: 4 << 20}); err != nil {
			t.Fatal(err)
		}
		wantDatabase(t, a.fs, dir, a.kept[at])
	}
	closed := open(a.dir, true)
	take(closed, a.repo, TypeIncremental, end)
	take(closed, a.repo, TypeFull, end)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	_, standby := a.restore(RestoreTarget{}, end, RestoreOptions{Standby: true})
	store := open(standby, false)
	defer store.Close()
	if !store.Standby() {
		t.Fatal("not a standby")
	}
	other := openRepo(t, a.fs, "/d/other")
	take(store, other, TypeFull, end)
	take(store, other, TypeFull, end)
}

// S4-06, S2-21, S2-22: with every backup, full or incremental, a log space begins, in the
// same list; what is missing in one is told.
func TestMission_EveryBackupBeginsALogSpace(t *testing.T) {
	a := newArchived(t, 12)
	a.commit(5, 0, 0)
	var gone LogObject
	for i := range 6 {
		a.change(4)
		if i%2 == 0 {
			a.full()
		} else {
			a.incremental()
		}
		a.commit(1, 1, 0)
		if gone = a.archive(); gone.From == gone.To {
			t.Fatal("an empty object")
		}
		a.commit(1, 1, 0)
		a.archive()
	}
	spaces, err := LogSpaces(t.Context(), a.repo)
	if err != nil || len(spaces) != len(a.made)+1 { // one is from before the first backup
		t.Fatalf("%d log spaces of %d backups, %v", len(spaces), len(a.made), err)
	}
	for i, m := range a.made {
		s := &spaces[i+1]
		if s.Backup != m.ID || s.From != m.EndLSN || len(s.Holes) > 0 || s.Open != (i == len(a.made)-1) {
			t.Fatalf("behind backup %d at %v: %+v", i, m.EndLSN, *s)
		}
	}
	if err := a.repo.objects.Delete(t.Context(), gone.Name()); err != nil {
		t.Fatal(err)
	}
	spaces, err = LogSpaces(t.Context(), a.repo)
	last := spaces[len(spaces)-1]
	if err != nil || len(last.Holes) != 1 || last.Holes[0].To != gone.To {
		t.Fatalf("%+v, %v", last, err)
	}
}

// S4-36, T26: what is loaded in bulk, without waiting for the disk and in transactions
// larger than memory, is in archived log and in incrementals like all else.
func TestMission_BulkLoadIsInTheLog(t *testing.T) {
	a := newArchived(t, 13)
	a.commit(5, 0, 0)
	a.full()
	load := func() {
		a.tail.Close()
		if err := a.store.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		a.store, err = mvcc.Open(a.dir, mvcc.Options{
			FS: a.fs, MaxRAM: 2 << 20, LogBytesMax: mvcc.LogBytesMin, Durability: mvcc.DurableNever, OverflowMax: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		a.attach(a.from)
		for range 3 {
			lsn := a.commit(800, 100, 50)
			a.kept[lsn] = maps.Clone(a.model)
		}
		b, err := a.store.OpenBackup(t.Context(), mvcc.BackupOptions{}) // makes it durable
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a.from = a.made[0].EndLSN
	load()
	a.archive()
	for lsn := a.made[0].EndLSN + 1; lsn <= a.from; lsn++ {
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	load()
	a.made = append(a.made, a.backup(a.repo, smallGroups(TypeIncremental)))
	a.wantAt(RestoreTarget{Recover: RecoverNone}, a.made[1].EndLSN, RestoreOptions{})
}

// S4-32 to S4-34: from a full backup the way leads by the incremental on it, where one
// saves rolling forward, and only by the log behind that one; how long it takes is told.
func TestMission_TheCheapestMix(t *testing.T) {
	a := newArchived(t, 14)
	a.commit(5, 0, 0)
	take := func(kind BackupType) {
		a.made = append(a.made, a.backup(a.repo, BackupOptions{Type: kind}))
	}
	take(TypeFull)
	for range 20 {
		a.change(4)
		a.archive()
	}
	take(TypeIncremental)
	lsn := a.commit(1, 1, 0)
	a.kept[lsn] = maps.Clone(a.model)
	log := a.archive()
	p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{})
	if err != nil || p.Backup.ID != a.made[1].ID || len(p.Logs) != 1 || p.Logs[0] != log.Name() || p.Estimate <= 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	a.wantAt(RestoreTarget{}, a.from, RestoreOptions{})
	full, err := PlanRestore(t.Context(), a.repo, RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll})
	if err != nil || len(full.Logs) <= 1 || full.Estimate <= p.Estimate {
		t.Fatalf("from the full backup by log alone: %+v, %v", full, err)
	}
}

// S2-20: numbers of backups do not wrap where those of others did.
func TestMission_MoreBackupsThan65535(t *testing.T) {
	a := newArchived(t, 15)
	a.commit(5, 0, 0)
	claim, err := a.repo.objects.Claim(t.Context(), objectName(BackupID{1<<32 - 2, 1}, kindRun, 0), []byte("a run that lives"))
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Close()
	for range 3 {
		a.change(3)
		a.full()
	}
	for i, e := range mustList(t, a.repo) {
		if want := uint64(1<<32-1) + uint64(i); e.ID.Sequence != want || e.ID != a.made[i].ID {
			t.Fatalf("backup %d of the list is %v, want number %d", i, e.ID, want)
		}
	}
	a.wantAt(RestoreTarget{Recover: RecoverNone}, a.made[2].EndLSN, RestoreOptions{})
}

// S1-02, S2-01, S2-04: how long opening its snapshot kept writers waiting is in each backup,
// and in the list.
func TestMission_TheStallIsMeasured(t *testing.T) {
	a := newArchived(t, 16)
	a.commit(5, 0, 0)
	a.full()
	a.change(3)
	a.incremental()
	for i, e := range mustList(t, a.repo) {
		if s := e.Manifest.StartStall; s <= 0 || s != a.made[i].StartStall {
			t.Fatalf("backup %d says %v, its list %v", i, a.made[i].StartStall, s)
		}
	}
}

// S4-44: without any archived log only the backups themselves can be had.
func TestMission_NoLogs(t *testing.T) {
	a := newArchived(t, 17)
	a.commit(5, 0, 0)
	a.change(3)
	a.full()
	at := a.made[0].EndLSN
	a.change(3)
	for _, target := range []RestoreTarget{{}, {Recover: RecoverNone}, {LSN: at}, {Backup: a.made[0].ID}} {
		a.wantAt(target, at, RestoreOptions{})
	}
	if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: at + 1}); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
}

// A restore that is cut off, at any event while it is promoted as its store is closed,
// goes on with the same state.
func TestMission_PromotedWhenClosed(t *testing.T) {
	a := newArchived(t, 18)
	a.commit(5, 0, 0)
	a.full()
	a.change(6)
	a.archive()
	base := a.fs.(*simfs.FS)
	restore := func(fs *simfs.FS) (RestoreResult, error) {
		return Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{}, "/d/new", RestoreOptions{FS: fs, MaxRAM: 2 << 20})
	}
	whole := base.Crash(nil, simfs.KeepAll)
	if _, err := restore(whole); err != nil {
		t.Fatal(err)
	}
	step := 3
	if testing.Short() {
		step = 9
	}
	for back := 1 + a.rng.IntN(step); back < 90; back += step {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.CutAfter(whole.Events() - back)
		Restore(t.Context(), repo, RestoreTarget{}, "/d/new", RestoreOptions{FS: fs, MaxRAM: 2 << 20})
		for _, after := range []*simfs.FS{fs.Crash(a.rng, simfs.Random), fs.Kill()} {
			if _, err := after.Lstat("/d/new"); err != nil {
				if res, err := restore(after); err != nil || res.LSN != a.from {
					t.Fatalf("%d events before the end: %+v, %v", back, res, err)
				}
			}
			wantDatabase(t, after, "/d/new", a.kept[a.from])
		}
	}
}
