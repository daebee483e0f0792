package livebackup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// DrillOptions of Drill. The zero value is good.
type DrillOptions struct {
	// Check proves the database in dir, which is closed. Nil: every block is read.
	// A front door proves its trees as well.
	Check    func(ctx context.Context, dir string) error
	MaxRAM   int64 // bytes, for rolling forward and checking; 0: see mvcc.Options
	Progress func(Progress)
	FS       vfs.FS // nil: vfs.OS
	NoRecord bool   // leaves the repository as it is
}

// DrillResult is what Drill did.
type DrillResult struct {
	Restore  RestoreResult
	Compared uint64        // blocks that were compared with the backup, read in place
	Restored time.Duration // what a restore would have taken
	Duration time.Duration // with checking and comparing
}

// Drill proves that a state can be restored by restoring it: to a directory of its
// own in scratch, which exists. What was restored is opened and checked; if no log
// was rolled forward, each block is compared with the backup read in place, by
// another path. Then it is removed. That it went well, how long it took and which
// commit it led to is recorded in the repository. What a drill that was killed has left
// in scratch is removed, too.
func Drill(ctx context.Context, repo *Repository, t RestoreTarget, scratch string, o DrillOptions) (DrillResult, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Check == nil {
		o.Check = func(ctx context.Context, dir string) error { return checkBlocks(ctx, dir, o) }
	}
	began := time.Now()
	lock, err := newDrill(o.FS, scratch)
	if err != nil {
		return DrillResult{}, fmt.Errorf("drill: %w", err)
	}
	sweepDrills(o.FS, lock.name)
	res, err := drill(ctx, repo, t, drillDir(lock.name), o)
	res.Duration = time.Since(began)
	// What was restored goes, also if ctx ended.
	if removeErr := removeDrill(o.FS, lock.name); removeErr == nil {
		lock.release()
	} else { // the next one tries again
		err = errors.Join(err, removeErr, lock.f.Close())
	}
	if err == nil && !o.NoRecord {
		err = repo.recordDrill(ctx, &res)
	}
	if err != nil {
		return res, fmt.Errorf("drill: %w", err)
	}
	return res, nil
}

func drill(ctx context.Context, repo *Repository, t RestoreTarget, dir string, o DrillOptions) (res DrillResult, err error) {
	began := time.Now()
	res.Restore, err = Restore(ctx, repo, t, dir, RestoreOptions{MaxRAM: o.MaxRAM, Progress: o.Progress, FS: o.FS})
	res.Restored = time.Since(began)
	if err != nil {
		return res, err
	}
	if lost := res.Restore.Lost; lost != nil {
		return res, &LogLostError{Lost: *lost}
	}
	if err := o.Check(ctx, dir); err != nil {
		return res, fmt.Errorf("check what was restored: %w", err)
	}
	if res.Restore.LSN != res.Restore.Manifest.EndLSN {
		return res, nil
	}
	res.Compared, err = compareInPlace(ctx, repo, &res.Restore.Manifest, dir, o.FS)
	return res, err
}

func checkBlocks(ctx context.Context, dir string, o DrillOptions) error {
	store, err := mvcc.Open(dir, mvcc.Options{FS: o.FS, MaxRAM: o.MaxRAM, ReadOnly: true})
	if err != nil {
		return err
	}
	defer store.Close()
	res, err := store.Check(ctx, nil)
	if err == nil && len(res.Problems) > 0 {
		err = fmt.Errorf("%w: %s", block.ErrCorrupt, res.Problems[0])
	}
	return err
}

// compareInPlace compares every block of a restored data file with what the backup
// says when it is read in place.
func compareInPlace(ctx context.Context, repo *Repository, m *Manifest, dir string, fsys vfs.FS) (n uint64, err error) {
	img, err := OpenBackup(ctx, repo, m.ID, ImageOptions{})
	if err != nil {
		return 0, err
	}
	defer img.Close()
	f, err := fsys.OpenFile(filepath.Join(dir, "data"), 0, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	want, got := make([]byte, m.BlockSize), make([]byte, m.BlockSize)
	for id := range m.HighWater {
		if id%256 == 0 && ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		err := img.ReadBlock(id, want)
		if errors.Is(err, mvcc.ErrNotInUse) {
			continue
		}
		if err == nil {
			_, err = f.ReadAt(got, int64(id)*int64(m.BlockSize))
		}
		if err != nil {
			return n, fmt.Errorf("compare block %v: %w", id, err)
		}
		if string(got) != string(want) {
			return n, &block.CorruptError{Path: f.Name(), Offset: int64(id) * int64(m.BlockSize), Block: id,
				Reason: "it is not what the backup holds"}
		}
		n++
	}
	return n, nil
}

// recordDrill publishes a proof of the backup that was restored.
func (r *Repository) recordDrill(ctx context.Context, res *DrillResult) error {
	m, data, err := r.manifest(ctx, res.Restore.Manifest.ID)
	if err != nil {
		return err
	}
	p := Proof{
		Backup: m.ID, Manifest: sha256.Sum256(data), OK: true, Verified: time.Now().UTC(), Duration: res.Duration,
		Blocks: m.inUse(), RawBytes: int64(m.inUse()) * int64(m.BlockSize), CreatedBy: createdBy,
		Drill: &DrillProof{LSN: res.Restore.LSN, Committed: res.Restore.Time.UTC(), Restored: res.Restored},
	}
	return r.record(ctx, &p, &m)
}
