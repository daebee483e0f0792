package livebackup

import (
	"errors"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// damagedDisk is a disk with a closed database of which some blocks are damaged: one that
// is made from a backup and archived log, a bitmap, a block of the changed-block map and
// some others.
type damagedDisk struct {
	t      *testing.T
	base   *simfs.FS
	model  map[block.ID]string
	spoilt []block.ID
	sites  *siteSweep
	served bool // repairs go over the socket
}

func newDamagedDisk(t *testing.T, served bool) *damagedDisk {
	d := newDamaged(t, chance.Seed(t))
	w := &damagedDisk{t: t, model: d.model, sites: newSiteSweep(), served: served}
	w.spoilt = []block.ID{d.rolledBlock(NewSource(d.store)), 3}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(d.model)), func(id block.ID) bool { return slices.Contains(w.spoilt, id) })
	d.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	w.spoilt = append(w.spoilt, ids[:2]...)
	for _, id := range w.spoilt {
		d.patch(int64(id)*int64(d.store.BlockSize()), make([]byte, 100))
	}
	for id := block.ID(4); id < 13; id++ {
		d.patch(int64(id)*int64(d.store.BlockSize()), make([]byte, 100))
	}
	w.base = d.fs.(*simfs.FS).Crash(nil, simfs.KeepAll)
	return w
}

func (w *damagedDisk) open(fs *simfs.FS) *mvcc.Store {
	w.t.Helper()
	store, err := mvcc.Open("/d/db", mvcc.Options{FS: fs, MaxRAM: 16 << 20, LogBytesMax: mvcc.LogBytesMin, Temp: []mvcc.TempDir{}})
	if err != nil {
		w.t.Fatal(err)
	}
	return store
}

// repair repairs what a check finds.
func (w *damagedDisk) repair(store *mvcc.Store, repo *Repository) (RepairResult, error) {
	if !w.served {
		return Repair(w.t.Context(), NewSource(store), repo, RepairOptions{})
	}
	dir := w.t.TempDir()
	server, err := serve(NewSource(store), ServeOptions{Dir: dir})
	if err != nil {
		w.t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	return Repair(w.t.Context(), client, repo, RepairOptions{})
}

// run is one repair of the damaged database with a fault, or none, and what comes after.
func (w *damagedDisk) run(what string, sites *simfs.Sites, arm func(*simfs.FS) *simfs.Armed) {
	t := w.t
	t.Helper()
	fs := w.base.Crash(nil, simfs.KeepAll)
	store, repo := w.open(fs), openAt(t, fs, "/d/repo")
	fs.Trace(sites.Note)
	armed := arm(fs)
	res, err := w.repair(store, repo)
	fs.Trace(nil)
	if armed != nil {
		armed.Disarm()
	} else if err != nil || res.Failed() > 0 || len(res.Blocks) != len(w.spoilt) {
		t.Fatalf("without a fault: %+v, %v", res, err)
	}
	w.judge(what, err)
	bad := slices.Clone(w.spoilt)
	for _, b := range res.Blocks {
		if b.Err != nil {
			w.judge(what, b.Err)
			continue
		}
		bad = slices.DeleteFunc(bad, func(id block.ID) bool { return id == b.Block })
	}
	failed := store.Status().Failed != ""
	if err != nil && failed != errors.Is(err, mvcc.ErrPoisoned) || errors.Is(err, mvcc.ErrClosed) {
		t.Fatalf("%s: the store has failed: %v; the repair says: %v", what, failed, err)
	}
	w.wantRight(what, store, bad)
	w.wantMended(what+", and a power cut", fs.Crash(nil, simfs.DropAll), bad)
	if failed {
		if tx, err := store.BeginWrite(); err == nil || !errors.Is(err, mvcc.ErrPoisoned) {
			t.Fatalf("%s: a failed store begins a write: %v, %v", what, tx, err)
		}
		_ = store.Close() // it says why it has failed
		fs = fs.Kill()
		store, repo = w.open(fs), openAt(t, fs, "/d/repo")
	}
	if res, err := w.repair(store, repo); err != nil || res.Failed() > 0 {
		t.Fatalf("%s; tried again: %+v, %v", what, res, err)
	}
	wantStore(t, store, w.model)
	if err := store.Close(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	wantDatabase(t, fs.Crash(nil, simfs.DropAll), "/d/db", w.model)
}

// judge wants an error that callers can tell; over the socket, one that was told there.
func (w *damagedDisk) judge(what string, err error) {
	w.t.Helper()
	if err == nil {
		return
	}
	for _, known := range []error{
		syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.EROFS,
		mvcc.ErrPoisoned, mvcc.ErrNoImage, mvcc.ErrLogGone, block.ErrCorrupt, ErrLogGap,
	} {
		if errors.Is(err, known) {
			return
		}
	}
	if remote := new(RemoteError); w.served && errors.As(err, &remote) {
		return
	}
	w.t.Fatalf("%s: an error of no kind that callers can tell: %v", what, err)
}

// wantRight reads every block: it is right, or, if it is one of those, damaged.
func (w *damagedDisk) wantRight(what string, store *mvcc.Store, bad []block.ID) {
	t := w.t
	t.Helper()
	tx, err := store.BeginRead()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer tx.Close()
	for id, text := range w.model {
		b, err := tx.Block(id)
		if err != nil {
			if !slices.Contains(bad, id) || !errors.Is(err, block.ErrCorrupt) {
				t.Fatalf("%s: block %v: %v", what, id, err)
			}
			continue
		}
		if string(b.Payload()[:len(text)]) != text {
			t.Fatalf("%s: block %v is %.30q, not %q", what, id, b.Payload(), text)
		}
		b.Release()
	}
}

// wantMended opens a disk: none but those blocks are damaged there.
func (w *damagedDisk) wantMended(what string, fs *simfs.FS, bad []block.ID) {
	t := w.t
	t.Helper()
	store := w.open(fs)
	defer store.Close()
	w.wantRight(what, store, bad)
	check, err := store.Check(t.Context(), nil)
	if err != nil && !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("%s: check: %v", what, err)
	}
	for _, d := range check.Damaged {
		if !slices.Contains(bad, d.Block) {
			t.Fatalf("%s: block %v is damaged: %v", what, d.Block, check.Problems)
		}
	}
}

// Whichever operation of a repair fails, in every way, once and for good: no block is
// given wrong data, what the repair says that it has mended is mended and durable, the
// store goes on or has failed and takes no commit, and the next repair mends the rest. In
// this process, and behind the socket.
func TestRepair_FailureAtEverySite(t *testing.T) {
	for how, served := range map[string]bool{"here": false, "behind the socket": true} {
		t.Run(how, func(t *testing.T) {
			w := newDamagedDisk(t, served)
			w.sites.failEach(t, 34, w.run)
		})
	}
}

// The same of an opening that needs an image of the meta block: the database is opened and
// right, or is not, and is the next time.
func TestRepair_FailureAtEverySiteOfAnOpening(t *testing.T) {
	d := newDamaged(t, chance.Seed(t))
	d.archiveRest()
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	d.spoilMeta()
	base, w := d.fs.(*simfs.FS).Crash(nil, simfs.KeepAll), &damagedDisk{t: t, model: d.model, sites: newSiteSweep()}
	open := func(fs *simfs.FS) (*mvcc.Store, error) {
		repo := openAt(t, fs, "/d/repo")
		return mvcc.Open("/d/db", mvcc.Options{FS: fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}, Mend: MendFrom(t.Context(), repo, nil)})
	}
	w.sites.failEach(t, 48, func(what string, sites *simfs.Sites, arm func(*simfs.FS) *simfs.Armed) {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.Trace(sites.Note)
		armed := arm(fs)
		store, err := mvcc.Open("/d/db", mvcc.Options{FS: fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}, Mend: MendFrom(t.Context(), repo, nil)})
		fs.Trace(nil)
		if armed != nil {
			armed.Disarm()
		}
		w.judge(what, err)
		for _, disk := range []*simfs.FS{fs.Crash(nil, simfs.DropAll), fs} {
			if store == nil || disk != fs {
				again, err := open(disk)
				if err != nil {
					t.Fatalf("%s; opened again: %v", what, err)
				}
				wantStore(t, again, w.model)
				_ = again.Close()
				continue
			}
			w.wantRight(what, store, nil)
			if err := store.Close(); err != nil && store.Status().Failed == "" {
				t.Fatalf("%s: %v", what, err)
			}
			wantDatabase(t, fs, "/d/db", w.model)
		}
	})
}

// oneFault is a repair of a damaged disk in which operations fail, and nothing after it.
func (w *damagedDisk) oneFault(f simfs.Fault) (RepairResult, error) {
	w.t.Helper()
	fs := w.base.Crash(nil, simfs.KeepAll)
	store, repo := w.open(fs), openAt(w.t, fs, "/d/repo")
	defer store.Close()
	armed := fs.Fail(f)
	res, err := w.repair(store, repo)
	if armed.Disarm(); err == nil || armed.Fired() == 0 {
		w.t.Fatalf("%+v, %v", res, err)
	}
	return res, err
}

// A block at which a repair ends is listed with what ended it, and those before it are
// listed: without an error is what is mended, and nothing else.
func TestRepair_WhatEndsItIsToldOfItsBlock(t *testing.T) {
	w := newDamagedDisk(t, false)
	for skip := range 8 { // reads of log when it is asked for the first, and for others
		fs := w.base.Crash(nil, simfs.KeepAll)
		store, repo := w.open(fs), openAt(t, fs, "/d/repo")
		armed := fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: "*.wal", Skip: skip, Sticky: true})
		res, err := w.repair(store, repo)
		armed.Disarm()
		bad := slices.Clone(w.spoilt)
		for _, b := range res.Blocks {
			if b.Err == nil {
				bad = slices.DeleteFunc(bad, func(id block.ID) bool { return id == b.Block })
			}
		}
		if err == nil && armed.Fired() > 0 && len(bad) == 0 {
			t.Fatalf("%+v", res)
		}
		w.wantMended("a failed read", fs.Crash(nil, simfs.DropAll), bad)
		_ = store.Close()
	}
}

// Who waits for a store that fails is told that it has failed, and not that it is closed,
// here and over the socket.
func TestRepair_FailedStoreIsNotClosed(t *testing.T) {
	for _, served := range []bool{false, true} {
		w := newDamagedDisk(t, served)
		if _, err := w.oneFault(simfs.Fault{Ops: simfs.OpSync, File: "doublewrite"}); !errors.Is(err, mvcc.ErrPoisoned) || errors.Is(err, mvcc.ErrClosed) {
			t.Errorf("served: %v: %v", served, err)
		}
	}
}

// A manifest that cannot be read for a moment does not make the repository one of another
// timeline: which one it is of is not known. Another one, which rests on it, is of no use.
func TestRepair_UnreadManifestIsNoOtherTimeline(t *testing.T) {
	a := newArchived(t, chance.Seed(t))
	a.change(3)
	a.full()
	a.change(2)
	a.incremental()
	fs, told := a.fs.(*simfs.FS), 0
	for skip := range 12 {
		armed := fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: objectName(a.made[0].ID, kindManifest, 0), Skip: skip})
		_, err := Repair(t.Context(), NewSource(a.store), a.repo, RepairOptions{})
		armed.Disarm()
		switch {
		case errors.Is(err, ErrForeignTimeline):
			t.Errorf("read %d fails: %v", skip, err)
		case errors.Is(err, syscall.EIO):
			told++
		}
	}
	if told == 0 {
		t.Error("no repair needed the manifest")
	}
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
}
