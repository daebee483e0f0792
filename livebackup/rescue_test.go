package livebackup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// failingDisk is the system's file system until it is told to fail: then no file whose
// name has the text is written or synced any more.
type failingDisk struct {
	vfs.FS
	failing atomic.Pointer[string]
}

func (d *failingDisk) fail(text string) { d.failing.Store(&text) }

func (d *failingDisk) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &failingFile{f, d}, nil
}

type failingFile struct {
	vfs.File
	d *failingDisk
}

func (f *failingFile) err(op string) error {
	if text := f.d.failing.Load(); text != nil && strings.Contains(f.Name(), *text) {
		return &fs.PathError{Op: op, Path: f.Name(), Err: errors.New("the disk has failed")}
	}
	return nil
}

func (f *failingFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.err("write"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *failingFile) Sync() error {
	if err := f.err("sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

// loseCommit changes blocks until a commit fails, and returns the newest one that did
// not. What was acknowledged is in the model.
func (h *history) loseCommit() block.LSN {
	h.t.Helper()
	last := h.commit(2, 5, 1)
	tx, err := h.store.BeginWrite()
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := tx.Alloc(block.TypeUser)
	if err != nil {
		h.t.Fatal(err)
	}
	copy(b.Payload(), "block that is lost")
	b.Release()
	h.fs.(interface{ fail(string) }).fail("/log/")
	if _, err := tx.Commit(); err == nil {
		h.t.Fatal("a commit was acknowledged whose log cannot be written")
	}
	if h.store.Status().Failed == "" {
		h.t.Fatal("the store has not failed")
	}
	return last
}

// TestL8_RescueThroughTheRepository: a store whose log can no longer be written gives a
// backup, in process and over the socket, that is proven, and restored equals the last
// commit that was acknowledged. A backup that does not ask for it is refused, and so is
// an incremental; the manifest says what it is; and the next backup of the database that
// was opened again goes on with the repository.
func TestL8_RescueThroughTheRepository(t *testing.T) {
	for _, how := range []string{"in process", "socket"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			disk := &failingDisk{FS: vfs.OS}
			h := newHistory(t, rand.New(rand.NewPCG(7, 8)), disk, filepath.Join(dir, "db"))
			h.commit(200, 0, 0)
			repo := realRepo(t)
			h.backup(repo, BackupOptions{})
			var src Source = NewSource(h.store)
			if how == "socket" {
				server, err := Serve(h.store, ServeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer server.Close()
				if src, err = Dial(h.dir); err != nil {
					t.Fatal(err)
				}
			}
			last := h.loseCommit()
			h.kept[last] = maps.Clone(h.model)
			if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, mvcc.ErrEmergency) {
				t.Fatalf("a backup that is no rescue: %v", err)
			}
			if _, err := Backup(t.Context(), src, repo, BackupOptions{Rescue: true, Type: TypeIncremental}); !errors.Is(err, ErrOptions) {
				t.Fatalf("an incremental rescue: %v", err)
			}
			m := mustBackup(t, src, repo, BackupOptions{Rescue: true})
			if !m.Rescue || m.Kind != KindFull || m.EndLSN != last {
				t.Fatalf("%s backup of LSN %v, rescue %v; the last durable commit is %v", m.Kind, m.EndLSN, m.Rescue, last)
			}
			mustProve(t, repo, m.ID)
			if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, filepath.Join(dir, "restored"), RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			wantDatabase(t, vfs.OS, filepath.Join(dir, "restored"), h.kept[last])
		})
	}
}

// TestL8_RescueOfEveryFile: whichever of the store's files fails, by a write or a sync,
// the rescue that the repository then has leads to the last durable commit, or the
// rescue fails as damage: never to anything else.
func TestL8_RescueOfEveryFile(t *testing.T) {
	for name, fault := range map[string]simfs.Fault{
		"log write":        {Ops: simfs.OpWrite, File: "/db/log/*"},
		"log sync":         {Ops: simfs.OpSync, File: "/db/log/*"},
		"data write":       {Ops: simfs.OpWrite, File: "/db/data", Short: true},
		"data sync":        {Ops: simfs.OpSync, File: "/db/data", Sync: simfs.SyncCacheNew},
		"second copy":      {Ops: simfs.OpWrite, File: "/db/doublewrite"},
		"second copy sync": {Ops: simfs.OpSync, File: "/db/doublewrite"},
	} {
		t.Run(name, func(t *testing.T) {
			seed := chance.Seed(t)
			fsys := simfs.New()
			h := newHistory(t, rand.New(rand.NewPCG(seed, 3)), fsys, "/db")
			first := h.commit(100, 0, 0)
			fault.Sticky, fault.Skip = true, h.rng.IntN(3)
			fsys.Fail(fault)
			last := h.untilItFails(first)
			repo := openRepo(t, fsys, "/repo")
			m := mustBackup(t, NewSource(h.store), repo, BackupOptions{Rescue: true})
			if v := h.store.Status().DurableLSN; m.EndLSN != v || v < last {
				t.Fatalf("the rescue is of LSN %v, durable is %v, acknowledged %v", m.EndLSN, v, last)
			}
			h.wantState(repo, m, "/restored")
		})
	}
}

// untilItFails commits behind commit last until the store fails. It keeps the model of the
// last commit that was acknowledged, and of the one behind it, which may be durable or not.
func (h *history) untilItFails(last block.LSN) block.LSN {
	h.t.Helper()
	h.kept[last] = maps.Clone(h.model)
	for range 2000 {
		tx, err := h.store.BeginWrite()
		if errors.Is(err, mvcc.ErrPoisoned) {
			return last
		}
		if err != nil {
			h.t.Fatal(err)
		}
		model := maps.Clone(h.model)
		write := func(b mvcc.Block, err error) error {
			if err != nil {
				return err
			}
			model[b.ID()] = fmt.Sprintf("block %v behind commit %v", b.ID(), last)
			clear(b.Payload()[:64])
			copy(b.Payload(), model[b.ID()])
			b.Release()
			return nil
		}
		ids := slices.Sorted(maps.Keys(model))
		err = write(tx.Edit(ids[h.rng.IntN(len(ids))])) // its image is not whole in the log
		if err == nil {
			err = write(tx.Alloc(block.TypeUser))
		}
		if err != nil { // it may fail between two commits, too
			tx.Rollback()
			if !errors.Is(err, mvcc.ErrPoisoned) {
				h.t.Fatal(err)
			}
			return last
		}
		h.model = model
		lsn, err := tx.Commit()
		switch {
		case errors.Is(err, mvcc.ErrPoisoned):
			h.kept[last+1] = h.model
			return last
		case err != nil:
			h.t.Fatal(err)
		}
		last = lsn
		h.kept = map[block.LSN]map[block.ID]string{lsn: maps.Clone(h.model)}
	}
	h.t.Fatal("the store has not failed")
	return 0
}
