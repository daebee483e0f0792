package livebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Re-basing. A run that was cut off (killed, cancelled, its sink full, its snapshot gone)
// is not lost: the next one of the same kind, on the same base, goes on with what is
// durable of it.
//
//	run 1, snapshot S      every resumeEvery, when an object of blocks is finished:
//	                       index        of all groups so far, finished
//	                       record       <backup>.partial-N: the objects so far, and S; then
//	                                    the record before it goes
//	(dies)                 nothing of it is listed (L12); a sweep leaves what the newest
//	                       record names, and the record, as long as no later run began
//	run 2, snapshot S'     claims run 1's id, removes what the record does not name,
//	                       and makes of what it names parts of the backup. Blocks that come
//	                       are left out where a part has them already; the others are a
//	                       part of their own. Exact at S'.
//	publish                the manifest; then the records go
//
// A part has a block as it is now if the version that comes now is no newer than the
// snapshot that the part is of. Then it is the version that was taken; a newer part cannot
// hold another one, since that would have been taken because it was newer. Run 2 may die
// as well: its parts are then those of run 1 and its own.
//
// That holds in one history only. A copy of the database may have the same timeline and
// other commits: so S, with its checksum, must be in the log of whoever takes over (R18).
// A standby, whose log has other checksums, takes nothing over: it may have followed
// either. And a backup is for the same recipients from first to last: by their number
// objects are told to be whole, and all of them have to be able to read it.
// What was handed out behind a fall forward is newer than S, and in no record.
//
// What is taken over was synced and proven when it was written. Its objects' sizes and
// its index are proven again now; a verify reads all of it, as of any backup.

// resumeEvery is how much of a run's time may be lost.
const resumeEvery = 10 * time.Second

// partial is the record of a run that is at work, or was cut off.
type partial struct {
	ID           BackupID    `json:"id"`
	Database     hexID       `json:"database"`
	Timeline     hexID       `json:"timeline"`
	BlockSize    int         `json:"block_size"`
	Compression  Compression `json:"compression"`
	Base         BackupID    `json:"base,omitzero"`
	BaseManifest Digest      `json:"base_manifest,omitzero"`
	Recipients   []string    `json:"recipients,omitempty"` // whom its objects are encrypted for; see crypt.go
	Parts        []Part      `json:"parts"`
	Held         []block.LSN `json:"held"`     // of each part: its snapshot
	HeadLSN      block.LSN   `json:"head_lsn"` // the newest of these
	HeadSum      uint32      `json:"head_sum"` // checksum of the log record that ends it (R18)
	Objects      []Object    `json:"objects"`
}

var magicPartial = magic([]byte("SPWYPART"))

// invalid says why p cannot be the record of run id, or "".
func (p *partial) invalid(id BackupID) string {
	if p.ID != id || p.HeadSum == 0 || len(p.Parts) == 0 || len(p.Parts) >= partsMax-2 || len(p.Held) != len(p.Parts) || !block.ValidSize(p.BlockSize) {
		return "it is not one of this run"
	}
	m := p.manifest()
	if reason := m.invalidObjects(); reason != "" {
		return reason
	}
	return m.invalidParts()
}

// manifest is as much of one as parts need.
func (p *partial) manifest() *Manifest {
	m := &Manifest{ID: p.ID, Database: block.DatabaseID(p.Database), BlockSize: p.BlockSize, Parts: p.Parts, Objects: p.Objects}
	for _, part := range p.Parts {
		m.Blocks, m.Groups, m.EndLSN = m.Blocks+part.Blocks, m.Groups+part.Groups, max(m.EndLSN, part.LSN)
	}
	for _, o := range p.Objects {
		m.StoredBytes += o.Size
	}
	return m
}

// heldPart is a part of a run that was cut off, with the blocks that it has.
type heldPart struct {
	held   block.LSN
	blocks *blockSet
}

// resumed is what a run took over.
type resumed struct {
	parts  []heldPart
	blocks uint64
}

// has reports whether a block that comes with this LSN is in a part already.
func (r *resumed) has(id block.ID, lsn block.LSN) bool {
	if r == nil {
		return false
	}
	return slices.ContainsFunc(r.parts, func(p heldPart) bool { return lsn <= p.held && p.blocks.has(id) })
}

// checkpoint makes what is written of the run one that another can go on with.
func (r *run) checkpoint(ctx context.Context) error {
	if r.behind || r.info.RecordSum == 0 || r.blocks.full() == r.recorded || r.blocks.w != nil || time.Since(r.lastRecord) < cmp.Or(r.o.resumeEvery, resumeEvery) {
		return nil
	}
	if err := r.blocks.settle(); err != nil {
		return err
	}
	if err := r.index.flush(ctx); err != nil {
		return err
	}
	if err := r.index.out.finish(); err != nil {
		return err
	}
	p := partial{
		ID: r.id, Database: hexID(r.info.Database), Timeline: hexID(r.info.Timeline), BlockSize: r.info.BlockSize, Compression: r.o.Compression,
		Recipients: r.repo.recipients, HeadLSN: r.info.LSN, HeadSum: r.info.RecordSum,
		Parts: slices.Clone(r.parts), Held: slices.Clone(r.held), Objects: append(slices.Clone(r.blocks.done), r.index.out.done...),
	}
	if r.base != nil {
		p.Base, p.BaseManifest = r.base[0].ID, r.base[0].digest
	}
	if part := r.openPart(); part.Groups > 0 {
		p.Parts, p.Held = append(p.Parts, part), append(p.Held, r.info.LSN)
	}
	data, err := encodeEnvelope(magicPartial, identity{r.repo.id, r.info.Database}, p)
	if err != nil || len(data) > manifestBytesMax {
		return err // of too many objects there is no record: then it begins anew
	}
	if err := r.repo.put(ctx, objectName(r.id, kindPartial, r.records+1), data); err != nil {
		return err
	}
	r.records++
	r.recorded, r.inRecord, r.lastRecord = len(r.blocks.done), p.manifest().Blocks, time.Now()
	if r.records > 1 {
		return r.repo.objects.Delete(ctx, objectName(r.id, kindPartial, r.records-1))
	}
	return nil
}

// openPart is the part that consists of the groups behind the last one.
func (r *run) openPart() Part {
	p := Part{
		LSN: r.info.LSN, HighWater: r.info.HighWater, Blocks: r.written, Groups: r.groups,
		BlocksObjects: uint32(len(r.blocks.done)), IndexObjects: uint32(len(r.index.out.done)),
	}
	if r.behind {
		p.LSN, p.HighWater = r.newest, r.above
	}
	for _, before := range r.parts {
		p.Blocks, p.Groups = p.Blocks-before.Blocks, p.Groups-before.Groups
		p.BlocksObjects, p.IndexObjects = p.BlocksObjects-before.BlocksObjects, p.IndexObjects-before.IndexObjects
	}
	return p
}

// resumable reports whether err leaves what was written good for the next run.
func (r *run) resumable(ctx context.Context, err error) bool {
	return r.records > 0 && (ctx.Err() != nil || errors.Is(err, ErrRepositoryWrite) || errors.Is(err, ErrDisconnected) ||
		errors.Is(err, ErrLeaseExpired) || errors.Is(err, ErrServerClosed) || errors.Is(err, mvcc.ErrBroken) || errors.Is(err, mvcc.ErrClosed))
}

// takeOver has the run go on with one that was cut off, and reports whether there is one
// that it can go on with.
func (r *run) takeOver(ctx context.Context) (bool, error) {
	c, err := r.repo.catalog(ctx)
	if err != nil {
		return false, err
	}
	id, number := c.cutOff()
	if number == 0 {
		return false, nil
	}
	err = r.claimID(ctx, id)
	if errors.Is(err, ErrClaimed) {
		return false, nil
	}
	if err != nil {
		return false, writeError("claim what was cut off", err)
	}
	// It may have been alive when it was listed. A run publishes, and removes what it
	// gives up, before it lets go of its claim: what is listed now counts.
	if c, err = r.repo.catalog(ctx); err != nil {
		r.claim.Close()
		return false, err
	}
	still, newest := c.cutOff()
	if still != id {
		r.claim.Close()
		return false, nil
	}
	went, err := r.resume(ctx, newest)
	if went {
		return true, nil
	}
	r.claim.Close()
	if err != nil && !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, ErrVersion) {
		return false, err
	}
	r.o.Logger.Info("what was cut off is of no use to this backup", "backup", id.String(), "why", err)
	return false, nil
}

// resume takes over what its record says of the run whose id is claimed; false if that
// was of something else, or with an error.
func (r *run) resume(ctx context.Context, number uint32) (bool, error) {
	p, err := r.repo.readPartial(ctx, r.id, number)
	if err != nil {
		return false, err
	}
	m := p.manifest()
	if fits, err := r.fits(ctx, &p, m.EndLSN); !fits || err != nil {
		return false, err
	}
	if err := r.repo.keepOnly(ctx, r.id, number, p.Objects); err != nil {
		return false, err
	}
	taken, err := r.repo.readHeld(ctx, m, p.Held)
	if err != nil {
		return false, err
	}
	r.records, r.parts, r.held, r.resumed = number, p.Parts, p.Held, taken
	r.goOn(m)
	return true, nil
}

// fits reports whether a record, up to the LSN newest, is of a run that this one can go
// on with.
func (r *run) fits(ctx context.Context, p *partial, newest block.LSN) (bool, error) {
	if r.info.RecordSum == 0 {
		return false, nil // a standby: what it is asked of its history it believes
	}
	err := r.src.CheckHead(ctx, r.repo.id, mvcc.Head{LSN: p.HeadLSN, Sum: p.HeadSum})
	if errors.Is(err, mvcc.ErrHistory) || errors.Is(err, errors.ErrUnsupported) { // nobody can tell whose it is
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look in the history for what was cut off: %w", err)
	}
	newest = max(newest, p.HeadLSN)
	base, digest := BackupID{}, Digest{}
	if r.base != nil {
		base, digest = r.base[0].ID, r.base[0].digest
	}
	return block.DatabaseID(p.Database) == r.info.Database && p.BlockSize == r.info.BlockSize && p.Compression == r.o.Compression &&
		slices.Equal(p.Recipients, r.repo.recipients) && newest <= r.info.LSN && lineageOf(r.info.Timeline, r.info.History).holds(block.TimelineID(p.Timeline), newest) &&
		p.Base == base && p.BaseManifest == digest, nil
}

func (r *Repository) readPartial(ctx context.Context, id BackupID, number uint32) (p partial, err error) {
	name := objectName(id, kindPartial, number)
	_, err = r.readOwn(ctx, name, manifestBytesMax, magicPartial, &p)
	if err == nil {
		if reason := p.invalid(id); reason != "" {
			err = damaged(name, -1, reason, nil)
		}
	}
	return p, err
}

// keepOnly removes what a run that was cut off has beside the objects of its record:
// their names are about to be used again. The objects of its record are there, each as
// long as it was recorded: a backup that is published with them is whole (L12).
func (r *Repository) keepOnly(ctx context.Context, id BackupID, number uint32, objects []Object) error {
	c, err := r.catalog(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{objectName(id, kindPartial, number): true, objectName(id, kindRun, 0): true}
	before := int64(0) // what encryption puts before each, the same for all
	for i, o := range objects {
		name := objectName(id, kind(o.Kind), o.Number)
		size, found := c.sizes[name]
		if !found {
			return damaged(name, -1, "object is missing", nil)
		}
		if i == 0 && len(r.recipients) > 0 {
			before = max(size-r.storedBytes(o.Size), 0)
		}
		if want := before + r.storedBytes(o.Size); size != want {
			return damaged(name, -1, fmt.Sprintf("it has %d bytes, by the record it should have %d", size, want), nil)
		}
		keep[name] = true
	}
	surplus := slices.DeleteFunc(slices.Clone(c.objects[id]), func(name string) bool { return keep[name] })
	return r.objects.Delete(ctx, surplus...)
}

// readHeld reads which blocks each part has.
func (r *Repository) readHeld(ctx context.Context, m *Manifest, held []block.LSN) (*resumed, error) {
	out := &resumed{}
	parts := m.parts()
	slices.Reverse(parts)
	for i := range parts {
		p := &parts[i]
		h := heldPart{held[i], newBlockSet()}
		in := indexReader{in: newSeriesReader(r.objects, m, p.index, kindIndex, magicIndex), blockSize: m.BlockSize, next: p.first}
		for {
			s, err := in.read(ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				in.in.close()
				return nil, err
			}
			for _, run := range s.runs {
				for id := run.first; id < run.end(); id++ {
					h.blocks.add(id)
				}
			}
		}
		if in.next != p.first+p.Groups {
			return nil, damaged(objectName(m.ID, kindIndex, 1), -1, fmt.Sprintf("it has %d groups, %d were recorded", in.next-p.first, p.Groups), nil)
		}
		out.parts = append(out.parts, h)
		out.blocks += p.Blocks
	}
	return out, nil
}

// goOn has the run write behind what it took over.
func (r *run) goOn(m *Manifest) {
	for _, o := range m.Objects {
		s := r.blocks
		if o.Kind == string(kindIndex) {
			s = r.index.out
		}
		s.done, s.bytes, s.number = append(s.done, o), s.bytes+o.Size, o.Number
	}
	r.groups, r.index.first, r.written, r.kept, r.recorded = m.Groups, m.Groups, m.Blocks, m.Blocks, len(r.blocks.done)
	r.inRecord = m.Blocks
}

// cutOff is the run that a next one may go on with, and the number of its record; 0 if
// there is none. It may be alive.
func (c *catalog) cutOff() (id BackupID, number uint32) {
	for other, n := range c.partials {
		if other.Sequence == c.sequence && !slices.Contains(c.published, other) {
			id, number = other, n
		}
	}
	return id, number
}
