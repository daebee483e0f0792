package mvcc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// ErrNoImage means that nothing says what a block held: neither an image of it was
// given, nor does the log have one.
var ErrNoImage = errors.New("no image of the block")

// Roller rolls single blocks forward by records of the log, without a store, by the
// rules of redo (R8): a diff applies to exactly its predecessor's LSN, an image
// replaces whatever is there, a free ends what was before, and a commit that was
// given up changes nothing. Not safe for concurrent use.
type Roller struct {
	size   int
	seed   block.Seed
	blocks map[block.ID]*rolled
	taken  []rolledEntry // of the commit whose records are coming
	void   bool
}

// rolled is a block as of the last commit that was taken whole.
type rolled struct {
	image []byte // sealed but for its checksum; nil: free, or not known
	typ   block.Type
	lsn   block.LSN
	until block.LSN // later commits do not count; 0: all do
	err   error     // why it is not known
}

// rolledEntry is an entry of a commit that may still be given up.
type rolledEntry struct {
	redoEntry
	id block.ID // also of a free
}

// NewRoller makes one for blocks of a database, of blockSize bytes.
func NewRoller(blockSize int, database block.DatabaseID) *Roller {
	return &Roller{size: blockSize, seed: block.SeedOf(database), blocks: map[block.ID]*rolled{}}
}

// Track says that block id is to be rolled forward from image, which is as of the
// commit before the first record and becomes the roller's, up to commit until; 0:
// as far as records come. image nil: what it held is not known, and an image in the
// log is waited for. *block.CorruptError if the image is not one of this block.
func (r *Roller) Track(id block.ID, image []byte, until block.LSN) error {
	b := &rolled{until: until, err: ErrNoImage}
	if image != nil {
		reason := fmt.Sprintf("image of %d bytes", len(image))
		var t block.Trailer
		if len(image) == r.size {
			t, reason = block.Verify(image, id, r.seed)
		}
		if reason != "" {
			return &block.CorruptError{Path: "image given", Offset: -1, Block: id, Reason: reason}
		}
		b.image, b.typ, b.lsn, b.err = image, t.Type, t.LSN, nil
	}
	r.blocks[id] = b
	return nil
}

// TrackFree says that block id was free before the first record.
func (r *Roller) TrackFree(id block.ID, until block.LSN) {
	r.blocks[id] = &rolled{until: until, err: ErrNotInUse}
}

// Apply takes one record. Records come in order; what they say counts with the last
// one of their commit. What does not fit a block is that block's error, see Block; an
// error of Apply means that the record does not decode.
func (r *Roller) Apply(rec LogRecord) error {
	err := eachEntry(rec.LSN, rec.Body, func(e *redoEntry) error {
		switch e.kind {
		case entryImage, entryDiff:
			r.take(e, e.id, rec.LSN)
		case entryFree:
			for _, id := range e.ids {
				r.take(e, id, rec.LSN)
			}
		case entryVoid:
			r.void = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("roll forward: %w", err)
	}
	if !rec.Last {
		return nil
	}
	for i := range r.taken {
		if e := &r.taken[i]; !r.void {
			r.blocks[e.id].apply(e, rec.LSN, r.size)
		}
	}
	clear(r.taken)
	r.taken, r.void = r.taken[:0], false
	return nil
}

// take keeps an entry until its commit is whole.
func (r *Roller) take(e *redoEntry, id block.ID, lsn block.LSN) {
	b := r.blocks[id]
	if b == nil || b.until != 0 && lsn > b.until {
		return
	}
	kept := rolledEntry{*e, id}
	kept.runs, kept.ids = slices.Clone(e.runs), nil
	r.taken = append(r.taken, kept)
}

func (b *rolled) apply(e *rolledEntry, lsn block.LSN, size int) {
	if e.kind == entryFree {
		b.image, b.err = nil, ErrNotInUse
		return
	}
	var old []byte
	if e.kind == entryDiff {
		want := lsn - e.since
		switch {
		case b.err != nil && !errors.Is(b.err, ErrNotInUse):
			return // nothing is known, or nothing fits: an image must come
		case b.err != nil:
			b.err = &block.CorruptError{Path: "log", Offset: -1, Block: e.id, Reason: fmt.Sprintf("commit %v changes its version %v, but it is free", lsn, want)}
			return
		case b.lsn >= lsn:
			return
		case b.lsn != want:
			b.err = &block.CorruptError{Path: "log", Offset: -1, Block: e.id, Reason: fmt.Sprintf("commit %v changes its version %v, but it holds %v", lsn, want, b.lsn)}
			b.image = nil
			return
		}
		old = block.Payload(b.image)
	} else if b.err == nil && b.lsn >= lsn {
		return
	}
	image := make([]byte, size)
	copy(block.Payload(image), old)
	if err := e.redoEntry.apply(block.Payload(image), old); err != nil {
		b.image, b.err = nil, fmt.Errorf("commit %v: %w", lsn, err)
		return
	}
	b.image, b.typ, b.lsn, b.err = image, e.typ, lsn, nil
}

// Block returns a block's image, sealed, and its LSN, as of the last commit that was
// taken. ErrNotInUse if it is free; ErrNoImage if nothing says what it holds;
// *block.CorruptError if a record does not fit what was there. The image is the
// roller's.
func (r *Roller) Block(id block.ID) ([]byte, block.LSN, error) {
	b := r.blocks[id]
	switch {
	case b == nil:
		return nil, 0, ErrNoImage
	case b.err != nil:
		return nil, 0, b.err
	}
	block.Seal(b.image, block.Trailer{Type: b.typ, ID: id, LSN: b.lsn}, r.seed)
	return b.image, b.lsn, nil
}
