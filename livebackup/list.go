package livebackup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// State is what a list says about a backup.
type State string

// The states of a listed backup.
const (
	StateComplete State = "complete" // published whole; not read back since
	StateProven   State = "proven"   // read back whole by Verify; see Entry.Proof
	StateDamaged  State = "damaged"  // cannot be restored; see Entry.Damage

	// StateUnreadable says that the manifest could not be read, by whoever asked
	// and now; see Entry.Unreadable. Nothing is known of the backup.
	StateUnreadable State = "unreadable"
)

// Entry is a backup in a list.
type Entry struct {
	ID         BackupID
	Manifest   Manifest // zero if the manifest itself is damaged, or was not read
	Damage     error    // why the backup cannot be restored, as far as known without reading it all
	Unreadable error    // why the manifest could not be read: rights, the medium, a newer format
	Proof      *Proof   // what the last Verify found; nil if there was none
}

// State sums the entry up.
func (e *Entry) State() State {
	switch {
	case e.Unreadable != nil:
		return StateUnreadable
	case e.Damage != nil:
		return StateDamaged
	case e.Proof != nil:
		return StateProven
	}
	return StateComplete
}

// List returns the published backups, oldest first. What looks damaged (a
// manifest that fails its checksum, an object that is missing or has the wrong
// size, a backup that the last Verify refused) is listed as damaged. Backups
// that were never published are not listed.
func List(ctx context.Context, repo *Repository) ([]Entry, error) {
	c, err := repo.catalog(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(c.published))
	for _, id := range c.published {
		e, err := repo.entry(ctx, c, id)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// catalog is what the names in a repository say.
type catalog struct {
	sizes     map[string]int64
	published []BackupID            // by sequence; those with a manifest
	proofs    map[BackupID]uint32   // highest number
	objects   map[BackupID][]string // all names of a backup, temporary ones too
	temps     []string              // temporary names of no backup
	sequence  uint64                // highest seen
}

func (r *Repository) catalog(ctx context.Context) (*catalog, error) {
	list, err := r.objects.List(ctx)
	if err != nil {
		return nil, err
	}
	c := &catalog{sizes: make(map[string]int64, len(list)), proofs: map[BackupID]uint32{}, objects: map[BackupID][]string{}}
	for _, o := range list {
		c.enter(o)
	}
	slices.SortFunc(c.published, func(a, b BackupID) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Random, b.Random))
	})
	return c, nil
}

func (c *catalog) enter(o ObjectInfo) {
	id, k, number, temp, ok := parseObjectName(o.Name)
	if !ok {
		if temp {
			c.temps = append(c.temps, o.Name)
		}
		return
	}
	c.sequence = max(c.sequence, id.Sequence)
	c.objects[id] = append(c.objects[id], o.Name)
	if temp {
		return
	}
	c.sizes[o.Name] = o.Size
	switch k {
	case kindManifest:
		c.published = append(c.published, id)
	case kindProof:
		c.proofs[id] = max(c.proofs[id], number)
	}
}

// entry looks at one backup without reading its blocks.
func (r *Repository) entry(ctx context.Context, c *catalog, id BackupID) (Entry, error) {
	e := Entry{ID: id}
	m, digest, err := r.manifest(ctx, id)
	if ctx.Err() != nil {
		return e, context.Cause(ctx)
	}
	if errors.Is(err, block.ErrCorrupt) {
		e.Damage = err
		return e, nil
	}
	if err != nil {
		e.Unreadable = err
		return e, nil
	}
	e.Manifest = m
	for _, o := range m.Objects {
		name := objectName(id, kind(o.Kind), o.Number)
		if size, found := c.sizes[name]; !found {
			e.Damage = damaged(name, -1, "object is missing", nil)
		} else if size != o.Size {
			e.Damage = damaged(name, -1, fmt.Sprintf("it has %d bytes, the manifest says %d", size, o.Size), nil)
		}
	}
	e.Proof = r.newestProof(ctx, c, id, digest)
	if e.Proof != nil && !e.Proof.OK && e.Damage == nil {
		e.Damage = damaged(id.String(), -1, "verify found: "+e.Proof.Reason, nil)
	}
	return e, nil
}

// manifest reads the manifest of backup id and its digest.
func (r *Repository) manifest(ctx context.Context, id BackupID) (Manifest, Digest, error) {
	data, err := readSmall(ctx, r.objects, objectName(id, kindManifest, 0), manifestBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, Digest{}, fmt.Errorf("%v: %w", id, ErrBackupNotFound)
	}
	if err != nil {
		return Manifest{}, Digest{}, err
	}
	m, err := decodeManifest(data, id, r.id)
	if err != nil {
		return Manifest{}, Digest{}, err
	}
	return m, sha256.Sum256(data), r.checkOwner(ctx, &m)
}

// checkOwner proves that m is of the database that the repository belongs to.
func (r *Repository) checkOwner(ctx context.Context, m *Manifest) error {
	owner, bound, err := r.Database(ctx)
	if err != nil {
		return err
	}
	if !bound || owner != m.Database {
		return damaged(objectName(m.ID, kindManifest, 0), -1, "it is of database "+m.Database.String()+", which is not the repository's", nil)
	}
	return nil
}

// find resolves id: the newest backup if it is zero.
func (r *Repository) find(ctx context.Context, id BackupID) (Manifest, Digest, error) {
	if id.IsZero() {
		c, err := r.catalog(ctx)
		if err != nil {
			return Manifest{}, Digest{}, err
		}
		if len(c.published) == 0 {
			return Manifest{}, Digest{}, fmt.Errorf("%w: there are none", ErrBackupNotFound)
		}
		id = c.published[len(c.published)-1]
		e, err := r.entry(ctx, c, id)
		if err == nil && e.Unreadable != nil {
			err = fmt.Errorf("%v: %w", id, e.Unreadable)
		}
		if err == nil && e.Damage != nil {
			err = fmt.Errorf("%v: %w: %w", id, ErrBackupDamaged, e.Damage)
		}
		if err != nil {
			return Manifest{}, Digest{}, err
		}
	}
	return r.manifest(ctx, id)
}
