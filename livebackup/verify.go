package livebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// Of an incremental that is said of the whole chain that it needs, of each block in
// the newest backup that has it. These are the proofs that Restore asks for. What blocks say to each other, the
// order of keys in a tree, is not looked at: that is for a check of the database.
//
// What it found, good or bad, is recorded in the repository; a backup is
// "proven" from then on, or listed as damaged. It keeps a few groups in memory,
// and a few bits for each block.
//
// Damage is a [*block.CorruptError]. An error of the medium proves nothing
// either way and is not recorded.
func Verify(ctx context.Context, repo *Repository, id BackupID, o VerifyOptions) (Proof, error) {
	members, lease, err := repo.leaseChain(ctx, "verify", id)
	if err != nil {
		return Proof{}, fmt.Errorf("verify: %w", err)
	}
	defer lease.Close()
	m := &members[0].Manifest
	prover, err := mvcc.NewProver(m.ID.String(), infoOf(m))
	if err != nil {
		return Proof{}, fmt.Errorf("verify %v: %w", m.ID, err)
	}
	meter := newMeter(o.Progress)
	if err = replayChain(ctx, repo, members, prover, nil, meter); err == nil {
		err = prover.Finish()
	}
	p := Proof{
		Backup: m.ID, Manifest: members[0].digest, OK: err == nil, Verified: meter.started.UTC(), Duration: time.Since(meter.started),
		Blocks: meter.now.Blocks, RawBytes: meter.now.RawBytes, CreatedBy: createdBy,
	}
	found := err
	if err != nil {
		p.Reason = err.Error()
		err = fmt.Errorf("verify %v: %w", m.ID, err)
	}
	if o.NoRecord || err != nil && !errors.Is(err, block.ErrCorrupt) {
		return p, err
	}
	if failed := repo.recordAll(ctx, p, members, culprit(found, members)); failed != nil {
		err = errors.Join(err, fmt.Errorf("record the result of verifying %v: %w", m.ID, failed))
	}
	return p, err
}

// recordAll records what was found of the newest backup of a chain, and the damage
// also of the backup in which it is: that one is to be nobody's base.
func (r *Repository) recordAll(ctx context.Context, p Proof, members []Entry, damaged int) error {
	err := r.record(ctx, &p, &members[0].Manifest)
	if damaged > 0 && err == nil {
		e := &members[damaged]
		p.Backup, p.Manifest = e.ID, e.digest
		err = r.record(ctx, &p, &e.Manifest)
	}
	return err
}

// culprit is the backup of a chain in whose objects damage was found, by the name of
// the object; the newest where nobody else is to blame.
func culprit(err error, members []Entry) int {
	var c *block.CorruptError
	if !errors.As(err, &c) {
		return 0
	}
	id, _, _, _, ok := parseObjectName(c.Path)
	return max(0, slices.IndexFunc(members, func(e Entry) bool { return ok && e.ID == id }))
}
