package livebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// durableChain is chainOfThree on a disk of which everything is durable, with the
// database closed.
func durableChain(t *testing.T, seed uint64) (*simfs.FS, *history, []BackupID) {
	t.Helper()
	h, _, ids := chainOfThree(t, seed)
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	return h.fs.(*simfs.FS).Crash(nil, simfs.DropAll), h, ids
}

func openAt(t *testing.T, fs vfs.FS, dir string) *Repository {
	t.Helper()
	repo, err := OpenRepository(t.Context(), dir, RepositoryOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// dataOf reads the data file of a database but for the superblocks, which name a
// timeline of its own.
func dataOf(t *testing.T, fs vfs.FS, dir string) []byte {
	t.Helper()
	f, err := fs.OpenFile(dir+"/data", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	if err := readFull(f, data, 0); err != nil {
		t.Fatal(err)
	}
	return data[2*4096:]
}

// The restore of a chain that is killed, or loses its power, at any event leaves
// nothing at the target or the whole database; started again it comes to the same
// bytes, and leaves nothing else (L12, T44).
func TestL12_RestoreOfAChainResumesAfterEveryEvent(t *testing.T) {
	base, h, ids := durableChain(t, 4)
	whole := base.Crash(nil, simfs.KeepAll)
	if _, err := Restore(t.Context(), openAt(t, whole, "/d/repo"), RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: whole}); err != nil {
		t.Fatal(err)
	}
	want, wantTexts := dataOf(t, whole, "/d/new"), h.kept[block.LSN(3)]
	step := 2
	if testing.Short() {
		step = 5
	}
	for k := 0; ; k += step {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.CutAfter(k)
		_, err := Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs})
		cut, after := fs.IsCut(), []*simfs.FS{}
		for seed := range uint64(3) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[seed]
			after = append(after, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode))
		}
		after = append(after, fs.Kill())
		for i, fs := range after {
			when := fmt.Sprintf("event %d, state %d", k, i)
			_, lookErr := fs.Lstat("/d/new")
			if err == nil && lookErr != nil {
				t.Fatalf("%s: acknowledged, and gone", when)
			}
			if lookErr != nil && i == 0 && k%3 == 0 { // killed twice
				repo := openAt(t, fs, "/d/repo")
				fs.CutAfter(k / 2)
				Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs})
				fs = fs.Kill()
				_, lookErr = fs.Lstat("/d/new")
			}
			if lookErr != nil {
				if _, err := Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs}); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
			}
			if !bytes.Equal(dataOf(t, fs, "/d/new"), want) {
				t.Fatalf("%s: other bytes", when)
			}
			if entries, err := fs.ReadDir("/d"); err != nil || len(entries) != 3 && lookErr != nil {
				t.Fatalf("%s: left %v, %v", when, entries, err)
			}
			if entries, err := fs.ReadDir("/d/new"); err != nil || len(entries) != 3 {
				t.Fatalf("%s: the database is %v, %v", when, entries, err)
			}
			if k%10 == 0 {
				wantDatabase(t, fs, "/d/new", wantTexts)
			}
		}
		if !cut {
			return
		}
	}
}

// blocksRead counts the bytes that are read of objects of blocks, and what was
// written to the data file.
func blocksRead(fs *simfs.FS) (read, written *int64) {
	read, written = new(int64), new(int64)
	fs.Trace(func(e simfs.Event) {
		switch {
		case e.Op == simfs.OpRead && strings.Contains(e.File, ".blocks-"):
			*read += e.Len
		case e.Op == simfs.OpWrite && strings.HasSuffix(e.File, "/data"):
			*written += e.Len
		}
	})
	return read, written
}

// What was proven before is not read again, and what is in place not written; what
// has rotted meanwhile is.
func TestResumeReadsOnlyWhatIsMissing(t *testing.T) {
	base, _, ids := durableChain(t, 5)
	run := func(fs *simfs.FS, ctx context.Context, progress func(Progress)) (read, written int64, err error) {
		repo := openAt(t, fs, "/d/repo")
		r, w := blocksRead(fs)
		_, err = Restore(ctx, repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs, Progress: progress})
		fs.Trace(nil)
		return *r, *w, err
	}
	fs := base.Crash(nil, simfs.KeepAll)
	all, written, err := run(fs, t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := dataOf(t, fs, "/d/new")
	for _, rot := range []bool{false, true} {
		fs := base.Crash(nil, simfs.KeepAll)
		fs.Fail(simfs.Fault{Ops: simfs.OpSync, File: "data", Skip: 1}) // behind the last block
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := run(fs, ctx, func(p Progress) {
			if p.Blocks == p.BlocksTotal {
				cancel()
			}
		})
		if err == nil || ctx.Err() == nil {
			t.Fatalf("the restore was to fail: %v", err)
		}
		fs = fs.Kill()
		if rot {
			dir := buildingIn(t, fs, "/d")
			f, err := fs.OpenFile(dir+"/data", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			for id := range int64(20) {
				f.WriteAt([]byte("rot"), (40+3*id)*4096+99)
			}
			f.Close()
		}
		again, rewritten, err := run(fs, t.Context(), nil)
		if err != nil || !bytes.Equal(dataOf(t, fs, "/d/new"), want) {
			t.Fatalf("rot %v: %v", rot, err)
		}
		t.Logf("rot %v: read %d of %d bytes, wrote %d of %d", rot, again, all, rewritten, written)
		if again > all*3/4 || rewritten > written*3/4 || rot && rewritten < 20*4096 {
			t.Fatalf("rot %v: read %d of %d bytes, wrote %d of %d", rot, again, all, rewritten, written)
		}
	}
}

// What is built is built: nothing of the repository's blocks is read again, and
// nothing written, if only the name was missing.
func TestResumeOfWhatIsBuilt(t *testing.T) {
	base, _, ids := durableChain(t, 8)
	whole := base.Crash(nil, simfs.KeepAll)
	if _, err := Restore(t.Context(), openAt(t, whole, "/d/repo"), RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: whole}); err != nil {
		t.Fatal(err)
	}
	built := 0
	for back := range 30 {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.CutAfter(whole.Events() - back)
		Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs})
		fs = fs.Kill()
		if _, err := fs.Lstat("/d/new"); err == nil {
			continue
		}
		b := buildingOf(t, fs, buildingIn(t, fs, "/d"))
		if b.dir == "" {
			continue // the journal goes just before the name comes
		}
		j, err := b.openJournal()
		if err != nil {
			t.Fatal(err)
		}
		j.close()
		if !j.built() {
			continue
		}
		built++
		read, written := blocksRead(fs)
		if _, err := Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs}); err != nil {
			t.Fatal(err)
		}
		if *read > 0 || *written > 0 {
			t.Fatalf("read %d bytes of blocks, wrote %d", *read, *written)
		}
		if !bytes.Equal(dataOf(t, fs, "/d/new"), dataOf(t, whole, "/d/new")) {
			t.Fatal("other bytes")
		}
	}
	if built == 0 {
		t.Fatal("no cut between building and renaming")
	}
}

// buildingOf is what is being built in dir, by the plan that its journal names; zero if
// it has none.
func buildingOf(t *testing.T, fs vfs.FS, dir string) building {
	t.Helper()
	b := building{fs: fs, dir: dir}
	f, err := fs.OpenFile(b.journalName(), os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return building{}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := readFull(f, b.plan[:], 16); err != nil {
		t.Fatal(err)
	}
	return b
}

// buildingIn finds what a restore has left beside its target.
func buildingIn(t *testing.T, fs vfs.FS, dir string) string {
	t.Helper()
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.Contains(e.Name(), ".restoring-") {
			return dir + "/" + e.Name()
		}
	}
	t.Fatalf("nothing was left in %v", entries)
	return ""
}

// A restore that is cancelled stays, for the same one only; damage leaves nothing.
func TestCancelledRestoreStays(t *testing.T) {
	base, h, ids := durableChain(t, 6)
	fs := base.Crash(nil, simfs.KeepAll)
	repo := openAt(t, fs, "/d/repo")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Restore(ctx, repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs, Progress: func(Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	buildingIn(t, fs, "/d")
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: ids[1]}, "/d/new", RestoreOptions{FS: fs}); err != nil { // another one
		t.Fatal(err)
	}
	if entries, err := fs.ReadDir("/d"); err != nil || len(entries) != 3 {
		t.Fatalf("left %v, %v", entries, err)
	}
	wantDatabase(t, fs, "/d/new", h.kept[2])

	fs = base.Crash(nil, simfs.KeepAll)
	repo = openAt(t, fs, "/d/repo")
	ctx, cancel = context.WithCancel(t.Context())
	if _, err = Restore(ctx, repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs, Progress: func(Progress) { cancel() }}); err == nil {
		t.Fatal("not cancelled")
	}
	name := objectName(ids[0], kindBlocks, 2)
	data := objectsOf(t, repo)[name]
	rewrite(t, repo, name, flipped(data, len(data)/2))
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs}); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
	if entries, err := fs.ReadDir("/d"); err != nil || len(entries) != 2 {
		t.Fatalf("left %v, %v", entries, err)
	}
}

// What is there is not enough space twice: what a killed restore has reserved is its
// own (R7).
func TestResumeOnAFullDisk(t *testing.T) {
	base, _, ids := durableChain(t, 7)
	fs := base.Crash(nil, simfs.KeepAll)
	repo := openAt(t, fs, "/d/repo")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Restore(ctx, repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs, Progress: func(Progress) { cancel() }}); err == nil {
		t.Fatal("not cancelled")
	}
	fs.SetCapacity(fs.UsedBytes() + 6<<20) // the log and second copies
	m, _, err := repo.manifest(t.Context(), ids[2])
	if err != nil {
		t.Fatal(err)
	}
	fs.SetCapacity(fs.UsedBytes() + int64(m.HighWater)*4096/2)
	if free, err := fs.FreeBytes("/d"); err != nil || free >= int64(m.HighWater)*4096 {
		t.Fatalf("%d bytes are free, %v", free, err)
	}
	_, err = Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: fs})
	if err != nil && strings.Contains(err.Error(), "it needs") {
		t.Fatal(err) // refused beforehand
	}
}

// A journal is read to its first entry that is not whole, and only by its own plan.
func TestJournal(t *testing.T) {
	fs := simfs.New()
	if err := fs.Mkdir("/b", dirMode); err != nil {
		t.Fatal(err)
	}
	b := building{fs, "/b", Digest{1}}
	open := func(b building) *journal {
		t.Helper()
		j, err := b.openJournal()
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open(b)
	for i := range uint32(5) {
		if err := j.add(i, i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.setBuilt(); err != nil {
		t.Fatal(err)
	}
	j.close()
	f, err := fs.OpenFile(b.journalName(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	data := make([]byte, size)
	if err := readFull(f, data, 0); err != nil {
		t.Fatal(err)
	}
	for at := range data {
		spoiled := flipped(data, at)
		f.WriteAt(spoiled, 0)
		f.Truncate(size)
		j, whole := open(b), (at-journalHeaderSize)/journalEntrySize
		for i := range uint32(5) {
			if j.has(i, i+1) != (at >= journalHeaderSize && int(i) < whole) {
				t.Fatalf("byte %d: entry %d", at, i)
			}
		}
		if j.built() || j.has(1, 1) {
			t.Fatalf("byte %d: built", at)
		}
		if err := j.add(9, 9); err != nil {
			t.Fatal(err)
		}
		j.close()
		if j := open(b); !j.has(9, 9) {
			t.Fatalf("byte %d: not gone on with", at)
		}
	}
	f.WriteAt(data, 0)
	if j := open(b); !j.built() {
		t.Fatal("not built")
	}
	other := b
	other.plan[0]++
	if j := open(other); j.built() || j.has(1, 2) {
		t.Fatal("the journal of another plan was believed")
	}
}

// Names of what is built are told from others.
func TestBuildingNames(t *testing.T) {
	p := place{target: "/d/new", parent: "/d"}
	id := BackupID{12, 0x8f3a9c21}
	b := p.building(id, Digest{0xab})
	for name, want := range map[string]bool{
		strings.TrimPrefix(b.dir, "/d/"):                               true,
		".new.restoring-0000000012-8f3a9c21":                           true, // of programs before this one
		".new.restoring-0000000012-8f3a9c21-ab0000000000000":           false,
		".new.restoring-0000000012-8f3a9c21-ab0000000000000g":          false,
		".new.restoring-elsewhere":                                     false,
		".new.restoring":                                               false,
		".other.restoring-0000000012-8f3a9c21-ab00000000000000":        false,
		".new.restoring-0000000012-8f3a9c21-ab00000000000000.journal":  false,
		".new.restoring-0000000012-8f3a9c21-ab00000000000000-00000000": false,
	} {
		if p.isBuilding(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
