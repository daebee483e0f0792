package kv_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestLadder_AllRungsOnRealFiles: one store with all rungs, on a small file system that
// somebody else fills half. Those that pace are switched on, and may or may not be reached:
// that is up to how fast the disk is. A backup whose repository does not
// answer for a while reaches all others but the last, in order, and is whole: what it
// restores is what was written last. A reader after it reaches the last, typed. No commit
// fails.
func TestLadder_AllRungsOnRealFiles(t *testing.T) {
	temp := smallFS(t, 12<<20)
	must(t, os.WriteFile(filepath.Join(temp, "other"), make([]byte, 6<<20), 0o600))
	dir := t.TempDir()
	db, err := kv.Open(filepath.Join(dir, "db"), kv.Options{Store: mvcc.Options{
		MaxRAM: boundedRAM, OverflowMax: 4 << 20, Temp: []mvcc.TempDir{{Path: temp, BytesMax: 1 << 30}}, AllowMemoryTemp: true,
		WriterDelayMax: time.Millisecond, WriterDelayShare: 0.05, Durability: mvcc.DurableNever,
	}})
	must(t, err)
	defer db.Close()
	const records = 48 << 20 / boundedRecord
	must(t, boundedPut(db, 0, records, "first"))
	ctx := t.Context()
	repo, err := livebackup.OpenRepository(ctx, filepath.Join(dir, "repo"), livebackup.RepositoryOptions{Create: true})
	must(t, err)
	var writeOnce sync.Once
	res, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, livebackup.BackupOptions{
		Type: livebackup.TypeFull, Compression: livebackup.CompressionNone, HurryShare: 0.05,
		Progress: func(livebackup.Progress) { writeOnce.Do(func() { must(t, boundedPut(db, 0, records, "second")) }) },
	})
	must(t, err)
	if res.Record.Rung != mvcc.RungFallForward {
		t.Errorf("the record says rung %s", res.Record.Rung)
	}
	if got := inOrder(rungsTold(db), mvcc.RungSpill, mvcc.RungOverflow, mvcc.RungFallForward); !got {
		t.Errorf("rungs %v", rungsTold(db))
	}
	restored := filepath.Join(dir, "restored")
	_, err = livebackup.Restore(ctx, repo, livebackup.RestoreTarget{}, restored, livebackup.RestoreOptions{})
	must(t, err)
	copied, err := kv.Open(restored, kv.Options{Store: mvcc.Options{MaxRAM: boundedRAM}})
	must(t, err)
	must(t, copied.View(func(tx *kv.Tx) error { return boundedProve(tx, records, "second") }))
	must(t, copied.Close())

	snapshot, err := db.Begin(false)
	must(t, err)
	must(t, boundedPut(db, 0, records, "third"))
	if err := boundedProve(snapshot, records, "second"); !errors.Is(err, mvcc.ErrBroken) {
		t.Errorf("the reader ended with %v", err)
	}
	must(t, snapshot.Rollback())
	if !slices.Contains(rungsTold(db), mvcc.RungBreak) || db.Store().Status().Failed != "" {
		t.Errorf("rungs %v, failed %q", rungsTold(db), db.Store().Status().Failed)
	}
	must(t, db.View(func(tx *kv.Tx) error { return boundedProve(tx, records, "third") }))
}

// rungsTold are the rungs that events told of, each in its turn.
func rungsTold(db *kv.DB) (rungs []mvcc.Rung) {
	for _, ev := range db.Store().Events(0) {
		if ev.Rung != "" {
			rungs = append(rungs, ev.Rung)
		}
	}
	return rungs
}

// inOrder reports whether all of these are in a list, one behind the other.
func inOrder(list []mvcc.Rung, want ...mvcc.Rung) bool {
	for _, r := range want {
		i := slices.Index(list, r)
		if i < 0 {
			return false
		}
		list = list[i+1:]
	}
	return true
}
