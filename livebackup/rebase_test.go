package livebackup

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// partials counts the records of runs that were cut off.
func partials(t *testing.T, repo *Repository) (n int) {
	t.Helper()
	list, err := repo.objects.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if strings.Contains(o.Name, "."+string(kindPartial)) {
			n++
		}
	}
	return n
}

// rebaseOptions record a run behind each object.
var rebaseOptions = BackupOptions{ObjectBytes: 16 << 10, GroupBytes: 32 << 10, Compression: CompressionNone, resumeEvery: 1}

// cutBackup makes a backup that is cancelled at Next number at, while the database
// changes, and returns how many blocks it says to leave.
func (h *history) cutBackup(repo *Repository, at int, o BackupOptions) (uint64, error) {
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	res, err := Backup(ctx, &busySource{Source: NewSource(h.store), on: func(call int) {
		h.churn(20)
		if call == at {
			cancel()
		}
	}}, repo, o)
	return res.Kept, err
}

// awaitRecord returns when a record of a run is there: it is written beside the reading.
func awaitRecord(t *testing.T, repo *Repository) {
	for partials(t, repo) == 0 && t.Context().Err() == nil {
		runtime.Gosched()
	}
}

// mustCut makes a full backup that is cancelled at Next number 6, when a record of it is
// there.
func (h *history) mustCut(repo *Repository) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	o := rebaseOptions
	o.Type = TypeFull
	_, err := Backup(ctx, &busySource{Source: NewSource(h.store), on: func(call int) {
		h.churn(20)
		if call == 6 {
			awaitRecord(h.t, repo)
			cancel()
		}
	}}, repo, o)
	if !errors.Is(err, context.Canceled) || partials(h.t, repo) == 0 {
		h.t.Fatalf("%d records, %v", partials(h.t, repo), err)
	}
}

// TestRebase_CutRunsGoOn cancels backups, full and incremental ones, again and again at
// random moments, while blocks are changed, made and freed; the next one takes over what
// is there, and is exactly the database as of its own snapshot.
func TestRebase_CutRunsGoOn(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	gone := 0
	for range 2 {
		fs := simfs.New()
		h := newHistory(t, rng, fs, "/db")
		for range 10 {
			h.commit(60, 0, 0)
		}
		repo := openRepo(t, fs, "/repo")
		o := rebaseOptions
		for _, kind := range []BackupType{TypeFull, TypeIncremental} {
			o.Type = kind
			var kept uint64
			for n := range 1 + rng.IntN(3) {
				before := kept
				var err error
				if kept, err = h.cutBackup(repo, 3+2*n+rng.IntN(4), o); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if kept < before {
					t.Fatalf("%d blocks were kept, then %d", before, kept)
				}
				h.churn(rng.IntN(100))
			}
			taken := partials(t, repo)
			if taken > 2 || (taken == 0) != (kept == 0) { // none if it was cut off early, two if before the older one went
				t.Fatalf("%d records of what was cut off, which keeps %d blocks", taken, kept)
			}
			gone += taken
			h.keep(1, 1, 1)
			res, err := Backup(t.Context(), NewSource(h.store), repo, o)
			if err != nil {
				t.Fatal(err)
			}
			m := res.Manifest
			if taken > 0 && (res.Resumed == 0 || len(m.Parts) == 0) || res.Resumed != kept || res.Kept != 0 || m.EndLSN != m.LSN {
				t.Fatalf("%d blocks were taken over, %d were said to be kept: %+v", res.Resumed, kept, m)
			}
			h.wantState(repo, m, "/restored-"+string(kind))
			mustProve(t, repo, m.ID)
			if partials(t, repo) != 0 {
				t.Fatal("the record is still there")
			}
			for range 4 {
				h.churn(200)
			}
		}
		h.store.Close()
	}
	if gone == 0 {
		t.Error("nothing was gone on with")
	}
}

// TestRebase_L12_PowerCut cuts the power of the repository at random moments of a backup
// that goes on with another: what is listed is whole, and the next backup goes on.
func TestRebase_L12_PowerCut(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newHistory(t, rng, simfs.New(), "/db")
	for range 6 {
		h.commit(60, 0, 0)
	}
	o := rebaseOptions
	o.Type = TypeFull
	for range 5 {
		disk := simfs.New()
		repo := openRepo(t, disk, "/repo")
		for range 1 + rng.IntN(3) {
			disk.CutAfter(20 + rng.IntN(300))
			Backup(t.Context(), &busySource{Source: NewSource(h.store), on: func(int) { h.churn(20) }}, repo, o)
			disk = disk.Crash(rng, simfs.Random)
			repo = openAt(t, disk, "/repo")
			for _, e := range mustList(t, repo) {
				mustProve(t, repo, e.ID)
			}
		}
		h.keep(1, 1, 1)
		m := mustBackup(t, NewSource(h.store), repo, o)
		h.fs = disk
		h.wantState(repo, m, "/restored")
		mustProve(t, repo, m.ID)
	}
}

// TestRebase_WhatFellForwardGoesOn cuts a backup off that had fallen forward: what it
// had of its snapshot is gone on with.
func TestRebase_WhatFellForwardGoesOn(t *testing.T) {
	fs := simfs.New()
	h := smallHistory(t, rand.New(rand.NewPCG(8, 8)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	o := rebaseOptions
	o.Type = TypeFull
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Backup(ctx, &busySource{Source: NewSource(h.store), on: func(call int) {
		switch call {
		case 6:
			h.churn(1500)
		case 12:
			awaitRecord(t, repo)
			cancel()
		}
	}}, repo, o)
	if !errors.Is(err, context.Canceled) || partials(t, repo) == 0 {
		t.Fatal(err)
	}
	h.churn(100)
	h.keep(1, 1, 1)
	res, err := Backup(t.Context(), NewSource(h.store), repo, o)
	if err != nil || res.Resumed == 0 || len(res.Manifest.Parts) != 2 {
		t.Fatalf("%d blocks, %d parts, %v", res.Resumed, len(res.Manifest.Parts), err)
	}
	h.wantState(repo, res.Manifest, "/restored")
	mustProve(t, repo, res.Manifest.ID)
}

// TestRebase_R18_NotFromACopy: a copy of the database has the timeline and the LSNs of
// what was cut off, and other commits: it does not go on with that.
func TestRebase_R18_NotFromACopy(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(10, 10)), fs, "/db")
	for range 10 {
		h.commit(60, 0, 0)
	}
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	copied := &history{t: t, rng: rand.New(rand.NewPCG(11, 11)), fs: fs.Crash(nil, simfs.DropAll), dir: "/db", model: maps.Clone(h.model), kept: map[block.LSN]map[block.ID]string{}, n: 1000}
	copied.open()
	t.Cleanup(func() { copied.store.Close() })
	h.open()
	repo := openRepo(t, fs, "/repo")
	o := rebaseOptions
	o.Type = TypeFull
	h.churn(200)
	h.mustCut(repo)
	copied.churn(600)
	copied.keep(1, 1, 1)
	res, err := Backup(t.Context(), NewSource(copied.store), repo, o)
	if err != nil || res.Resumed != 0 {
		t.Fatalf("%d blocks were taken over, %v", res.Resumed, err)
	}
	copied.fs = fs
	copied.wantState(repo, res.Manifest, "/restored")
}

// TestRebase_L12_OnlyWhatIsWhole: of a run that was cut off an object was cut short, or is
// gone, that nobody reads before the backup is published. It is not gone on with.
func TestRebase_L12_OnlyWhatIsWhole(t *testing.T) {
	for name, spoil := range map[string]func(repo *Repository, name string, data []byte) error{
		"short": func(repo *Repository, name string, data []byte) error {
			rewrite(t, repo, name, data[:len(data)/2])
			return nil
		},
		"gone": func(repo *Repository, name string, _ []byte) error { return repo.objects.Delete(t.Context(), name) },
	} {
		fs := simfs.New()
		h := newHistory(t, rand.New(rand.NewPCG(9, 9)), fs, "/db")
		for range 10 {
			h.commit(60, 0, 0)
		}
		repo := openRepo(t, fs, "/repo")
		o := rebaseOptions
		o.Type = TypeFull
		h.mustCut(repo)
		c, err := repo.catalog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id, _ := c.cutOff()
		first := objectName(id, kindBlocks, 1)
		if err := spoil(repo, first, objectBytes(t, repo, first)); err != nil {
			t.Fatal(err)
		}
		h.keep(1, 1, 1)
		res, err := Backup(t.Context(), NewSource(h.store), repo, o)
		if err != nil || res.Resumed != 0 {
			t.Fatalf("%s: %d blocks of it, %v", name, res.Resumed, err)
		}
		h.wantState(repo, res.Manifest, "/restored")
	}
}

// TestRebase_OnlyWhatFits: what was cut off is of no use to a backup of another kind,
// and goes.
func TestRebase_OnlyWhatFits(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(9, 9)), fs, "/db")
	for range 10 {
		h.commit(60, 0, 0)
	}
	repo := openRepo(t, fs, "/repo")
	o := rebaseOptions
	o.Type = TypeFull
	h.mustCut(repo)
	o.Compression = CompressionFastest
	h.keep(1, 1, 1)
	res, err := Backup(t.Context(), NewSource(h.store), repo, o)
	if err != nil || res.Resumed != 0 || res.Manifest.Parts != nil {
		t.Fatalf("%d blocks, %v", res.Resumed, err)
	}
	h.wantState(repo, res.Manifest, "/restored")
	if _, err := Sweep(t.Context(), repo); err != nil || partials(t, repo) != 0 {
		t.Fatal("it is still there", err)
	}
}

// TestRebase_L12_NewRecipients: what was cut off is encrypted for others than the next
// backup is. A backup of both would be listed as damaged, and some could read half of it.
func TestRebase_L12_NewRecipients(t *testing.T) {
	fs, a, b := simfs.New(), newKeys(t), newKeys(t)
	h := newHistory(t, rand.New(rand.NewPCG(9, 9)), fs, "/db")
	for range 10 {
		h.commit(60, 0, 0)
	}
	h.mustCut(sealedRepo(t, sealedOptions(fs, a)))
	repo := sealedRepo(t, sealedOptions(fs, a, b))
	o := rebaseOptions
	o.Type = TypeFull
	h.keep(1, 1, 1)
	res, err := Backup(t.Context(), NewSource(h.store), repo, o)
	if err != nil || res.Resumed != 0 {
		t.Fatalf("%d blocks were taken over, %v", res.Resumed, err)
	}
	if e := mustList(t, repo)[0]; e.State() != StateComplete {
		t.Fatalf("%v is %s: %v", e.ID, e.State(), e.Damage)
	}
	h.wantState(repo, res.Manifest, "/restored")
	h.mustCut(repo)
	h.keep(1, 1, 1)
	res, err = Backup(t.Context(), NewSource(h.store), repo, o)
	if err != nil || res.Resumed == 0 {
		t.Fatalf("of a run for the same recipients %d blocks were taken over, %v", res.Resumed, err)
	}
	h.wantState(repo, res.Manifest, "/restored-again")
}

// copied is the database as of now in another place, where it goes on by itself.
func (a *archived) copied() *history {
	a.t.Helper()
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		a.t.Fatal(err)
	}
	c := &history{t: a.t, rng: rand.New(rand.NewPCG(11, 11)), fs: a.fs.(*simfs.FS).Crash(nil, simfs.DropAll), dir: a.dir, model: maps.Clone(a.model), kept: map[block.LSN]map[block.ID]string{}, n: 1000}
	c.open()
	a.t.Cleanup(func() { c.store.Close() })
	a.open()
	a.attach(a.from)
	return c
}

// TestRebase_R18_NotByAStandby: a copy of the database was cut off, and a standby that
// followed the other one makes a backup. It cannot tell whose commits those are.
func TestRebase_R18_NotByAStandby(t *testing.T) {
	a := newArchived(t, 8)
	for range 10 {
		a.commit(60, 0, 0)
	}
	a.full()
	a.archive()
	c := a.copied()
	c.churn(200)
	c.mustCut(a.repo)
	a.churn(600)
	lsn := a.commit(1, 1, 1)
	a.kept[lsn] = maps.Clone(a.model)
	a.archive()
	standby := a.standby("/d/standby")
	defer standby.Close()
	o := rebaseOptions
	o.Type = TypeFull
	res, err := Backup(t.Context(), NewSource(standby), a.repo, o)
	if err != nil || res.Manifest.EndLSN != lsn || res.Resumed != 0 {
		t.Fatalf("%d blocks were taken over at LSN %v, %v", res.Resumed, res.Manifest.EndLSN, err)
	}
	a.wantState(a.repo, res.Manifest, "/d/restored")
}
