package livebackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

func TestBackupRoundTrip(t *testing.T) {
	for _, blockSize := range []int{4 << 10, 16 << 10, 64 << 10} {
		for _, compression := range []Compression{CompressionNone, CompressionFastest} {
			for _, n := range []int{2, 3, 7, 300} {
				t.Run(fmt.Sprintf("%d-%s-%d", blockSize, compression, n), func(t *testing.T) {
					src, repo := newFake(7, n, blockSize), newRepo(t)
					src.batch = 3
					m := mustBackup(t, src, repo, BackupOptions{
						Owner: "test", Compression: compression, GroupBytes: 256 << 10, ObjectBytes: 1 << 20,
					})
					if m.Blocks != uint64(n) || m.LSN != src.info.LSN || m.Owner != "test" {
						t.Fatalf("manifest is %+v", m)
					}
					sameImages(t, contents(t, repo, m.ID), src.images)
					if p, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); err != nil || !p.OK {
						t.Fatalf("verify: %+v, %v", p, err)
					}
					if src.openSessions() != 0 {
						t.Fatal("session left open")
					}
				})
			}
		}
	}
}

// The index holds no more than a section in memory, whatever the order.
func TestIndexOfManySections(t *testing.T) {
	src, repo := newFake(3, 3000, 4<<10), newRepo(t)
	m := mustBackup(t, src, repo, BackupOptions{GroupBytes: 1, ObjectBytes: 1 << 20})
	if m.Groups != 3000 {
		t.Fatalf("%d groups", m.Groups)
	}
	sameImages(t, contents(t, repo, m.ID), src.images)
}

func TestListOrdersBySequence(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), newRepo(t)
	var want []BackupID
	for range 3 {
		want = append(want, mustBackup(t, src, repo, BackupOptions{}).ID)
		src.info.LSN++
	}
	list := mustList(t, repo)
	for i, e := range list {
		if e.ID != want[i] || e.ID.Sequence != uint64(i+1) || e.State() != StateComplete {
			t.Errorf("entry %d is %v, %s", i, e.ID, e.State())
		}
	}
	if len(list) != len(want) {
		t.Fatalf("%d entries", len(list))
	}
	if m, err := repo.chain(t.Context(), BackupID{}); err != nil || m[0].ID != want[2] {
		t.Fatalf("newest is %v, %v", m, err)
	}
}

func TestVerifyRecordsProof(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), newRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	if _, err := Verify(t.Context(), repo, id, VerifyOptions{NoRecord: true}); err != nil {
		t.Fatal(err)
	}
	if e := mustList(t, repo)[0]; e.State() != StateComplete {
		t.Fatalf("state is %s", e.State())
	}
	for range 2 {
		if _, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	e := mustList(t, repo)[0]
	if e.State() != StateProven || e.Proof.Blocks != 20 {
		t.Fatalf("state is %s, proof %+v", e.State(), e.Proof)
	}
}

func TestForeignDatabaseRefused(t *testing.T) {
	repo := newRepo(t)
	mustBackup(t, newFake(1, 20, 4<<10), repo, BackupOptions{})
	_, err := Backup(t.Context(), newFake(2, 20, 4<<10), repo, BackupOptions{})
	if !errors.Is(err, ErrForeignDatabase) {
		t.Fatal(err)
	}
	if n := len(mustList(t, repo)); n != 1 {
		t.Fatalf("%d backups", n)
	}
}

// A database that was rolled back must not push on (R6, R18).
func TestR18_RepositoryAheadRefused(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), newRepo(t)
	mustBackup(t, src, repo, BackupOptions{})
	src.info.LSN--
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, ErrRepositoryAhead) {
		t.Fatal(err)
	}
	src.info.History = []block.Fork{{Timeline: src.info.Timeline, LSN: 99}}
	src.info.Timeline = block.TimelineID{9} // forked: LSNs of the other timeline say nothing
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
}

// What a source hands out is proven when it comes, not when it is restored.
func TestBackupRefusesWrongBlocks(t *testing.T) {
	cases := map[string]func(s *fakeSource){
		"flipped":    func(s *fakeSource) { s.images[s.order[5]][77] ^= 1 },
		"other ID":   func(s *fakeSource) { s.images[s.order[5]] = s.images[s.order[6]] },
		"twice":      func(s *fakeSource) { s.order[5] = s.order[6] },
		"missing":    func(s *fakeSource) { s.order = s.order[1:] },
		"above S":    func(s *fakeSource) { s.info.LSN = 1 },
		"behind HWM": func(s *fakeSource) { s.info.HighWater-- },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			src, repo := newFake(1, 20, 4<<10), newRepo(t)
			src.info.HighWater = 40
			if name == "behind HWM" {
				src.info.HighWater = max(20, src.order[0], src.order[19])
			}
			spoil(src)
			_, err := Backup(t.Context(), src, repo, BackupOptions{})
			if err == nil {
				t.Fatal("no error")
			}
			if name != "missing" && !errors.Is(err, block.ErrCorrupt) {
				t.Fatal(err)
			}
			wantOnly(t, repo, headerName, bindingName, timelineName(1), pruneName)
		})
	}
}

func TestCancelledBackupLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	src, repo := newFake(1, 200, 4<<10), newRepo(t)
	src.batch = 1
	src.onNext = func(n int) error {
		if n == 150 {
			cancel()
		}
		return nil
	}
	_, err := Backup(ctx, src, repo, BackupOptions{GroupBytes: 8 << 10, ObjectBytes: 16 << 10})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantOnly(t, repo, headerName, bindingName, timelineName(1), pruneName)
	if src.openSessions() != 0 {
		t.Fatal("session left open")
	}
}

// wantOnly checks that the repository holds exactly these objects.
func wantOnly(t *testing.T, repo *Repository, names ...string) {
	t.Helper()
	entries, err := repo.fs.ReadDir(repo.dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Name()] = true
	}
	for _, n := range names {
		if !found[n] {
			t.Errorf("%s is missing", n)
		}
		delete(found, n)
	}
	for n := range found {
		t.Errorf("%s was left", n)
	}
}

func TestRepositoryIsPrivate(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), realRepo(t)
	mustBackup(t, src, repo, BackupOptions{})
	if info, err := os.Stat(repo.dir); err != nil || info.Mode().Perm() != dirMode {
		t.Fatalf("directory has mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(repo.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != fileMode {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestOpenRepositoryRefuses(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, create bool) error {
		_, err := OpenRepository(t.Context(), filepath.Join(dir, name), RepositoryOptions{Create: create})
		return err
	}
	if err := open("none", false); !errors.Is(err, ErrRepositoryNotFound) {
		t.Error(err)
	}
	os.Mkdir(filepath.Join(dir, "empty"), 0o700)
	if err := open("empty", false); !errors.Is(err, ErrNotRepository) {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	if err := open("file", true); !errors.Is(err, ErrNotRepository) {
		t.Error(err)
	}
	os.Mkdir(filepath.Join(dir, "holiday"), 0o700)
	os.WriteFile(filepath.Join(dir, "holiday", "IMG_001.jpg"), nil, 0o600)
	if err := open("holiday", true); !errors.Is(err, ErrNotRepository) {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(dir, "empty", "repository.0badcafe.tmp"), nil, 0o600) // a maker was killed
	if err := open("empty", true); err != nil {
		t.Error(err)
	}
	os.Mkdir(filepath.Join(dir, "other"), 0o700)
	os.WriteFile(filepath.Join(dir, "other", "repository"), []byte("something of somebody else's"), 0o600)
	if err := open("other", true); !errors.Is(err, ErrNotRepository) {
		t.Error(err)
	}
}

// A run that was killed leaves objects that nobody lists and the next run takes.
func TestSweepTakesTheDead(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), realRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	leave := func(name string) { rewrite(t, repo, name, []byte("x")) }
	dead := newBackupID(2)
	leave(objectName(dead, kindRun, 0))
	leave(objectName(dead, kindBlocks, 1))
	leave(objectName(dead, kindBlocks, 2) + ".0badcafe.tmp")
	leave(objectName(newBackupID(3), kindBlocks, 1)) // the claim's name was lost in a power cut
	leave(objectName(id, kindProof, 1) + ".0badcafe.tmp")
	leave("database.12345678.tmp")

	living := newBackupID(4)
	claim, err := repo.objects.Claim(t.Context(), objectName(living, kindRun, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	leave(objectName(living, kindBlocks, 1))
	if n, err := Sweep(t.Context(), repo); err != nil || n != 5 {
		t.Fatalf("%d, %v", n, err)
	}
	kept := []string{headerName, bindingName, timelineName(1), pruneName, objectName(id, kindManifest, 0), objectName(id, kindBlocks, 1), objectName(id, kindIndex, 1)}
	wantOnly(t, repo, append(kept, objectName(living, kindRun, 0), objectName(living, kindBlocks, 1))...)
	claim.Close()
	if _, err := Sweep(t.Context(), repo); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, repo, kept...)
}
