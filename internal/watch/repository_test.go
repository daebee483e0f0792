package watch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// kept is a database with a repository.
type kept struct {
	t    *testing.T
	db   *kv.DB
	dir  string
	repo *livebackup.Repository
}

func newKept(t *testing.T) *kept {
	t.Helper()
	k := &kept{t: t, dir: filepath.Join(t.TempDir(), "repo")}
	var err error
	k.db, err = kv.Open(filepath.Join(t.TempDir(), "db"), kv.Options{Store: mvcc.Options{MaxRAM: 4 << 20, CloseWait: -1}})
	k.ok(err)
	t.Cleanup(func() { k.ok(k.db.Close()) })
	k.repo, err = livebackup.OpenRepository(t.Context(), k.dir, livebackup.RepositoryOptions{Create: true})
	k.ok(err)
	return k
}

func (k *kept) ok(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kept) commit() {
	k.t.Helper()
	k.ok(k.db.Update(func(tx *kv.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("b"))
		if err == nil {
			_, err = b.NextSequence()
		}
		return err
	}))
}

func (k *kept) backup() *livebackup.Manifest {
	k.t.Helper()
	r, err := livebackup.Backup(k.t.Context(), livebackup.NewSource(k.db.Store()), k.repo, livebackup.BackupOptions{Type: livebackup.TypeFull})
	k.ok(err)
	return &r.Manifest
}

// archive archives what there is.
func (k *kept) archive() {
	k.t.Helper()
	ctx, cancel := context.WithCancel(k.t.Context())
	defer cancel()
	want := k.db.Store().Status().NewestLSN
	k.ok(livebackup.Archive(ctx, livebackup.NewSource(k.db.Store()), k.repo, livebackup.ArchiveOptions{Progress: func(s livebackup.ArchiveStatus) {
		if s.DurableLSN >= want {
			cancel() // it archives the rest, and ends
		}
	}}))
}

// damage takes the blocks of a backup away.
func (k *kept) damage(m *livebackup.Manifest) {
	k.t.Helper()
	names, err := filepath.Glob(filepath.Join(k.dir, m.ID.String()+".blocks-*"))
	k.ok(err)
	for _, n := range names {
		k.ok(os.Remove(n))
	}
	if len(names) == 0 {
		k.t.Fatal("there is nothing to damage")
	}
}

// look is what is shown of the repository, and what is at risk.
func (k *kept) look() (r *Repository, atRisk bool, text string) {
	k.t.Helper()
	r, err := readRepository(k.t.Context(), k.repo)
	k.ok(err)
	st := k.db.Store().Status()
	v := View{Time: st.LastCommit, LastCommit: st.LastCommit, Repository: r}
	age, known := v.AtRisk()
	for _, row := range repositoryRows(&v, Screen{Width: 80, Height: 24}) {
		text += row.Text() + "\n"
	}
	return r, !known || age > 0, text
}

// Where no backup is sound nothing can be restored, whatever log there is. It was shown that
// everything is in the repository, or that all but the last three hundred years are.
func TestRepository_WithoutASoundBackup(t *testing.T) {
	k := newKept(t)
	k.commit()
	m := k.backup()
	k.commit()
	k.archive()
	if r, risk, text := k.look(); risk || r.Newest != m.ID || !r.Archived || r.ArchivedTo != k.db.Store().Status().NewestLSN {
		t.Errorf("%+v, at risk: %v\n%s", r, risk, text)
	}
	k.damage(m)
	if r, risk, text := k.look(); !risk || !r.Newest.IsZero() || r.ArchivedTo != 0 ||
		!strings.Contains(text, "none of 1 backup is sound: nothing can be restored") || strings.Contains(text, "at risk") {
		t.Errorf("%+v, at risk: %v\n%s", r, risk, text)
	}
}

// The log behind a damaged backup is of no use if there is a hole before it: what was
// committed since the sound one before is at risk. It was shown as archived.
func TestRepository_HoleBeforeADamagedBackup(t *testing.T) {
	k := newKept(t)
	k.commit()
	sound := k.backup()
	k.commit()
	k.archive()
	lost, err := filepath.Glob(filepath.Join(k.dir, "log-*"))
	k.ok(err)
	m := k.backup()
	k.commit()
	k.archive()
	if r, risk, text := k.look(); risk || r.Newest != m.ID {
		t.Errorf("%+v, at risk: %v\n%s", r, risk, text)
	}
	for _, n := range lost {
		k.ok(os.Remove(n))
	}
	if r, risk, text := k.look(); risk || r.Newest != m.ID || len(lost) == 0 {
		t.Errorf("%+v, at risk: %v\n%s", r, risk, text)
	}
	k.damage(m)
	if r, risk, text := k.look(); !risk || r.Newest != sound.ID || r.ArchivedTo != sound.EndLSN || !strings.Contains(text, "is only here") {
		t.Errorf("%+v, at risk: %v\n%s", r, risk, text)
	}
}

// A repository of another database says nothing about this one: it was shown as if its
// backups were this database's.
func TestRepository_OfAnotherDatabase(t *testing.T) {
	k := newKept(t)
	k.commit()
	k.backup()
	look := LookAt(k.repo)
	look.refresh(t.Context())
	look.began = time.Now()
	own := k.db.Store().Status().Database
	if r := look.Look(t.Context(), look.began, own); r == nil || r.Error != "" || r.Backups != 1 {
		t.Errorf("%+v", r)
	}
	v := View{Time: time.Now(), LastCommit: time.Now(), Repository: look.Look(t.Context(), look.began, block.NewDatabaseID().String())}
	if _, known := v.AtRisk(); known || !strings.Contains(v.Repository.Error, own) {
		t.Errorf("%+v", v.Repository)
	}
}
