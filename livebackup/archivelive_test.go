package livebackup

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// While a writer is at full speed its log is archived, in process and over the socket,
// by one archive after another, some of which are told to end at once; and what
// is archived, applied to a backup, is the database (R15, R20).
func TestArchive_OfALiveStore(t *testing.T) {
	dir := t.TempDir()
	store := newStore(t, vfs.OS, filepath.Join(dir, "db"), 200)
	defer store.Close()
	server, err := Serve(store, ServeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	repo := realRepo(t)
	m := mustBackup(t, client, repo, BackupOptions{})
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { writeForever(t, store, userBlocks(t, store)[:9], stop) })
	for i, src := range []Source{NewSource(store), client, NewSource(store), client} {
		ctx, cancel := context.WithCancel(t.Context())
		begun := make(chan struct{}, 1)
		o := ArchiveOptions{Every: 100 * time.Millisecond, ObjectBytes: 64 << 10, Progress: func(s ArchiveStatus) {
			if s.Objects > 1 || i == 2 {
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		}}
		ended := make(chan error)
		go func() { ended <- Archive(ctx, src, repo, o) }()
		<-begun
		if i == 3 {
			close(stop)
			writer.Wait()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	wantRolledForward(t, repo, store, m, filepath.Join(dir, "standby"))
}

// TestArchive_BeginsBehindALiveBackup: an archive that is started while the first backup
// is being made has the log from that backup's commit on.
func TestArchive_BeginsBehindALiveBackup(t *testing.T) {
	dir := t.TempDir()
	store := newStore(t, vfs.OS, filepath.Join(dir, "db"), 200)
	defer store.Close()
	repo := realRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	var once sync.Once
	m := mustBackup(t, NewSource(store), repo, BackupOptions{Progress: func(Progress) {
		once.Do(func() {
			if _, err := store.Mark("while it runs"); err != nil {
				t.Error(err)
			}
			begun := make(chan struct{}, 1)
			go func() {
				ended <- Archive(ctx, NewSource(store), repo, ArchiveOptions{Progress: func(ArchiveStatus) {
					select {
					case begun <- struct{}{}:
					default:
					}
				}})
			}()
			<-begun
		})
	}})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantRolledForward(t, repo, store, m, filepath.Join(dir, "standby"))
}

// wantRolledForward restores m as a standby and applies the archive: that is the store.
func wantRolledForward(t *testing.T, repo *Repository, store *mvcc.Store, m Manifest, target string) {
	t.Helper()
	durable := store.Status().DurableLSN
	history := lineageOf(store.Timeline(), store.History())
	if list := coverage(mustLogs(t, repo), history, m.LSN); len(list) != 1 || list[0] != (LogRange{m.LSN, durable}) {
		t.Fatalf("the archive has %v, the backup is at %v, the database at %v", list, m.LSN, durable)
	}
	mkdir(t, target)
	b, err := mvcc.NewBuilder(target, infoOf(&m), mvcc.BuildOptions{FS: vfs.OS, Standby: true})
	if err != nil {
		t.Fatal(err)
	}
	members, err := repo.chain(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := replayChain(t.Context(), repo, members, b, nil, newMeter(nil)); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	standby, err := mvcc.Open(target, mvcc.Options{MaxRAM: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	err = repo.readLog(t.Context(), mustLogs(t, repo), history, LogRange{m.LSN, durable}, m.RecordSum, standby.Apply)
	if err != nil {
		t.Fatal(err)
	}
	if got := standby.Status().NewestLSN; got != durable {
		t.Fatalf("rolled forward to %v, want %v", got, durable)
	}
	for _, id := range userBlocks(t, store) {
		if a, b := payloadOf(t, store, id), payloadOf(t, standby, id); a != b {
			t.Fatalf("block %v is %q, it was %q", id, b[:20], a[:20])
		}
	}
}

func payloadOf(t *testing.T, store *mvcc.Store, id block.ID) string {
	t.Helper()
	tx, err := store.BeginRead()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	b, err := tx.Block(id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	return string(b.Payload())
}

// A quiet of a store keeps writers waiting, and lets them go when it is released,
// when its time is over, and when whoever waited for it has given up.
func TestQuietOfAStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	store := newStore(t, vfs.OS, dir, 200)
	defer store.Close()
	server, err := Serve(store, ServeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []Source{NewSource(store), client} {
		q, err := src.Quiesce(t.Context(), time.Hour)
		if err != nil || q.LSN() != store.Status().NewestLSN {
			t.Fatal(err)
		}
		wrote := make(chan struct{})
		go func() { writeSome(t, store, 1); close(wrote) }()
		select {
		case <-wrote:
			t.Fatal("somebody wrote")
		case <-q.Over():
			t.Fatal("it is over")
		default:
		}
		if err := q.Release(); err != nil {
			t.Fatal(err)
		}
		<-wrote
		for d := time.Millisecond; ; d *= 2 { // the time to come to rest in is as short
			if q, err = src.Quiesce(t.Context(), d); err == nil {
				break
			} else if !errors.Is(err, ErrNoQuiet) {
				t.Fatal(err)
			}
		}
		<-q.Over()
		writeSome(t, store, 1)
		if err := q.Release(); !errors.Is(err, ErrQuietOver) {
			t.Fatal(err)
		}
		tx, err := store.BeginWrite()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Quiesce(t.Context(), time.Millisecond); !errors.Is(err, ErrNoQuiet) {
			t.Fatal(err)
		}
		tx.Rollback()
		writeSome(t, store, 1)
	}
}
