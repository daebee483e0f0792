package livebackup

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// simRepo makes a repository with one backup on a simulated disk, everything
// of it durable.
func simRepo(t *testing.T, src *fakeSource) (*simfs.FS, BackupID) {
	t.Helper()
	fs := simfs.New()
	repo := openRepo(t, fs, "/repo")
	id := mustBackup(t, src, repo, sweepOptions).ID
	return fs.Crash(nil, simfs.DropAll), id // L12: what was acknowledged needs nothing more
}

// sweepOptions make several objects of each kind out of few blocks.
var sweepOptions = BackupOptions{GroupBytes: 8 << 10, ObjectBytes: 20 << 10, Compression: CompressionNone}

func names(t *testing.T, fs *simfs.FS) []string {
	t.Helper()
	entries, err := fs.ReadDir("/repo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// wantWhole proves that every backup listed is whole, that those wanted are
// listed, and that the repository goes on working.
func wantWhole(t *testing.T, fs *simfs.FS, src Source, want ...BackupID) {
	t.Helper()
	repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[BackupID]bool{}
	for _, e := range mustList(t, repo) {
		if _, err := Verify(t.Context(), repo, e.ID, VerifyOptions{NoRecord: true}); err != nil {
			t.Fatalf("%v is listed as %s: %v", e.ID, e.State(), err)
		}
		listed[e.ID] = true
	}
	for _, id := range want {
		if !listed[id] {
			t.Fatalf("%v is not listed", id)
		}
	}
	mustBackup(t, src, repo, sweepOptions)
	for _, name := range names(t, fs) {
		id, k, _, temp, ok := parseObjectName(name)
		if temp || ok && (k == kindRun || !listed[id] && len(mustList(t, repo)) == len(listed)) {
			t.Fatalf("%s was left", name)
		}
	}
}

// L12 under a power cut at every event of a backup, with what the disk may make
// of it.
func TestL12_PowerCutAtEveryEvent(t *testing.T) {
	src := newFake(1, 6, 4<<10)
	base, first := simRepo(t, src)
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fs.CutAfter(k)
		res, err := Backup(t.Context(), src, repo, sweepOptions)
		want := []BackupID{first}
		if err == nil {
			want = append(want, res.Manifest.ID)
		}
		for seed := range uint64(6) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[min(seed, 2)]
			t.Run(fmt.Sprintf("event %d, state %d", k, seed), func(t *testing.T) {
				wantWhole(t, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode), src, want...)
			})
		}
		if !fs.IsCut() {
			if k < 30 {
				t.Fatalf("a backup of %d events?", k)
			}
			return
		}
	}
}

// L12 under a power cut at every event of an incremental: it is whole, with its base,
// or not there.
func TestL12_PowerCutAtEveryEventOfAnIncremental(t *testing.T) {
	h := newHistory(t, rand.New(rand.NewPCG(1, 1)), simfs.New(), "/db")
	h.commit(60, 0, 0)
	fs := simfs.New()
	repo := openRepo(t, fs, "/repo")
	src := NewSource(h.store)
	o := sweepOptions
	first := mustBackup(t, src, repo, o).ID
	h.commit(2, 3, 2)
	second := mustBackup(t, src, repo, o).ID
	h.commit(2, 3, 2)
	base := fs.Crash(nil, simfs.DropAll)
	for k := 0; ; k += 1 + k/40 {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/repo")
		fs.CutAfter(k)
		res, err := Backup(t.Context(), src, repo, o)
		want := []BackupID{first, second}
		if err == nil {
			want = append(want, res.Manifest.ID)
			if res.Manifest.Base != second {
				t.Fatalf("%+v", res.Manifest)
			}
		}
		for seed := range uint64(3) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[seed]
			wantWhole(t, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode), src, want...)
		}
		if !fs.IsCut() {
			if k < 30 {
				t.Fatalf("a backup of %d events?", k)
			}
			return
		}
	}
}

// L12 under a failure and then a power cut while it is cleaned up: a manifest
// must not come back to a list after its objects are gone.
func TestL12_PowerCutAfterFailure(t *testing.T) {
	src := newFake(1, 2, 4<<10)
	base, first := simRepo(t, src)
	publish := simfs.Fault{Ops: simfs.OpSyncDir, Late: true}
	readBack := simfs.Fault{Ops: simfs.OpRead, File: "0000000002-*.manifest"}
	for _, fault := range []simfs.Fault{publish, readBack} {
		for cut := 20; cut < 50; cut++ {
			for skip := range 4 {
				fs := base.Crash(nil, simfs.KeepAll)
				repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
				if err != nil {
					t.Fatal(err)
				}
				fault.Skip = skip
				fs.Fail(fault)
				fs.CutAfter(cut)
				if _, err := Backup(t.Context(), src, repo, BackupOptions{}); err == nil {
					continue
				}
				for seed := range uint64(5) {
					after := fs.Crash(rand.New(rand.NewPCG(seed, uint64(cut))), simfs.Random)
					wantWhole(t, after, src, first)
				}
			}
		}
	}
}

// Whichever operation fails, once or for ever, before or after it was done:
// there is a backup and it is whole, or there is an error and the repository is
// as it was.
func TestFailureOfEveryOperation(t *testing.T) {
	src := newFake(1, 6, 4<<10)
	base, first := simRepo(t, src)
	before := names(t, base)
	sites := newSiteSweep()
	mustBackup(t, src, openAt(t, sites.learn(base.Crash(nil, simfs.KeepAll)), "/repo"), sweepOptions)
	faults := map[string]simfs.Fault{
		"EIO":             {Ops: everyOp},
		"EIO, then done":  {Late: true},
		"half, ENOSPC":    {Short: true, Err: syscall.ENOSPC},
		"EROFS from then": {Ops: simfs.Events, Err: syscall.EROFS, Sticky: true},
		"sync loses":      {Ops: simfs.OpSync, Sync: simfs.SyncCacheNew},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for k := 0; ; k++ {
				fs := base.Crash(nil, simfs.KeepAll)
				fault.Skip = k
				armed := fs.Fail(fault)
				fs.Trace(sites.swept.Note)
				repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
				var res Result
				if err == nil {
					res, err = Backup(t.Context(), src, repo, sweepOptions)
				}
				fs.Trace(nil)
				armed.Disarm()
				if armed.Seen() <= k {
					break
				}
				want := []BackupID{first}
				switch {
				case err == nil:
					want = append(want, res.Manifest.ID)
				case !fault.Sticky && !fault.Late:
					if now := names(t, fs); !slices.Equal(now, before) {
						t.Fatalf("operation %d: %v\nleft %v\nhad %v", k, err, now, before)
					}
				}
				if fault.Ops == simfs.Events && err != nil && !errors.Is(err, ErrRepositoryWrite) {
					t.Fatalf("operation %d: %v", k, err)
				}
				wantWhole(t, fs.Crash(nil, simfs.DropAll), src, want...)
				wantWhole(t, fs, src, want...)
			}
		})
	}
	sites.again(base, func(fs *simfs.FS) {
		if repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs}); err == nil {
			_, _ = Backup(t.Context(), src, repo, sweepOptions) // for what it leaves see above
		}
	})
	sites.end(t, 30)
}

// T29: a target that fills up says so, and gets its space back.
func TestFullRepositoryIsTyped(t *testing.T) {
	src := newFake(1, 100, 4<<10)
	base, first := simRepo(t, newFake(1, 6, 4<<10))
	for pages := int64(0); ; pages += 3 {
		fs := base.Crash(nil, simfs.KeepAll)
		used := fs.UsedBytes()
		repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fs.SetCapacity(used + pages*4096)
		_, err = Backup(t.Context(), src, repo, BackupOptions{Compression: CompressionNone, GroupBytes: 16 << 10})
		if err == nil {
			if pages < 100 {
				t.Fatalf("400 KiB went into %d pages", pages)
			}
			break
		}
		if !errors.Is(err, ErrRepositoryFull) || !errors.Is(err, ErrRepositoryWrite) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if now := fs.UsedBytes(); now != used {
			t.Fatalf("%d bytes in use, it was %d", now, used)
		}
		fs.SetCapacity(1 << 40)
		wantWhole(t, fs, src, first)
	}
}

// A run that is killed at any event leaves what the next one sweeps.
func TestKilledRunIsSwept(t *testing.T) {
	src := newFake(1, 6, 4<<10)
	base, first := simRepo(t, src)
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fs.CutAfter(k)
		Backup(t.Context(), src, repo, sweepOptions)
		done := !fs.IsCut()
		wantWhole(t, fs.Kill(), src, first)
		if done {
			return
		}
	}
}

// A restore that fails or loses its power leaves nothing at the target, or the
// whole database.
func TestRestorePowerCutAtEveryEvent(t *testing.T) {
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	_, m := backupOfStore(t, fs, "/d/db", "/d/repo", 5)
	base := fs.Crash(nil, simfs.DropAll)
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		repo, err := OpenRepository(t.Context(), "/d/repo", RepositoryOptions{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fs.CutAfter(k)
		_, err = Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs})
		for seed := range uint64(3) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[seed]
			wantRestored(t, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode), err == nil, fmt.Sprintf("event %d, state %d", k, seed))
		}
		if !fs.IsCut() {
			return
		}
	}
}

// wantRestored proves that /d/new is absent (unless must is set) or a whole
// database, and that a restore after that succeeds where it is absent.
func wantRestored(t *testing.T, fs *simfs.FS, must bool, when string) {
	t.Helper()
	if _, err := fs.Lstat("/d/new"); err != nil {
		if must {
			t.Fatalf("%s: acknowledged, and gone", when)
		}
		return
	}
	store, err := mvcc.Open("/d/new", mvcc.Options{FS: fs, MaxRAM: 32 << 20})
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if check, err := store.Check(t.Context(), nil); err != nil || len(check.Problems) > 0 {
		t.Fatalf("%s: %+v, %v", when, check, err)
	}
	if err := store.Close(); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

// Whichever operation of a restore fails, there is no target, and the next
// restore leaves nothing but the target.
func TestFailureOfEveryOperationOfRestore(t *testing.T) {
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	_, m := backupOfStore(t, fs, "/d/db", "/d/repo", 5)
	base := fs.Crash(nil, simfs.DropAll)
	sites := newSiteSweep()
	learned := base.Crash(nil, simfs.KeepAll)
	repo := openAt(t, learned, "/d/repo")
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: sites.learn(learned)}); err != nil {
		t.Fatal(err)
	}
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.Trace(sites.swept.Note)
		armed := fs.Fail(simfs.Fault{Ops: everyOp, Skip: k, Late: k%2 == 1})
		_, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs})
		fs.Trace(nil)
		armed.Disarm()
		if armed.Seen() <= k {
			sites.again(base, func(fs *simfs.FS) {
				_, _ = Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs})
			})
			sites.end(t, 60)
			return
		}
		if err == nil {
			wantRestored(t, fs, true, fmt.Sprintf("operation %d", k))
			continue
		}
		if _, lookErr := fs.Lstat("/d/new"); lookErr == nil {
			t.Fatalf("operation %d: %v, and there is a target", k, err)
		}
		if k%4 != 0 {
			continue // the rest costs most, and differs little
		}
		if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs}); err != nil {
			t.Fatalf("after operation %d failed: %v", k, err)
		}
		if entries, err := fs.ReadDir("/d"); err != nil || len(entries) != 3 {
			t.Fatalf("after operation %d failed: left %v, %v", k, entries, err)
		}
	}
}

// B10: a power cut while a repository is made leaves nothing, or what can be
// made again.
func TestPowerCutWhileRepositoryIsMade(t *testing.T) {
	for k := 0; ; k++ {
		fs := simfs.New()
		fs.CutAfter(k)
		_, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{Create: true, FS: fs})
		for seed := range uint64(8) {
			after := fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), simfs.Random)
			if _, openErr := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: after}); err == nil && openErr != nil {
				t.Fatalf("event %d: made, and then %v", k, openErr)
			}
			mustBackup(t, newFake(1, 3, 4<<10), openRepo(t, after, "/repo"), BackupOptions{})
		}
		if !fs.IsCut() {
			return
		}
	}
}
