package livebackup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// keptSource is a store with what it remembers of repositories.
type keptSource struct {
	Source
	store *mvcc.Store
}

func (s keptSource) CheckHead(_ context.Context, repo RepositoryID, h mvcc.Head) error {
	return s.store.CheckHead(repo, h)
}

func (s keptSource) RememberHead(_ context.Context, repo RepositoryID, h mvcc.Head) error {
	return s.store.RememberHead(repo, h)
}

// live is a database in a directory of the system.
type live struct {
	t   *testing.T
	dir string
}

// with opens the database, and closes it.
func (d live) with(do func(*mvcc.Store)) {
	d.t.Helper()
	store, err := mvcc.Open(d.dir, mvcc.Options{MaxRAM: 32 << 20, LogBytesMax: mvcc.LogBytesMin})
	if err != nil {
		d.t.Fatal(err)
	}
	defer store.Close()
	do(store)
}

// commit writes a block with a text.
func (d live) commit(text string) {
	d.t.Helper()
	d.with(func(store *mvcc.Store) {
		tx, err := store.BeginWrite()
		if err != nil {
			d.t.Fatal(err)
		}
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			d.t.Fatal(err)
		}
		fmt.Fprint(payload{b.Payload()}, text)
		b.Release()
		if _, err := tx.Commit(); err != nil {
			d.t.Fatal(err)
		}
	})
}

func (d live) backup(repo *Repository, o BackupOptions) (m Manifest, err error) {
	d.with(func(store *mvcc.Store) {
		var res Result
		res, err = Backup(d.t.Context(), keptSource{NewSource(store), store}, repo, o)
		m = res.Manifest
	})
	return m, err
}

func (d live) mustBackup(repo *Repository, o BackupOptions) Manifest {
	d.t.Helper()
	m, err := d.backup(repo, o)
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// copy copies the directory, as a person would.
func (d live) copy(name string) live {
	d.t.Helper()
	c := live{d.t, filepath.Join(filepath.Dir(d.dir), name)}
	if err := os.CopyFS(c.dir, os.DirFS(d.dir)); err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (d live) fork() {
	d.t.Helper()
	if err := mvcc.Fork(d.dir, mvcc.Options{MaxRAM: 32 << 20, LogBytesMax: mvcc.LogBytesMin}); err != nil {
		d.t.Fatal(err)
	}
}

// wantBackedUp proves that backup m holds blocks with exactly these texts.
func wantBackedUp(t *testing.T, repo *Repository, m Manifest, want ...string) {
	t.Helper()
	found := map[string]bool{}
	for _, image := range contents(t, repo, m.ID) {
		for _, text := range want {
			if string(image[:len(text)]) == text {
				found[text] = true
			}
		}
	}
	if len(found) != len(want) {
		t.Fatalf("backup %v has %v, want %q", m.ID, found, want)
	}
	if _, err := Verify(t.Context(), repo, m.ID, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A directory that was copied, and whose copies both go on (R18, T33): who pushes
// second is refused; forked, he goes on from what both have, and the first is told.
func TestR18_CopiedDirectory(t *testing.T) {
	one := live{t, filepath.Join(t.TempDir(), "one")}
	repo := realRepo(t)
	one.commit("common")
	first := one.mustBackup(repo, BackupOptions{})
	two := one.copy("two")
	one.commit("of one")
	two.commit("of two")
	two.commit("of two again")
	second := one.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	if _, err := two.backup(repo, BackupOptions{}); !errors.Is(err, mvcc.ErrHistory) {
		t.Fatal(err)
	}
	two.fork()
	m := two.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	if m.Base != first.ID { // not the second, though its LSN is lower than ours
		t.Fatalf("base is %v, want %v", m.Base, first.ID)
	}
	wantBackedUp(t, repo, m, "common", "of two", "of two again")
	wantBackedUp(t, repo, second, "common", "of one")
	if list := mustList(t, repo); list[1].State() != StateDisabled || list[2].State() != StateProven {
		t.Fatalf("%s, %s", list[1].State(), list[2].State())
	}
	if _, err := one.backup(repo, BackupOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
		t.Fatal(err)
	}
	one.fork()
	m = one.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	if m.Base != second.ID && m.Base != first.ID {
		t.Fatalf("base is %v", m.Base)
	}
	wantBackedUp(t, repo, m, "common", "of one")
}

// A machine that was rolled back to an older state of its disk.
func TestR18_RolledBackMachine(t *testing.T) {
	now := live{t, filepath.Join(t.TempDir(), "now")}
	repo := realRepo(t)
	now.commit("common")
	first := now.mustBackup(repo, BackupOptions{})
	before := now.copy("before")
	now.commit("lost")
	now.mustBackup(repo, BackupOptions{})
	if _, err := before.backup(repo, BackupOptions{}); !errors.Is(err, ErrRepositoryAhead) {
		t.Fatal(err)
	}
	before.commit("new")
	if _, err := before.backup(repo, BackupOptions{}); !errors.Is(err, mvcc.ErrHistory) {
		t.Fatal(err)
	}
	before.fork()
	m := before.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	if m.Base != first.ID {
		t.Fatalf("base is %v, want %v", m.Base, first.ID)
	}
	wantBackedUp(t, repo, m, "common", "new")
}

// Two restores of one backup, both of which go on, and one of an older backup (S4-18 to
// S4-20, S4-47).
func TestR18_RestoresThatGoOn(t *testing.T) {
	origin := live{t, filepath.Join(t.TempDir(), "origin")}
	repo := realRepo(t)
	origin.commit("a")
	first := origin.mustBackup(repo, BackupOptions{})
	origin.commit("b")
	second := origin.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	restore := func(id BackupID, name string) live {
		d := live{t, filepath.Join(filepath.Dir(origin.dir), name)}
		if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: id}, d.dir, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	states := func(want ...State) {
		t.Helper()
		for i, e := range mustList(t, repo) {
			if got := e.State(); (got == StateDisabled) != (want[i] == StateDisabled) {
				t.Fatalf("%v is %s: %s", e.ID, got, e.Disabled)
			}
		}
	}
	one, two, old := restore(second.ID, "one"), restore(second.ID, "two"), restore(first.ID, "old")
	one.commit("one")
	m := one.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	wantBackedUp(t, repo, m, "a", "b", "one")
	states(StateComplete, StateComplete, StateComplete)
	if _, err := origin.backup(repo, BackupOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
		t.Fatal(err)
	}
	two.commit("two")
	m = two.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	if m.Base != second.ID {
		t.Fatalf("base is %v", m.Base)
	}
	wantBackedUp(t, repo, m, "a", "b", "two")
	states(StateComplete, StateComplete, StateDisabled, StateComplete)
	old.commit("old")
	m = old.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	wantBackedUp(t, repo, m, "a", "old")
	states(StateComplete, StateDisabled, StateDisabled, StateDisabled, StateComplete)
	again := restore(second.ID, "again") // a disabled one, as a database
	again.commit("again")
	m = again.mustBackup(repo, BackupOptions{Type: TypeIncremental})
	wantBackedUp(t, repo, m, "a", "b", "again")
	states(StateComplete, StateComplete, StateDisabled, StateDisabled, StateDisabled, StateComplete)
}

// Two copies of a database go on. One of them cannot be opened, since its meta block is
// damaged; the backup of the other one fits what its log says next, and is of another
// history (R18).
func TestR18_MendFromAnotherCopy(t *testing.T) {
	one := live{t, filepath.Join(t.TempDir(), "one")}
	repo := realRepo(t)
	one.commit("common")
	one.mustBackup(repo, BackupOptions{})
	two := one.copy("two")
	one.commit("of one")
	one.mustBackup(repo, BackupOptions{Type: TypeFull})
	two.with(func(store *mvcc.Store) {
		h := history{t: t, store: store, rng: rand.New(rand.NewPCG(1, 1)), model: map[block.ID]string{}}
		for range 3 {
			h.commit(1, 0, 0)
		}
	})
	two.spoilMeta()
	_, err := mvcc.Open(two.dir, mvcc.Options{MaxRAM: 32 << 20, Mend: MendFrom(t.Context(), repo, nil)})
	if !errors.Is(err, mvcc.ErrHistory) || !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
}

// spoilMeta damages the meta block of a closed database, and its second copy.
func (d live) spoilMeta() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, "data"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(make([]byte, 64), 2*4096)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = os.Truncate(filepath.Join(d.dir, "doublewrite"), 0)
	}
	if err == nil {
		err = os.Truncate(filepath.Join(d.dir, "doublewrite"), 3<<20)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// A standby's backups have no checksum (R18). What a standby pushed does not hide the newest
// state that has one from a copy of its primary; and the copy does not add to it, where
// nothing says whose it is.
func TestR18_StandbyHidesNoHead(t *testing.T) {
	for _, before := range []bool{true, false} {
		a := newArchived(t, 8)
		for range 10 {
			a.commit(60, 0, 0)
		}
		a.full()
		a.archive()
		repo, o := openRepo(t, a.fs, "/d/other"), rebaseOptions // the log is elsewhere
		o.Type = TypeFull
		var copied *history
		if before {
			copied = a.copied()
			a.churn(200)
		}
		named := mustBackup(t, NewSource(a.store), repo, o)
		if !before {
			copied = a.copied()
		}
		a.churn(200)
		a.archive()
		standby := a.standby("/d/standby")
		if m := mustBackup(t, NewSource(standby), repo, o); m.RecordSum != 0 || m.EndLSN <= named.EndLSN {
			t.Fatalf("%+v", m)
		}
		standby.Close()
		for copied.store.Status().NewestLSN <= a.from {
			copied.churn(200)
		}
		copied.keep(1, 1, 1)
		o.Type = TypeIncremental
		res, err := Backup(t.Context(), NewSource(copied.store), repo, o)
		switch {
		case before && !errors.Is(err, mvcc.ErrHistory):
			t.Fatal(err)
		case before:
		case err != nil || res.Manifest.Base != named.ID:
			t.Fatalf("on %v, not on %v: %v", res.Manifest.Base, named.ID, err)
		default:
			copied.fs = a.fs
			copied.wantState(repo, res.Manifest, "/d/restored")
		}
	}
}

// nameless is a source as a standby is one: its backups have no checksum, and of its history
// it believes what it is told.
type nameless struct{ Source }

func (s nameless) Open(ctx context.Context, o SessionOptions) (Session, error) {
	session, err := s.Source.Open(ctx, o)
	return namelessSession{session}, err
}

func (nameless) CheckHead(context.Context, RepositoryID, mvcc.Head) error { return nil }

func (nameless) RememberHead(context.Context, RepositoryID, mvcc.Head) error { return nil }

type namelessSession struct{ Session }

func (s namelessSession) Info() mvcc.BackupInfo {
	info := s.Session.Info()
	info.RecordSum = 0
	return info
}

// The standby of a copy pushes a backup, and the database itself one behind that: this does
// not say that the two are of one history. When the newer one is damaged the other is no base
// (R18).
func TestR18_NoBaseOfAStandbyBelowAHead(t *testing.T) {
	a := newArchived(t, 8)
	for range 10 {
		a.commit(60, 0, 0)
	}
	repo, o := openRepo(t, a.fs, "/d/other"), rebaseOptions
	o.Type = TypeFull
	first := mustBackup(t, NewSource(a.store), repo, o)
	c := a.copied()
	c.churn(200)
	of := mustBackup(t, nameless{NewSource(c.store)}, repo, o)
	for a.store.Status().NewestLSN <= of.EndLSN {
		a.churn(200)
	}
	second := mustBackup(t, NewSource(a.store), repo, o)
	cut(t, repo, objectName(second.ID, kindBlocks, 1))
	a.churn(200)
	lsn := a.commit(1, 1, 1)
	a.kept[lsn] = maps.Clone(a.model)
	o.Type = TypeIncremental
	res, err := Backup(t.Context(), NewSource(a.store), repo, o)
	if err != nil || res.Manifest.Base != first.ID {
		t.Fatalf("on %v, not on %v: %v", res.Manifest.Base, first.ID, err)
	}
	a.wantState(repo, res.Manifest, "/d/restored")
}
