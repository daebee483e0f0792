package mvcc

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Redo is the log of the commits (F, E] that a backup that fell forward carries
// (R12). It is read twice, as recovery reads its log (R8): [Redo.Survey] finds out
// which blocks are freed, and when; [Redo.Changes] then says what is left to be done.
// It keeps some tens of bytes for each block that is changed or freed. Not safe for
// concurrent use; Changes and Makes are, once all was surveyed.
type Redo struct {
	geo      geometry
	from, to block.LSN

	due      block.LSN // commit whose record comes next in the survey
	lastFree map[block.ID]block.LSN
	changed  map[block.ID]block.LSN // the newest whole image of each block that is changed; 0: none
	void     map[block.LSN]struct{}

	// Of the commit that is being surveyed:
	given  bool // it was given up
	images []block.ID
	diffs  []block.ID
	frees  []block.ID
}

// NewRedo begins a survey of the commits (from, to] of a database with blocks of
// blockSize bytes, which is valid ([block.ValidSize]).
func NewRedo(blockSize int, from, to block.LSN) *Redo {
	return &Redo{
		geo: newGeometry(blockSize), from: from, to: to, due: from + 1,
		lastFree: map[block.ID]block.LSN{}, changed: map[block.ID]block.LSN{}, void: map[block.LSN]struct{}{},
	}
}

// Survey takes the next record, in order.
func (r *Redo) Survey(rec LogRecord) error {
	if rec.LSN != r.due || rec.LSN > r.to {
		return fmt.Errorf("survey redo: %w", &OrderError{rec.LSN, r.due})
	}
	if err := eachEntry(rec.LSN, rec.Body, r.note); err != nil {
		return fmt.Errorf("survey redo: %w", err)
	}
	if rec.Last {
		r.settle(rec.LSN)
	}
	return nil
}

func (r *Redo) note(e *redoEntry) error {
	switch e.kind {
	case entryVoid:
		r.given = true
	case entryFree:
		r.frees = append(r.frees, e.ids...)
	case entryImage, entryDiff:
		if e.id >= blocksMax || !r.geo.isVersioned(e.id) {
			return fmt.Errorf("%w: block %v has no versions", errRedo, e.id)
		}
		if e.kind == entryImage {
			r.images = append(r.images, e.id)
		} else {
			r.diffs = append(r.diffs, e.id)
		}
	}
	return nil
}

// settle enters a commit that is whole.
func (r *Redo) settle(lsn block.LSN) {
	if r.given {
		r.void[lsn] = struct{}{}
		r.images, r.diffs, r.frees = r.images[:0], r.diffs[:0], r.frees[:0]
	}
	for _, id := range r.diffs {
		if _, known := r.changed[id]; !known {
			r.changed[id] = 0
		}
	}
	for _, id := range r.images {
		r.changed[id] = lsn
	}
	for _, id := range r.frees {
		r.lastFree[id] = lsn
	}
	r.given, r.images, r.diffs, r.frees = false, r.images[:0], r.diffs[:0], r.frees[:0]
	r.due++
}

// Surveyed is an error unless Survey was given all commits.
func (r *Redo) Surveyed() error {
	if r.due != r.to+1 {
		return fmt.Errorf("redo ends before commit %v, it should go to %v: %w", r.due, r.to, ErrOrder)
	}
	return nil
}

// Makes reports whether the redo has a whole image of a block that no later commit
// of it frees: then it needs nothing that was there before.
func (r *Redo) Makes(id block.ID) bool {
	image := r.changed[id]
	return image != 0 && image > r.lastFree[id]
}

// Change is what a commit does to one block.
type Change struct {
	ID     block.ID
	LSN    block.LSN
	Whole  bool      // it needs no version before
	Before block.LSN // the version that it changes, unless it is whole
	Offset int       // where it stands in the body of its record, in bytes

	entry redoEntry
}

// Changes calls fn for what a record of the redo does to blocks, all but what a later
// free makes void. All was surveyed.
func (r *Redo) Changes(rec LogRecord, fn func(*Change) error) error {
	if _, void := r.void[rec.LSN]; void {
		return nil
	}
	rd := redoReader{rec.Body}
	for {
		at := len(rec.Body) - len(rd.rest)
		e, more, err := rd.next()
		if err == nil && more && (e.kind == entryImage || e.kind == entryDiff) && rec.LSN >= r.lastFree[e.id] {
			c := changeOf(e, rec.LSN, at)
			err = fn(&c)
		}
		if err != nil {
			return fmt.Errorf("redo commit %v: %w", rec.LSN, err)
		}
		if !more {
			return nil
		}
	}
}

func changeOf(e redoEntry, lsn block.LSN, at int) Change {
	c := Change{ID: e.id, LSN: lsn, Whole: e.kind == entryImage, Offset: at, entry: e}
	if !c.Whole {
		c.Before = lsn - e.since
	}
	return c
}

// ChangeAt decodes the change of commit lsn that body begins with, see
// [Change.Offset].
func ChangeAt(body []byte, lsn block.LSN) (Change, error) {
	rd := redoReader{body}
	e, more, err := rd.next()
	if err == nil && (!more || e.kind != entryImage && e.kind != entryDiff) {
		err = fmt.Errorf("%w: no change of a block", errRedo)
	}
	return changeOf(e, lsn, 0), err
}

// Due reports whether the change is to be applied to version have of its block, if
// there is one (R8): not if that is at or past it. An error says that it fits neither.
func (c *Change) Due(have block.LSN, there bool) (bool, error) {
	switch {
	case there && have >= c.LSN:
		return false, nil
	case c.Whole || there && have == c.Before:
		return true, nil
	case !there:
		return false, fmt.Errorf("commit %v changes version %v of block %v, which is missing", c.LSN, c.Before, c.ID)
	}
	return false, fmt.Errorf("commit %v changes version %v of block %v, and there is %v", c.LSN, c.Before, c.ID, have)
}

// Make writes to image, of one block, the version that the change makes of old, the
// image that it is due for; nil if it is whole. The two do not overlap.
func (c *Change) Make(image, old []byte, seed block.Seed) error {
	var before []byte
	if c.Whole {
		clear(image)
	} else {
		copy(image, old)
		before = block.Payload(old)
	}
	if err := c.entry.apply(block.Payload(image), before); err != nil {
		return fmt.Errorf("commit %v changes block %v: %w", c.LSN, c.ID, err)
	}
	block.Seal(image, block.Trailer{Type: c.entry.typ, ID: c.ID, LSN: c.LSN}, seed)
	return nil
}

// redone is what a Prover knows of a block that redo changes.
type redone struct {
	lsn   block.LSN
	there bool
}

// Follow says that redo will follow, which was surveyed. Before the first Write.
func (p *Prover) Follow(r *Redo) {
	if p.redone == nil {
		p.redone = map[block.ID]redone{}
	}
	for id := range r.changed {
		p.redone[id] = redone{}
	}
}

// Redo is told the records of redo that was announced by Follow, in order, when all
// blocks were told, and proves that it leads from them to the backup's LSN. inUse tells
// which blocks are in use there: others are left alone.
func (p *Prover) Redo(r *Redo, rec LogRecord, inUse func(block.ID) bool) error {
	return r.Changes(rec, func(c *Change) error {
		if !inUse(c.ID) {
			return nil
		}
		_, err := p.change(c)
		return err
	})
}

// change does what a change does to what is known of its block, and reports whether
// it is to be applied.
func (p *Prover) change(c *Change) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ID >= p.info.HighWater || c.LSN > p.info.LSN {
		return false, p.corrupt(c.ID, fmt.Sprintf("commit %v changes it, with the high-water mark at %v", c.LSN, p.info.HighWater))
	}
	now := p.redone[c.ID]
	due, err := c.Due(now.lsn, now.there)
	if err != nil {
		return false, p.corrupt(c.ID, err.Error())
	}
	if !due {
		return false, nil
	}
	p.redone[c.ID] = redone{c.LSN, true}
	p.there.add(c.ID)
	return true, p.keep(c)
}

// keep applies a change to those blocks that say what there is.
func (p *Prover) keep(c *Change) error {
	g := p.geo.groupOf(c.ID)
	if c.ID != metaBlock && c.ID != p.geo.bitmapOf(g) {
		return nil
	}
	old := p.bitmaps[g]
	if c.ID == metaBlock {
		old = p.metaPayload
	}
	now := make([]byte, p.geo.size-block.TrailerSize)
	if !c.Whole {
		copy(now, old)
	}
	if err := c.entry.apply(now, old); err != nil {
		return p.corrupt(c.ID, err.Error())
	}
	if c.ID == metaBlock {
		p.metaPayload = now
	} else {
		p.bitmaps[g] = now
	}
	return nil
}

// finishRedo proves that the state is as large as it is said to be: what was told of
// it beforehand comes from a time when that was not known.
func (p *Prover) finishRedo() error {
	if p.redone == nil {
		return nil
	}
	if hw := decodeMeta(p.metaPayload).highWater; hw != p.info.HighWater {
		return p.corrupt(metaBlock, fmt.Sprintf("it has the high-water mark %v, where %v was due", hw, p.info.HighWater))
	}
	return nil
}

// Redo is that of [Prover.Redo], and writes what the blocks become.
func (b *Builder) Redo(r *Redo, rec LogRecord, inUse func(block.ID) bool) error {
	if b.redo == nil {
		b.redo = &redoWriterAt{file: b.file, geo: b.geo, seed: b.seed, images: map[block.ID][]byte{}}
	}
	return r.Changes(rec, func(c *Change) error {
		if !inUse(c.ID) {
			return nil
		}
		due, err := b.change(c)
		if err != nil || !due {
			return err
		}
		b.told(c.ID, c.LSN)
		return b.redo.apply(c)
	})
}

// redoWriterAt applies changes to a data file that nobody else writes. It keeps the
// blocks that were changed last, so that a hot one is not written each time. Whatever
// of that reaches the disk before a crash, each block of the file is then one
// that redo leads on from, or has a bad checksum and is written anew.
type redoWriterAt struct {
	file   vfs.File
	geo    geometry
	seed   block.Seed
	images map[block.ID][]byte
	spare  []byte
}

// redoKept is how many blocks are kept.
const redoKept = 1 << 10

func (w *redoWriterAt) apply(c *Change) error {
	old := w.images[c.ID]
	if old == nil && !c.Whole {
		var err error
		if old, err = w.read(c); err != nil {
			return err
		}
	}
	image := w.spare
	if image == nil {
		image = make([]byte, w.geo.size)
	}
	if err := c.Make(image, old, w.seed); err != nil {
		return &block.CorruptError{Path: w.file.Name(), Offset: w.geo.offset(c.ID), Block: c.ID, Reason: "redo does not fit it", Cause: err}
	}
	w.images[c.ID], w.spare = image, old
	if len(w.images) > redoKept {
		return w.flush()
	}
	return nil
}

// read reads the version that a change is due for.
func (w *redoWriterAt) read(c *Change) ([]byte, error) {
	image := make([]byte, w.geo.size)
	if _, err := w.file.ReadAt(image, w.geo.offset(c.ID)); err != nil {
		return nil, fmt.Errorf("redo: read block %v: %w", c.ID, err)
	}
	t, reason := block.Verify(image, c.ID, w.seed)
	if reason == "" && t.LSN != c.Before {
		reason = fmt.Sprintf("it has LSN %v where %v was written", t.LSN, c.Before)
	}
	if reason != "" {
		return nil, &block.CorruptError{Path: w.file.Name(), Offset: w.geo.offset(c.ID), Block: c.ID, Reason: reason}
	}
	return image, nil
}

// flush writes what is kept, in the order of the file.
func (w *redoWriterAt) flush() error {
	if w == nil {
		return nil
	}
	ids := make([]block.ID, 0, len(w.images))
	for id := range w.images {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b block.ID) int { return cmp.Compare(a, b) })
	for _, id := range ids {
		if _, err := w.file.WriteAt(w.images[id], w.geo.offset(id)); err != nil {
			return fmt.Errorf("redo: write block %v: %w", id, err)
		}
	}
	clear(w.images)
	return nil
}
