package livebackup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
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
// block: nothing but the writing is left out. It proves that each block of the
// backup is there once and whole. What it found, good or bad, is recorded in
// the repository; a backup is "proven" from then on, or listed as damaged.
//
// Damage is a [*block.CorruptError]. An error of the medium proves nothing
// either way and is not recorded.
func Verify(ctx context.Context, repo *Repository, id BackupID, o VerifyOptions) (Proof, error) {
	m, digest, err := repo.find(ctx, id)
	if err != nil {
		return Proof{}, fmt.Errorf("verify: %w", err)
	}
	r := newReplay(repo, &m, discard{}, o.Progress)
	err = r.run(ctx)
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

// discard is where Verify puts blocks.
type discard struct{}

func (discard) Write(block.ID, []byte) error { return nil }
