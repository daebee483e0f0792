package livebackup

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// writeForever commits "commit n" into all blocks at once, n after n, until
// stop is closed.
func writeForever(t *testing.T, store *mvcc.Store, ids []block.ID, stop <-chan struct{}) {
	for n := 1; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		tx, err := store.BeginWrite()
		if err != nil {
			t.Error(err)
			return
		}
		for _, id := range ids {
			b, err := tx.Edit(id)
			if err != nil {
				t.Error(err)
				tx.Rollback()
				return
			}
			fmt.Fprintf(payload{b.Payload()}, "commit %08d", n)
			b.Release()
		}
		if _, err := tx.Commit(); err != nil {
			t.Error(err)
			return
		}
	}
}

// L1: while a writer changes every block in every commit, a backup is the state
// after one of them, and is restored as that; in process and over the socket.
func TestL1_BackupWhileWriting(t *testing.T) {
	dir := t.TempDir()
	store := newStore(t, vfs.OS, filepath.Join(dir, "db"), 200)
	defer store.Close()
	server, err := Serve(store, ServeOptions{BatchBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { writeForever(t, store, userBlocks(t, store), stop) })
	defer writer.Wait()
	defer close(stop)

	repo, before := realRepo(t), block.LSN(0)
	for i, src := range []Source{NewSource(store), client, NewSource(store), client} {
		for store.Status().DurableLSN <= before {
			runtime.Gosched() // the writer is at work: this ends
		}
		last := Progress{}
		m := mustBackup(t, src, repo, BackupOptions{GroupBytes: 32 << 10, Progress: func(p Progress) { last = p }})
		if last.Blocks != m.Blocks || last.BlocksTotal != m.Blocks || last.RawBytes != m.RawBytes {
			t.Fatalf("last progress %+v of %d blocks", last, m.Blocks)
		}
		target := filepath.Join(dir, fmt.Sprint("restored", i))
		if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, target, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		wantOneCommit(t, target, m.LSN)
		before = m.LSN
	}
}

// userBlocks finds the blocks that newStore made.
func userBlocks(t *testing.T, store *mvcc.Store) (ids []block.ID) {
	t.Helper()
	tx, err := store.BeginRead()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	for id := range store.Status().HighWater {
		b, err := tx.Block(id)
		if err != nil {
			continue // free, or the store's own
		}
		if b.Type() == block.TypeUser {
			ids = append(ids, id)
		}
		b.Release()
	}
	if len(ids) != 200 {
		t.Fatalf("%d blocks", len(ids))
	}
	return ids
}

// wantOneCommit proves that all blocks of a database are of one commit.
func wantOneCommit(t *testing.T, dir string, lsn block.LSN) {
	t.Helper()
	store, err := mvcc.Open(dir, mvcc.Options{MaxRAM: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if at := store.Status().NewestLSN; at != lsn {
		t.Fatalf("restored to LSN %v, want %v", at, lsn)
	}
	tx, err := store.BeginRead()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	texts := map[string]int{}
	for _, id := range userBlocks(t, store) {
		b, err := tx.Block(id)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b.Payload()[:15])
		if strings.HasPrefix(text, "block") {
			text = "before the first"
		}
		texts[text]++
		b.Release()
	}
	if len(texts) != 1 {
		t.Fatalf("LSN %v holds parts of %d commits: %v", lsn, len(texts), texts)
	}
}
