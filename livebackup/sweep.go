package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Sweep removes what the dead left: objects of backups that were never
// published or were removed, and whose maker is gone, leases, and temporary names. What
// the next backup can go on with it leaves.
// It returns how many objects it removed. What belongs to the living is left alone.
// [Backup] and [Prune] sweep before they start.
func Sweep(ctx context.Context, repo *Repository) (removed int, err error) {
	c, err := repo.catalog(ctx)
	if err != nil {
		return 0, err
	}
	if len(c.temps) > 0 {
		if err := repo.objects.Delete(ctx, c.temps...); err != nil {
			return 0, writeError("sweep", err)
		}
	}
	removed = len(c.temps)
	for _, name := range slices.Concat(c.leases, c.merges) {
		alive, err := repo.alive(ctx, name)
		if err != nil {
			return removed, err
		}
		if !alive {
			removed++
		}
	}
	resumable, _ := c.cutOff()
	for id, names := range c.objects {
		if id == resumable {
			continue // for the next backup: see rebase.go
		}
		n, err := repo.sweepBackup(ctx, id, names)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// sweepBackup removes what names say of backup id, if its run is dead. The
// claim is asked before the manifest: a run publishes before it lets go.
func (r *Repository) sweepBackup(ctx context.Context, id BackupID, names []string) (int, error) {
	leftovers, published := split(names)
	if published && len(leftovers) == 0 {
		return 0, nil
	}
	claimName := objectName(id, kindRun, 0)
	claim, err := r.objects.Claim(ctx, claimName, nil)
	if errors.Is(err, ErrClaimed) {
		return 0, nil
	}
	if err != nil {
		return 0, writeError("sweep", err)
	}
	defer claim.Close()
	published, err = r.published(ctx, id)
	if err != nil {
		return 0, err
	}
	if !published {
		leftovers = names
		// Who removed the manifest may have died before that was durable.
		if err := r.settle(ctx); err != nil {
			return 0, err
		}
	}
	leftovers = withoutClaim(leftovers, id)
	if err := r.remove(ctx, append(leftovers, claimName)); err != nil {
		return 0, writeError("sweep", err)
	}
	return len(leftovers), nil
}

// split returns the names that even a published backup has no use for.
func split(names []string) (leftovers []string, published bool) {
	for _, name := range names {
		_, k, _, temp, _ := parseObjectName(name)
		if temp || k == kindRun || k == kindPartial {
			leftovers = append(leftovers, name)
		} else if k == kindManifest {
			published = true
		}
	}
	return leftovers, published
}

// published reports whether backup id has a manifest, sound or not.
func (r *Repository) published(ctx context.Context, id BackupID) (bool, error) {
	m, err := r.objects.Open(ctx, objectName(id, kindManifest, 0))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sweep: %w", err)
	}
	return true, m.Close()
}

// remove deletes objects of a backup, the claim last. The deletion of one call
// is durable before that of the next begins.
func (r *Repository) remove(ctx context.Context, names []string) error {
	last := len(names) - 1
	if err := r.objects.Delete(ctx, names[:last]...); err != nil {
		return err
	}
	return r.objects.Delete(ctx, names[last])
}

// withoutClaim takes the name of the run's claim out of names.
func withoutClaim(names []string, id BackupID) []string {
	claim := objectName(id, kindRun, 0)
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == claim })
}
