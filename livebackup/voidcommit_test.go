package livebackup

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// voidArchived is a database whose newest commit was given up: temporary storage lost
// a block of a large transaction in the middle of its redo.
func voidArchived(t *testing.T) (*archived, block.LSN) {
	t.Helper()
	a := newArchived(t, 21)
	fs := a.fs.(*simfs.FS)
	if err := makeDir(fs, "/temp"); err != nil {
		t.Fatal(err)
	}
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	a.store, err = mvcc.Open(a.dir, mvcc.Options{FS: fs, MaxRAM: 2 << 20, LogBytesMax: mvcc.LogBytesMin, Temp: []mvcc.TempDir{{Path: "/temp", BytesMax: 64 << 20}}})
	if err != nil {
		t.Fatal(err)
	}
	a.attach(0)
	a.change(2)
	a.archive()
	before, _ := a.store.NewestCommit()
	tx, err := a.store.BeginWrite()
	if err != nil {
		t.Fatal(err)
	}
	fault := fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: "/temp/*", Skip: 700})
	for range 900 {
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			break
		}
		for i := range b.Payload() {
			b.Payload()[i] = byte(a.rng.Uint32())
		}
		b.Release()
	}
	_, err = tx.Commit()
	fault.Disarm()
	lsn, _ := a.store.NewestCommit()
	if lsn != before+1 {
		t.Fatalf("no void commit: %v", err)
	}
	a.kept[lsn] = a.kept[before]
	tail := a.tail // who archives holds the log until the end
	defer tail.Close()
	a.reopen() // who has seen that closes the database, and opens it again
	a.attach(before)
	return a, lsn
}

// R18, R19, R20: the newest commit of the primary was given up. It has a time in the log, and
// it is that which backups and standbys have of it: they are of no other history.
func TestR18_VoidCommitIsNoOtherHistory(t *testing.T) {
	backup := func(t *testing.T, a *archived, src Source) {
		t.Helper()
		if _, err := Backup(t.Context(), src, a.repo, BackupOptions{Type: TypeFull}); err != nil {
			t.Fatal(err)
		}
	}
	for name, use := range map[string]func(t *testing.T, a *archived, void block.LSN){
		"follow": func(t *testing.T, a *archived, _ block.LSN) {
			standby := a.standby("/d/standby")
			defer standby.Close()
			a.change(3)
			a.archive()
			f := follower{repo: a.repo, store: standby}
			if err := f.onceAt(t, a.from, a.kept[a.from]); err != nil {
				t.Fatal(err)
			}
		},
		"push of what was restored": func(t *testing.T, a *archived, void block.LSN) {
			a.onNewTimeline("/d/db2", void)
			backup(t, a, NewSource(a.store))
		},
		"push of a standby": func(t *testing.T, a *archived, _ block.LSN) {
			standby := a.standby("/d/standby")
			defer standby.Close()
			backup(t, a, NewSource(standby))
		},
		"restore of a backup without a checksum": func(t *testing.T, a *archived, _ block.LSN) {
			backup(t, a, nameless{NewSource(a.store)})
			a.change(2)
			a.archive()
			if _, err := Restore(t.Context(), a.repo, RestoreTarget{}, "/d/x", RestoreOptions{FS: a.fs, MaxRAM: 16 << 20}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, void := voidArchived(t)
			a.full()
			a.archive()
			use(t, a, void)
		})
	}
}

// An object of archived log that a restore does not need, and only could tell of the history
// of a backup without a checksum, has a bad sector.
func TestRestore_NeedsNoLogBelowItsBackup(t *testing.T) {
	a := newArchived(t, 4)
	a.change(2)
	a.full()
	a.change(2)
	first := a.archive()
	standby := a.standby("/d/standby")
	a.made = append(a.made, mustBackup(t, NewSource(standby), a.repo, BackupOptions{Type: TypeFull}))
	standby.Close()
	for range 3 {
		a.change(2)
		a.archive()
	}
	a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead | simfs.OpOpen, File: "/d/repo/" + first.Name(), Sticky: true})
	a.wantAt(RestoreTarget{}, a.from, RestoreOptions{})
}

// A reading of archived log that fails while the archive of a standby attaches: it tries again,
// or does without.
func TestArchive_OfAStandbyTriesAgain(t *testing.T) {
	for skip := 0; ; skip++ {
		a := newArchived(t, 5)
		a.change(2)
		a.full()
		a.change(2)
		a.archive()
		standby := a.standby("/d/standby")
		fault := a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead | simfs.OpOpen, File: "/d/repo/log-*", Skip: skip})
		x := &archiver{src: NewSource(standby), repo: a.repo}
		x.o, _ = ArchiveOptions{}.withDefaults()
		err := x.attach(t.Context())
		fired := fault.Fired()
		fault.Disarm()
		x.detach()
		if err != nil && !passes(err) {
			t.Errorf("skip %d ends the archive: %v", skip, err)
		}
		standby.Close()
		if fired == 0 {
			return
		}
	}
}
