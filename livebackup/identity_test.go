package livebackup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// What an error is has to be known on both sides of the socket: exit codes and
// retries go by it.
func TestErrorsKeepTheirIdentityThroughTheSocket(t *testing.T) {
	for _, c := range wireCodes {
		if err := decodeError(encodeError(fmt.Errorf("pull: %w", c.err), nil)); !errors.Is(err, c.err) {
			t.Errorf("%v arrives as %v", c.err, err)
		}
	}
	dir := t.TempDir()
	store := newStore(t, vfs.OS, filepath.Join(dir, "db"), 5)
	defer store.Close()
	client := served(t, NewSource(store), ServeOptions{})
	for range 4 {
		defer openSession(t, client).Close()
	}
	if _, err := client.Open(t.Context(), SessionOptions{}); !errors.Is(err, mvcc.ErrTooManyBackups) {
		t.Errorf("the fifth backup: %v", err)
	}
}

// A manifest that could not be read says nothing about the backup.
func TestListTellsUnreadableFromDamaged(t *testing.T) {
	fs := simfs.New()
	src, repo := newFake(1, 20, 4<<10), openRepo(t, fs, "/repo")
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: objectName(id, kindManifest, 0), Sticky: true})
	e := mustList(t, repo)[0]
	if e.State() != StateUnreadable || e.Damage != nil || !errors.Is(e.Unreadable, syscall.EIO) {
		t.Errorf("listed as %v: damage %v, unreadable %v", e.State(), e.Damage, e.Unreadable)
	}
	if _, err := repo.chain(t.Context(), BackupID{}); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrBackupDamaged) {
		t.Errorf("the newest backup: %v", err)
	}
	// Whether the repository is ahead of the database cannot be told (R18).
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("a backup beside it: %v", err)
	}
}

// Two who come to one claim at once: the one whose file has lost its name to the
// other must not believe that it holds the claim.
func TestL12_ClaimOnALostName(t *testing.T) {
	fs := simfs.New()
	repo := openRepo(t, fs, "/repo")
	local := repo.objects.(*localObjects)
	name := objectName(newBackupID(1), kindRun, 0)
	lost, err := fs.OpenFile(local.path(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove(local.path(name)); err != nil {
		t.Fatal(err)
	}
	other, err := local.Claim(t.Context(), name, []byte("other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := local.lockClaim(lost, name, []byte("lost")); !errors.Is(err, ErrClaimed) {
		t.Errorf("claimed by both: %v", err)
	}
	if err := errors.Join(other.Close(), lost.Close()); err != nil {
		t.Fatal(err)
	}
}

// A claim that could not say what it is for is none, whatever of it went wrong.
func TestL12_ClaimThatCouldNotBeWritten(t *testing.T) {
	for _, ops := range []simfs.Op{simfs.OpWrite, simfs.OpTruncate} {
		fs := simfs.New()
		local := openRepo(t, fs, "/repo").objects.(*localObjects)
		name := objectName(newBackupID(1), kindRun, 0)
		fs.Fail(simfs.Fault{Ops: ops, File: local.path(name), Err: syscall.ENOSPC})
		if _, err := local.Claim(t.Context(), name, []byte("note")); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v fails, and the claim: %v", ops, err)
		}
		if _, err := fs.Lstat(local.path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v fails, and leaves: %v", ops, err)
		}
		claim, err := local.Claim(t.Context(), name, []byte("note"))
		if err != nil {
			t.Fatal(err)
		}
		if err := claim.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The free blocks of a restored database are reserved like any others: that the
// disk is full must not be found out when they are written in place (R7).
func TestR7_RestoreReservesFreeBlocks(t *testing.T) {
	const blocks = 3000
	fs := simfs.New()
	store := newStore(t, fs, "/db", 0)
	tx, err := store.BeginWrite()
	if err != nil {
		t.Fatal(err)
	}
	var ids []block.ID
	for range blocks {
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.ID())
		b.Release()
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if tx, err = store.BeginWrite(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[:len(ids)-1] { // the last one keeps the file long
		if err := tx.Free(id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	repo := openRepo(t, fs, "/repo")
	mustBackup(t, NewSource(store), repo, BackupOptions{})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), repo, RestoreTarget{}, "/new", RestoreOptions{FS: fs}); err != nil {
		t.Fatal(err)
	}
	o := mvcc.Options{FS: fs, MaxRAM: 32 << 20, LogBytesMax: mvcc.LogBytesMin, Temp: []mvcc.TempDir{}}
	restored, err := mvcc.Open("/new", o)
	if err != nil {
		t.Fatal(err)
	}
	fs.SetCapacity(fs.UsedBytes() + 4*mvcc.LogBytesMin) // for the log and second copies
	for range blocks/50 - 1 {
		if tx, err = restored.BeginWrite(); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			b, err := tx.Alloc(block.TypeUser)
			if err != nil {
				t.Fatal(err)
			}
			b.Payload()[0] = 1
			b.Release()
		}
		if _, err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := restored.Close(); err != nil { // writes them in place
		t.Error(err)
	}
}
