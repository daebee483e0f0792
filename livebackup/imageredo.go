package livebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// ErrRedoTooLarge: a backup that fell forward has more redo than can be kept in mind
// to read it in place. Restore it, which has no such limit.
var ErrRedoTooLarge = errors.New("too much redo to read the backup in place")

// imageChangesMax is how many changes of redo an image keeps in mind, 24 bytes for each.
const imageChangesMax = 40 << 20

// imageRedo is the redo of one backup of a chain, by block: what is in an image when
// it is read is applied to each block that is asked for (R12). It does not change.
type imageRedo struct {
	part    uint16 // the number of the first of that backup's parts in the image
	chunks  []redoChunk
	changes map[block.ID][]changePlace // those that count, in order
}

// changePlace is where a change of a block is.
type changePlace struct {
	lsn   block.LSN
	chunk uint32
	off   uint32 // in the decoded chunk
}

// openBitmaps opens a chain of which only the bitmaps will be read.
func openBitmaps(ctx context.Context, repo *Repository, members []Entry, windows []redoWindow) (*Image, error) {
	layout := mvcc.LayoutOf(members[0].Manifest.BlockSize)
	return openImage(ctx, repo, members, windows, ImageOptions{CacheBytes: imageCacheMin}, func(id block.ID) bool {
		return id == layout.Bitmap(layout.GroupOf(id))
	})
}

// readRedo makes the index of a window.
func (img *Image) readRedo(ctx context.Context, w redoWindow, only func(block.ID) bool) (*imageRedo, error) {
	r := &imageRedo{changes: map[block.ID][]changePlace{}}
	r.part = uint16(slices.IndexFunc(img.parts, func(p *imagePart) bool { return p.manifest.ID == w.manifest.ID }))
	count := 0
	err := w.read(ctx, img.repo.objects, func(c *redoChunk, at int, rec mvcc.LogRecord) error {
		if n := len(r.chunks); n == 0 || r.chunks[n-1] != *c {
			r.chunks = append(r.chunks, *c)
		}
		return w.redo.Changes(rec, func(change *mvcc.Change) error {
			if only != nil && !only(change.ID) {
				return nil
			}
			if count++; count > imageChangesMax {
				return fmt.Errorf("backup %v: %w", w.manifest.ID, ErrRedoTooLarge)
			}
			r.changes[change.ID] = append(r.changes[change.ID], changePlace{change.LSN, uint32(len(r.chunks) - 1), uint32(at + change.Offset)})
			return nil
		})
	})
	return r, err
}

// redo brings image, of block id, to where the redo leads; there is false if no backup
// of the chain has the block.
func (img *Image) redo(id block.ID, image []byte, there bool) (bool, error) {
	var lsn block.LSN
	if there {
		t, reason := block.Verify(image, id, img.seed)
		if reason != "" {
			return false, &block.CorruptError{Path: img.id().String(), Offset: -1, Block: id, Reason: reason}
		}
		lsn = t.LSN
	}
	var old []byte
	for i, r := range img.redos {
		for _, place := range r.changes[id] {
			c, err := img.change(i, place)
			if err != nil {
				return false, err
			}
			due, err := c.Due(lsn, there)
			if err == nil && due {
				old = append(old[:0], image...)
				err = c.Make(image, old, img.seed)
			}
			if err != nil {
				return false, &block.CorruptError{Path: img.id().String(), Offset: -1, Block: id, Reason: err.Error()}
			}
			if due {
				lsn, there = c.LSN, true
			}
		}
	}
	return there, nil
}

// change decodes a change out of its chunk.
func (img *Image) change(redo int, at changePlace) (mvcc.Change, error) {
	r := img.redos[redo]
	m := img.parts[r.part].manifest
	c := r.chunks[at.chunk]
	name := objectName(m.ID, kindLog, c.object)
	raw, err := img.cache.get(imageKey{keyChunk, r.part, uint64(at.chunk)}, func() (any, int64, error) {
		stored := make([]byte, c.head.stored) // capped by decodeChunkHead, as raw is
		if err := img.objects.read(objectKey{r.part, kindLog, c.object}, stored, c.off+chunkHeadSize); err != nil {
			return nil, 0, err
		}
		d := <-img.decoder
		defer func() { img.decoder <- d }()
		raw, err := decodeChunk(d, name, c, stored, make([]byte, c.head.raw))
		return raw, int64(cap(raw)), err
	})
	if err != nil {
		return mvcc.Change{}, err
	}
	change, err := mvcc.ChangeAt(raw.([]byte)[at.off:], at.lsn)
	if err != nil {
		err = damaged(name, c.off, "its redo is not what it was", err)
	}
	return change, err
}
