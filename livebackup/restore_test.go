package livebackup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// newStore opens a database and commits blocks to it; their payloads start
// with their numbers in text.
func newStore(t *testing.T, fs vfs.FS, dir string, blocks int) *mvcc.Store {
	t.Helper()
	store, err := mvcc.Open(dir, mvcc.Options{FS: fs, MaxRAM: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := store.BeginWrite()
	if err != nil {
		t.Fatal(err)
	}
	for range blocks {
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(payload{b.Payload()}, "block %v", b.ID())
		b.Release()
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return store
}

// payload is the start of a block as a writer.
type payload struct{ b []byte }

func (p payload) Write(text []byte) (int, error) { return copy(p.b, text), nil }

// backupOfStore makes a repository with one backup of a real store.
func backupOfStore(t *testing.T, fs vfs.FS, dbDir, repoDir string, blocks int) (*Repository, Manifest) {
	t.Helper()
	store := newStore(t, fs, dbDir, blocks)
	repo := openRepo(t, fs, repoDir)
	m := mustBackup(t, NewSource(store), repo, BackupOptions{Owner: "test"})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return repo, m
}

// L14: what is restored is the state at S, on a new timeline whose LSNs go on.
func TestL14_RestoreIsTheStateOnANewTimeline(t *testing.T) {
	dir := t.TempDir()
	repo, m := backupOfStore(t, vfs.OS, filepath.Join(dir, "db"), filepath.Join(dir, "repo"), 500)
	target := filepath.Join(dir, "restored")
	res, err := Restore(t.Context(), repo, RestoreTarget{}, target, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Manifest.ID != m.ID {
		t.Fatalf("restored %v", res.Manifest.ID)
	}
	wantEntries(t, dir, "db", "repo", "restored")
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	store, err := mvcc.Open(target, mvcc.Options{MaxRAM: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	st := store.Status()
	if st.Database != m.Database.String() || st.Timeline == m.Timeline.String() || st.NewestLSN != m.LSN {
		t.Fatalf("status is %+v", st)
	}
	if check, err := store.Check(t.Context(), nil); err != nil || len(check.Problems) > 0 {
		t.Fatalf("%+v, %v", check, err)
	}
	again := mustBackup(t, NewSource(store), repo, BackupOptions{}) // another timeline, same database
	want := contents(t, repo, m.ID)
	sameImages(t, contents(t, repo, again.ID), want)
	users := 0
	for _, image := range want {
		if strings.HasPrefix(string(image), "block ") {
			users++
		}
	}
	if users != 500 {
		t.Fatalf("%d blocks of ours", users)
	}
}

func wantEntries(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if strings.Join(found, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %v, want %v", dir, found, names)
	}
}

// B32: a restore never destroys what is there.
func TestB32_RestoreRefusesTargets(t *testing.T) {
	dir := t.TempDir()
	db, repoDir := filepath.Join(dir, "db"), filepath.Join(dir, "repo")
	repo, _ := backupOfStore(t, vfs.OS, db, repoDir, 20)
	link := func(name, to string) string {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	mkdir(t, filepath.Join(dir, "full"))
	os.WriteFile(filepath.Join(dir, "full", "precious"), nil, 0o600)
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	mkdir(t, filepath.Join(dir, "odd"))
	mkdir(t, filepath.Join(dir, "odd", "inner"))
	cases := []struct {
		name, target string
		databases    []string
		want         error
	}{
		{"the database", db, nil, ErrTargetIsDatabase},
		{"inside the database", filepath.Join(db, "new"), nil, ErrTargetIsDatabase},
		{"deep inside the database", filepath.Join(db, "log", "new"), nil, ErrTargetIsDatabase},
		{"the database through a link", link("l1", db), nil, ErrTargetIsDatabase},
		{"inside the database through a link", filepath.Join(dir, "l1", "new"), nil, ErrTargetIsDatabase},
		{"what holds the database", dir, nil, ErrTargetNotEmpty},
		{"the repository", repoDir, nil, ErrTargetIsRepository},
		{"inside the repository", filepath.Join(repoDir, "new"), nil, ErrTargetIsRepository},
		{"inside the repository through a link", filepath.Join(link("l2", repoDir), "new"), nil, ErrTargetIsRepository},
		{"inside a named database", filepath.Join(dir, "odd", "new"), []string{filepath.Join(dir, "odd")}, ErrTargetIsDatabase},
		{"a named database through a link", filepath.Join(dir, "odd", "inner"), []string{link("l3", filepath.Join(dir, "odd"))}, ErrTargetIsDatabase},
		{"a full directory", filepath.Join(dir, "full"), nil, ErrTargetNotEmpty},
		{"a file", filepath.Join(dir, "file"), nil, ErrTargetNotEmpty},
		{"a link to a file", link("l4", filepath.Join(dir, "file")), nil, ErrTargetNotEmpty},
		{"a link to nowhere", link("l5", filepath.Join(dir, "nowhere")), nil, nil},
		{"without a parent", filepath.Join(dir, "none", "new"), nil, os.ErrNotExist},
	}
	before := tree(t, dir)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Restore(t.Context(), repo, RestoreTarget{}, c.target, RestoreOptions{Databases: c.databases})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatal(err)
			}
			if after := tree(t, dir); after != before {
				t.Fatalf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// tree lists all names and sizes below dir.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var s strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&s, path, info.Mode(), info.Size())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func TestRestoreIntoEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	repo, _ := backupOfStore(t, vfs.OS, filepath.Join(dir, "db"), filepath.Join(dir, "repo"), 20)
	mkdir(t, filepath.Join(dir, "empty"))
	if err := os.Symlink("empty", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	res, err := Restore(t.Context(), repo, RestoreTarget{}, filepath.Join(dir, "link"), RestoreOptions{})
	if err != nil || filepath.Base(res.Target) != "empty" {
		t.Fatalf("%+v, %v", res, err)
	}
	wantEntries(t, dir, "db", "empty", "link", "repo")
	if _, err := os.Stat(filepath.Join(dir, "empty", "data")); err != nil {
		t.Fatal(err)
	}
}

// What a killed restore left is removed by the next; a living one is left alone.
func TestRestoreTakesTheDead(t *testing.T) {
	dir := t.TempDir()
	repo, m := backupOfStore(t, vfs.OS, filepath.Join(dir, "db"), filepath.Join(dir, "repo"), 20)
	target := filepath.Join(dir, "new")
	p, err := findPlace(vfs.OS, target)
	if err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(dir, ".new.restoring-"+m.ID.String()) // as programs before this one named it
	half := p.building(m.ID, Digest{1}).dir
	for _, name := range []string{older, half, half + "/log", p.building(newBackupID(7), Digest{2}).dir} {
		mkdir(t, name)
	}
	os.WriteFile(filepath.Join(half, "data"), []byte("half"), 0o600)
	mkdir(t, filepath.Join(dir, ".new.restoring-elsewhere")) // not one of ours

	lock, err := lockPlace(vfs.OS, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), repo, RestoreTarget{}, target, RestoreOptions{}); !errors.Is(err, ErrRestoreRunning) {
		t.Fatal(err)
	}
	lock.release()
	if _, err := Restore(t.Context(), repo, RestoreTarget{}, target, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, dir, ".new.restoring-elsewhere", "db", "new", "repo")
}

func TestNewestDamagedIsNotPassedOver(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), newRepo(t)
	first := mustBackup(t, src, repo, BackupOptions{}).ID
	second := mustBackup(t, src, repo, BackupOptions{}).ID
	remove(t, repo, objectName(second, kindBlocks, 1))
	if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); !errors.Is(err, ErrBackupDamaged) {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), repo, first, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), repo, newBackupID(9), VerifyOptions{}); !errors.Is(err, ErrBackupNotFound) {
		t.Fatal(err)
	}
}
