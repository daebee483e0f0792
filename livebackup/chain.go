package livebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A chain is a backup and those that it needs, the newest first: incrementals,
// each on the next, and a full backup at the end. A full backup is a chain of one.

// chainOf returns the chain of backup id out of a list. What only reading it can
// tell, such as whether blocks are sound, is not looked at; nor is what a list says
// of damage beyond the manifests.
func chainOf(entries []Entry, id BackupID) ([]Entry, error) {
	return follow(id, func(id BackupID) (*Entry, error) {
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("%v: %w", id, ErrBackupNotFound)
		}
		return &entries[i], nil
	})
}

// chain reads the chain of backup id from the repository: of the newest if id is
// zero, which then must not be damaged.
func (r *Repository) chain(ctx context.Context, id BackupID) ([]Entry, error) {
	if id.IsZero() {
		e, err := r.newest(ctx)
		if err != nil {
			return nil, err
		}
		id = e.ID
	}
	c, err := r.catalog(ctx)
	if err != nil {
		return nil, err
	}
	return follow(id, func(id BackupID) (*Entry, error) {
		if !slices.Contains(c.published, id) {
			return nil, fmt.Errorf("%v: %w", id, ErrBackupNotFound)
		}
		e, err := r.entry(ctx, c, id, r.owner(ctx))
		return &e, err
	})
}

// follow walks a chain from backup id on. It ends: see Manifest.invalidKind.
func follow(id BackupID, find func(BackupID) (*Entry, error)) ([]Entry, error) {
	e, err := find(id)
	if err != nil {
		return nil, err
	}
	var members []Entry
	for {
		if e.Unreadable != nil {
			return nil, fmt.Errorf("%v: %w", e.ID, e.Unreadable)
		}
		if e.Manifest.ID != e.ID {
			return nil, e.Damage // of the manifest
		}
		members = append(members, *e)
		if e.Manifest.Kind == KindFull {
			return members, nil
		}
		base, err := find(e.Manifest.Base)
		if errors.Is(err, ErrBackupNotFound) {
			err = brokenChain(e.ID, err)
		}
		if err != nil {
			return nil, err
		}
		if err := linkFault(&e.Manifest, base); err != nil {
			return nil, err
		}
		e = base
	}
}

// brokenChain says that backup id cannot be restored because of its base.
func brokenChain(id BackupID, cause error) error {
	return damaged(objectName(id, kindManifest, 0), -1, "its base is of no use", fmt.Errorf("%w: %w", ErrChain, cause))
}

// linkFault says why base, whose manifest was read, cannot be what the
// incremental m was made on.
func linkFault(m *Manifest, base *Entry) error {
	if base.Unreadable != nil {
		return nil // nothing is known
	}
	b, reason := &base.Manifest, ""
	switch {
	case b.ID != m.Base:
		return brokenChain(m.ID, base.Damage)
	case base.digest != m.BaseManifest:
		reason = "is not the one that it was made on"
	case b.EndLSN != m.BaseLSN:
		reason = fmt.Sprintf("is exact at LSN %v, not at %v", b.EndLSN, m.BaseLSN)
	case b.Database != m.Database || b.BlockSize != m.BlockSize:
		reason = "is of another database"
	case !lineageOf(m.Timeline, m.History).usable(b):
		reason = "is not in its history"
	default:
		return nil
	}
	return brokenChain(m.ID, fmt.Errorf("%v %s", b.ID, reason))
}

// breakChains marks, in a whole list, the incrementals that cannot be restored
// because one of those that they need cannot.
func breakChains(list []Entry) {
	at := make(map[BackupID]*Entry, len(list))
	for i := range list { // the oldest first: a base was looked at before
		e := &list[i]
		at[e.ID] = e
		if e.Damage != nil || e.Unreadable != nil || e.Manifest.Kind != KindIncremental {
			continue
		}
		base := at[e.Manifest.Base]
		switch {
		case base == nil:
			e.Damage = brokenChain(e.ID, fmt.Errorf("%v: %w", e.Manifest.Base, ErrBackupNotFound))
		case base.Unreadable != nil:
			e.Unreadable = fmt.Errorf("its base %v: %w", base.ID, base.Unreadable)
		case linkFault(&e.Manifest, base) != nil:
			e.Damage = linkFault(&e.Manifest, base)
		case base.Damage != nil:
			e.Damage = brokenChain(e.ID, base.Damage)
		}
	}
}
