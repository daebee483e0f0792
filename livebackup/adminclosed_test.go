package livebackup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// A store that is closed before its server ends sessions with a typed error, and what is
// asked from then on is answered.
func TestServer_OfAClosedStore(t *testing.T) {
	fsys := simfs.New()
	store, err := mvcc.Open("/db", mvcc.Options{FS: fsys, MaxRAM: 32 << 20, CloseWait: -1, Temp: []mvcc.TempDir{}})
	if err != nil {
		t.Fatal(err)
	}
	writeSome(t, store, 300)
	client := served(t, NewSource(store), ServeOptions{BatchBytes: 1})
	s, err := client.Open(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log := mustOpenLog(t, client, 0)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	buf, ids := make([]byte, 64<<10), make([]block.ID, 4)
	for err = nil; err == nil; {
		_, err = s.Next(t.Context(), buf, ids)
	}
	if !errors.Is(err, mvcc.ErrBroken) {
		t.Error(err)
	}
	s.Close()
	if _, err := log.Read(t.Context(), 1<<20, nil); !errors.Is(err, mvcc.ErrClosed) {
		t.Error(err)
	}
	log.Close()
	ctx := t.Context()
	for name, ask := range map[string]func() error{
		"check":    func() error { _, err := client.Check(ctx, nil); return err },
		"mark":     func() error { _, err := client.Mark(ctx, "m"); return err },
		"remember": func() error { return client.RememberHead(ctx, RepositoryID{1}, mvcc.Head{LSN: 3}) },
		"repair":   func() error { _, err := client.RepairBlock(ctx, mvcc.BlockRepair{Block: fakeFirst}); return err },
		"quiesce":  func() error { _, err := client.Quiesce(ctx, time.Second); return err },
		"log":      func() error { _, err := client.OpenLog(ctx, LogOptions{}); return err },
		"open":     func() error { _, err := client.Open(ctx, SessionOptions{}); return err },
	} {
		if err := ask(); !errors.Is(err, mvcc.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st, err := client.Status(ctx); err != nil || st.NewestLSN != 300 {
		t.Error(st.NewestLSN, err)
	}
}

// A status fits into its frame, whatever names there are, and however many hold log.
func TestServer_StatusOfLongNames(t *testing.T) {
	store := newStore(t, simfs.New(), "/db", 5)
	defer store.Close()
	client := served(t, NewSource(store), ServeOptions{})
	long := strings.Repeat("<", 100<<10)
	b, err := store.OpenBackup(t.Context(), mvcc.BackupOptions{Owner: long, Label: long})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 200 {
		tail, err := store.OpenLogTail(long, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
	}
	st, err := client.Status(t.Context())
	if err != nil {
		t.Fatalf("%.300v", err)
	}
	if len(st.Backups) != 1 || len(st.Holders) == 0 || !strings.HasPrefix(long, st.Holders[0].Name) {
		t.Errorf("%d backups, %d who hold log", len(st.Backups), len(st.Holders))
	}
}

// R20: a following that was ended within a commit can be taken up again by another one, in
// the same store.
func TestR20_FollowedAgainWithinACommit(t *testing.T) {
	a := newArchived(t, 12)
	a.change(2)
	a.full()
	a.changeLarge()
	a.archive()
	target := RestoreTarget{Backup: a.made[0].ID}
	if _, err := Restore(t.Context(), a.repo, target, "/d/standby", RestoreOptions{FS: a.fs, Standby: true, MaxRAM: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	store, err := mvcc.Open("/d/standby", mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	f := follower{repo: a.repo, store: store}
	for skip := 0; ; skip++ {
		fault := a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead, File: "/d/repo/log-*", Skip: skip})
		_, err := f.once(t.Context())
		fault.Disarm()
		if _, applied := store.Applying(); applied > 0 {
			break
		}
		if err == nil {
			t.Fatal("never within the commit")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = Follow(ctx, a.repo, store, FollowOptions{Progress: func(p FollowProgress) {
		if p.LSN == a.from {
			cancel()
		}
	}})
	if err != nil || store.Status().NewestLSN != a.from {
		t.Fatal(store.Status().NewestLSN, a.from, err)
	}
}
