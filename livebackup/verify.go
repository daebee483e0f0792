package livebackup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// VerifyOptions of Verify. The zero value is good.
type VerifyOptions struct {
	// NoRecord leaves the repository as it is: for one that cannot be written.
	NoRecord bool
	// Progress is called after each group, by one goroutine at a time. It must be quick.
	Progress func(Progress)
}

// Verify reads backup id (the newest if id is zero) back from the medium and
// decodes it on the very path that Restore takes, down to the trailer of every
// block: nothing but the writing is left out. It proves, on every system alike,
//
//   - that the objects are the manifest's, to the byte;
//   - that each block is there once, whole, of this database and no newer than
//     the backup's LSN;
//   - that the blocks are all of the database and nothing else: the meta block,
//     the bitmaps, and each block that these name as in use.
//
// These are the proofs that Restore asks for. What blocks say to each other, the
// order of keys in a tree, is not looked at: that is for a check of the database.
//
// What it found, good or bad, is recorded in the repository; a backup is
// "proven" from then on, or listed as damaged. It keeps a few groups in memory,
// and a few bits for each block.
//
// Damage is a [*block.CorruptError]. An error of the medium proves nothing
// either way and is not recorded.
func Verify(ctx context.Context, repo *Repository, id BackupID, o VerifyOptions) (Proof, error) {
	m, digest, err := repo.find(ctx, id)
	if err != nil {
		return Proof{}, fmt.Errorf("verify: %w", err)
	}
	prover, err := mvcc.NewProver(m.ID.String(), infoOf(&m))
	if err != nil {
		return Proof{}, fmt.Errorf("verify %v: %w", m.ID, err)
	}
	r := newReplay(repo, &m, prover, o.Progress)
	if err = r.run(ctx); err == nil {
		err = prover.Finish()
	}
	p := Proof{
		Backup: m.ID, Manifest: digest, OK: err == nil, Verified: r.started.UTC(), Duration: time.Since(r.started),
		Blocks: r.progress.Blocks, RawBytes: r.progress.RawBytes, CreatedBy: createdBy,
	}
	if err != nil {
		p.Reason = err.Error()
		err = fmt.Errorf("verify %v: %w", m.ID, err)
	}
	if o.NoRecord || err != nil && !errors.Is(err, block.ErrCorrupt) {
		return p, err
	}
	if failed := repo.record(ctx, &p, &m); failed != nil {
		err = errors.Join(err, fmt.Errorf("record the result of verifying %v: %w", m.ID, failed))
	}
	return p, err
}
