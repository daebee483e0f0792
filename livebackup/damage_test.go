package livebackup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// refused reports whether err is one that damage may cause.
func refused(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, ErrNotRepository)
}

// verifyAgain opens the repository and verifies, as a new process would.
func verifyAgain(t *testing.T, repo *Repository, id BackupID) error {
	again, err := OpenRepository(t.Context(), repo.dir, RepositoryOptions{FS: repo.fs})
	if err != nil {
		return err
	}
	_, err = Verify(t.Context(), again, id, VerifyOptions{NoRecord: true})
	return err
}

// objectsOf reads all files of a repository but the registry of timelines and the
// intent of a prune, which no backup needs.
func objectsOf(t *testing.T, repo *Repository) map[string][]byte {
	t.Helper()
	list, err := repo.objects.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	objects := make(map[string][]byte)
	for _, o := range list {
		if _, ok := parseTimelineName(o.Name); ok || o.Name == pruneName {
			continue
		}
		data, err := readSmall(t.Context(), repo.objects, o.Name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Name] = data
	}
	return objects
}

// rewrite changes an object behind the repository's back.
func rewrite(t *testing.T, repo *Repository, name string, data []byte) {
	t.Helper()
	f, err := repo.fs.OpenFile(filepath.Join(repo.dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err == nil {
		_, err = f.WriteAt(data, 0)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rot flips a bit in the middle of an object.
func rot(t *testing.T, repo *Repository, name string) {
	t.Helper()
	data, err := readSmall(t.Context(), repo.objects, name, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	rewrite(t, repo, name, data)
}

func remove(t *testing.T, repo *Repository, name string) {
	t.Helper()
	if err := repo.fs.Remove(filepath.Join(repo.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Every byte of a backup counts: whichever is changed, verify refuses.
func TestEveryFlippedByteIsFound(t *testing.T) {
	for _, compression := range []Compression{CompressionNone, CompressionFastest} {
		src, repo := newFake(1, 3, 4<<10), newRepo(t)
		id := mustBackup(t, src, repo, BackupOptions{Compression: compression, GroupBytes: 8 << 10}).ID
		for name, data := range objectsOf(t, repo) {
			for i := range data {
				if len(data) > 4<<10 && i > 256 && i%31 != 0 {
					continue // block images: all covered by the same checksums
				}
				data[i] ^= 1 << (i % 8)
				rewrite(t, repo, name, data)
				if err := verifyAgain(t, repo, id); !refused(err) {
					t.Fatalf("%s, byte %d: %v", name, i, err)
				}
				data[i] ^= 1 << (i % 8)
			}
			rewrite(t, repo, name, data)
		}
		if err := verifyAgain(t, repo, id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	src, repo := newFake(1, 3, 4<<10), newRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	for name, data := range objectsOf(t, repo) {
		_, k, _, _, _ := parseObjectName(name)
		for n := 0; n < len(data); n += max(1, len(data)/200) {
			rewrite(t, repo, name, data[:n])
			if err := verifyAgain(t, repo, id); !refused(err) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
			if k != "" && mustList(t, repo)[0].State() != StateDamaged {
				t.Fatalf("%s cut to %d bytes is not listed as damaged", name, n)
			}
		}
		rewrite(t, repo, name, append(data[:len(data):len(data)], 0))
		if err := verifyAgain(t, repo, id); !refused(err) {
			t.Fatalf("%s with a byte more: %v", name, err)
		}
		remove(t, repo, name)
		if err := verifyAgain(t, repo, id); err == nil {
			t.Fatalf("%s missing: no error", name)
		}
		rewrite(t, repo, name, data)
	}
}

// Objects of the same size and kind in each other's place are found.
func TestSwappedObjectsAreFound(t *testing.T) {
	src, repo := newFake(1, 40, 4<<10), newRepo(t)
	o := BackupOptions{Compression: CompressionNone, ObjectBytes: 1, GroupBytes: 16 << 10}
	a, b := mustBackup(t, src, repo, o), mustBackup(t, src, repo, o)
	objects := objectsOf(t, repo)
	swaps := [][2]string{
		{objectName(a.ID, kindBlocks, 1), objectName(a.ID, kindBlocks, 2)},
		{objectName(a.ID, kindBlocks, 1), objectName(b.ID, kindBlocks, 1)},
		{objectName(a.ID, kindIndex, 1), objectName(b.ID, kindIndex, 1)},
		{objectName(a.ID, kindManifest, 0), objectName(b.ID, kindManifest, 0)},
	}
	for _, s := range swaps {
		rewrite(t, repo, s[0], objects[s[1]])
		if err := verifyAgain(t, repo, a.ID); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%v: %v", s, err)
		}
		rewrite(t, repo, s[0], objects[s[0]])
	}
	if err := verifyAgain(t, repo, a.ID); err != nil {
		t.Fatal(err)
	}
}

// A backup of one repository put into another is not one of its backups.
func TestForeignObjectsAreFound(t *testing.T) {
	src, here, there := newFake(1, 20, 4<<10), newRepo(t), newRepo(t)
	mustBackup(t, src, here, BackupOptions{})
	id := mustBackup(t, src, there, BackupOptions{}).ID
	for name, data := range objectsOf(t, there) {
		if name != headerName && name != bindingName {
			rewrite(t, here, name, data)
		}
	}
	if err := verifyAgain(t, here, id); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
}

// Damage found by verify is remembered and shown, whatever an older record
// says; repair and verify again, and the backup is proven again.
func TestFoundDamageIsListed(t *testing.T) {
	src, repo := newFake(1, 20, 4<<10), newRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	name := objectName(id, kindBlocks, 1)
	data := objectsOf(t, repo)[name]
	states := []struct {
		bytes []byte
		want  State
	}{{data, StateProven}, {flipped(data, len(data)/2), StateDamaged}, {data, StateProven}}
	for i, s := range states {
		rewrite(t, repo, name, s.bytes)
		_, err := Verify(t.Context(), repo, id, VerifyOptions{})
		if (s.want == StateDamaged) != errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("%d: %v", i, err)
		}
		if e := mustList(t, repo)[0]; e.State() != s.want {
			t.Fatalf("%d: listed as %s: %v", i, e.State(), e.Damage)
		}
	}
}

func flipped(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 4
	return data
}

// A damaged backup is restored nowhere: no target, no leftovers.
func TestDamagedBackupLeavesNoTarget(t *testing.T) {
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	repo, m := backupOfStore(t, fs, "/d/db", "/d/repo", 50)
	objects := objectsOf(t, repo)
	for _, name := range []string{objectName(m.ID, kindBlocks, 1), objectName(m.ID, kindIndex, 1), objectName(m.ID, kindManifest, 0)} {
		data := objects[name]
		for at := range 40 {
			rewrite(t, repo, name, flipped(data, len(data)*at/40))
			_, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs})
			if !refused(err) {
				t.Fatalf("%s: %v", name, err)
			}
			if entries, err := fs.ReadDir("/d"); err != nil || len(entries) != 2 {
				t.Fatalf("%s: left %v, %v", name, entries, err)
			}
		}
		rewrite(t, repo, name, data)
	}
}

// TestIndex_SectionLargerThanItsObject: what a section's header says is held against the
// object that it is in before there is memory for it.
func TestIndex_SectionLargerThanItsObject(t *testing.T) {
	head := sectionHeader{groups: sectionGroupsMax, runs: sectionRunsMax, lowest: 1, highest: 1}.encode()
	object := append(encodeObjectHeader(magicIndex, block.DatabaseID{}, BackupID{1, 1}, 1), head[:]...)
	r := openSections(object)
	defer r.in.close()
	if _, err := r.read(t.Context()); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if cap(r.buf) > 0 {
		t.Errorf("%d bytes were taken for a section that is not there", cap(r.buf))
	}
}
