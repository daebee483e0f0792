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

	// StateDisabled says that the backup is of a future that was abandoned: an
	// older state was restored, and went on. It can be restored, by its ID, as a
	// database on a timeline of its own; it is no base, and no generation.
	StateDisabled State = "disabled"

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
	Disabled   string   // why the backup is none of the present timeline, or ""
	Proof      *Proof   // what the last Verify found; nil if there was none

	digest Digest // SHA-256 of the manifest object, if it was read
	making bool   // its run has hold of it, and may yet take it back: see run.make
}

// State sums the entry up.
func (e *Entry) State() State {
	switch {
	case e.Unreadable != nil:
		return StateUnreadable
	case e.Damage != nil:
		return StateDamaged
	case e.Disabled != "":
		return StateDisabled
	case e.Proof != nil:
		return StateProven
	}
	return StateComplete
}

// List returns the published backups, oldest first. What looks damaged (a
// manifest that fails its checksum, an object that is missing or has the wrong
// size, a backup that the last Verify refused, an incremental whose base is missing
// or damaged) is listed as damaged; what is sound and of no use to the present
// timeline as disabled. Backups that were never published are not listed.
func List(ctx context.Context, repo *Repository) ([]Entry, error) {
	v, err := repo.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return v.entries, nil
}

// inventory is what one look at a repository shows.
type inventory struct {
	entries []Entry
	logs    []LogObject // by timeline, then by LSN
	records registry
	bytes   map[BackupID]int64 // of all objects of a backup
}

// inventory lists the names once, and reads manifests and what is known of timelines.
func (r *Repository) inventory(ctx context.Context) (*inventory, error) {
	c, err := r.catalog(ctx)
	if err != nil {
		return nil, err
	}
	v := &inventory{logs: c.logs, bytes: make(map[BackupID]int64, len(c.objects))}
	if v.entries, err = r.entries(ctx, c); err != nil {
		return nil, err
	}
	if v.records, err = r.registry(ctx, c, v.entries); err != nil {
		return nil, err
	}
	v.records.disable(v.entries)
	for id, names := range c.objects {
		for _, name := range names {
			v.bytes[id] += c.sizes[name]
		}
	}
	return v, nil
}

// entries looks at every backup. None of them is disabled yet.
func (r *Repository) entries(ctx context.Context, c *catalog) ([]Entry, error) {
	list := make([]Entry, 0, len(c.published))
	if len(c.published) == 0 {
		return list, nil
	}
	own := r.owner(ctx)
	for _, id := range c.published {
		making := r.isMaking(ctx, c, id) // before it is looked at: see there
		e, err := r.entry(ctx, c, id, own)
		if err != nil {
			return nil, err
		}
		e.making = making
		if errors.Is(e.Unreadable, ErrBackupNotFound) {
			continue // removed since
		}
		list = append(list, e)
	}
	breakChains(list)
	return list, nil
}

// isMaking reports whether the run of a backup that is listed is not through with it: it
// may find that it has to take it back. A run lets go of its claim when it has done that,
// or will not: so what is still there when nobody has the claim stays. A run that was
// killed may have left a manifest whose name is not durable; that its claim goes, and the
// directory is synced, makes it so.
func (r *Repository) isMaking(ctx context.Context, c *catalog, id BackupID) bool {
	name := objectName(id, kindRun, 0)
	if !slices.Contains(c.objects[id], name) {
		return false
	}
	alive, err := r.alive(ctx, name)
	return alive || err != nil // where that cannot be told it is as if it were
}

// disable marks what is none of the present timeline.
func (g *registry) disable(list []Entry) {
	now, ok := g.present()
	for i := range list {
		if e := &list[i]; ok && !e.Manifest.ID.IsZero() {
			e.Disabled = now.disabled(&e.Manifest)
		}
	}
}

// catalog is what the names in a repository say.
type catalog struct {
	sizes     map[string]int64
	published []BackupID            // by sequence; those with a manifest
	proofs    map[BackupID]uint32   // highest number
	partials  map[BackupID]uint32   // highest number
	objects   map[BackupID][]string // all names of a backup, temporary ones too
	temps     []string              // temporary names of no backup
	timelines []uint32              // records of the registry, by number
	leases    []string              // names, of the living and of the dead
	merges    []string              // the claim of who merges, if it is there
	logs      []LogObject           // by timeline, then by LSN
	sequence  uint64                // highest seen
}

func (r *Repository) catalog(ctx context.Context) (*catalog, error) {
	list, err := r.objects.List(ctx)
	if err != nil {
		return nil, err
	}
	c := &catalog{sizes: make(map[string]int64, len(list)), proofs: map[BackupID]uint32{}, partials: map[BackupID]uint32{}, objects: map[BackupID][]string{}}
	for _, o := range list {
		c.enter(o)
	}
	slices.Sort(c.timelines)
	slices.SortFunc(c.logs, byPlace)
	slices.SortFunc(c.published, func(a, b BackupID) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Random, b.Random))
	})
	return c, nil
}

func (c *catalog) enter(o ObjectInfo) {
	id, k, number, temp, ok := parseObjectName(o.Name)
	if !ok {
		c.enterOther(o, temp)
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
	case kindPartial:
		c.partials[id] = max(c.partials[id], number)
	case kindProof:
		c.proofs[id] = max(c.proofs[id], number)
	}
}

// enterOther enters an object that is no backup's.
func (c *catalog) enterOther(o ObjectInfo, temp bool) {
	if temp {
		c.temps = append(c.temps, o.Name)
	} else if number, ok := parseTimelineName(o.Name); ok {
		c.timelines = append(c.timelines, number)
	} else if _, ok := parseLeaseName(o.Name); ok {
		c.leases = append(c.leases, o.Name)
	} else if l, ok := parseLogName(o); ok {
		c.logs = append(c.logs, l)
	} else if o.Name == mergeName {
		c.merges = append(c.merges, o.Name)
	}
}

// entry looks at one backup, without its chain and without reading its blocks. own is
// whose the repository is.
func (r *Repository) entry(ctx context.Context, c *catalog, id BackupID, own owner) (Entry, error) {
	e := Entry{ID: id}
	m, data, err := r.manifestOf(ctx, id, own)
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
	e.Manifest, e.digest = m, sha256.Sum256(data)
	// The objects of a backup are for the same recipients, so what is before each is
	// as long as it is before the manifest.
	before := c.sizes[objectName(id, kindManifest, 0)] - r.storedBytes(int64(len(data)))
	for _, o := range m.Objects {
		name, want := objectName(id, kind(o.Kind), o.Number), before+r.storedBytes(o.Size)
		if size, found := c.sizes[name]; !found {
			e.Damage = damaged(name, -1, "object is missing", nil)
		} else if size != want {
			e.Damage = damaged(name, -1, fmt.Sprintf("it has %d bytes, by the manifest it should have %d", size, want), nil)
		}
	}
	e.Proof = r.newestProof(ctx, c, id, e.digest)
	if e.Proof != nil && !e.Proof.OK && e.Damage == nil {
		e.Damage = damaged(id.String(), -1, "verify found: "+e.Proof.Reason, nil)
	}
	return e, nil
}

// manifest reads the manifest of backup id; data is the object, whole.
func (r *Repository) manifest(ctx context.Context, id BackupID) (m Manifest, data []byte, err error) {
	return r.manifestOf(ctx, id, r.owner(ctx))
}

// manifestOf is manifest for who knows whose the repository is.
func (r *Repository) manifestOf(ctx context.Context, id BackupID, own owner) (m Manifest, data []byte, err error) {
	data, err = readSmall(ctx, r.objects, objectName(id, kindManifest, 0), manifestBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil, fmt.Errorf("%v: %w", id, ErrBackupNotFound)
	}
	if err != nil {
		return m, nil, err
	}
	if m, err = decodeManifest(data, id, r.id); err != nil {
		return Manifest{}, nil, err
	}
	return m, data, own.check(&m)
}

// owner is the database that a repository belongs to, as far as that could be read.
type owner struct {
	database block.DatabaseID
	bound    bool
	err      error
}

func (r *Repository) owner(ctx context.Context) (o owner) {
	o.database, o.bound, o.err = r.Database(ctx)
	return o
}

// check proves that m is of that database.
func (o owner) check(m *Manifest) error {
	if o.err != nil {
		return o.err
	}
	if !o.bound || o.database != m.Database {
		return damaged(objectName(m.ID, kindManifest, 0), -1, "it is of database "+m.Database.String()+", which is not the repository's", nil)
	}
	return nil
}

// newest is the newest backup that is not disabled. That it is damaged or cannot be
// read is an error: an older one is never taken unasked.
func (r *Repository) newest(ctx context.Context) (Entry, error) {
	list, err := List(ctx, r)
	if err != nil {
		return Entry{}, err
	}
	for _, e := range slices.Backward(list) {
		switch {
		case e.Unreadable != nil:
			return Entry{}, fmt.Errorf("%v: %w", e.ID, e.Unreadable)
		case e.Damage != nil && e.Disabled == "":
			return Entry{}, fmt.Errorf("%v: %w: %w", e.ID, ErrBackupDamaged, e.Damage)
		case e.Disabled == "":
			return e, nil
		}
	}
	if len(list) > 0 {
		return Entry{}, fmt.Errorf("%w: all %d are disabled: name one of them", ErrBackupNotFound, len(list))
	}
	return Entry{}, fmt.Errorf("%w: there are none", ErrBackupNotFound)
}
