package livebackup

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// The redo of a backup that fell forward (R12), in objects of its own:
//
//	<backup>.log-00000001, -2...
//
// Each begins with an object header, with the magic "SPWYREDO", and goes on with chunks
// as in archived log (logformat.go), numbered from 0 through all objects of the backup.
// Decoded, a chunk is whole records. Together they are the commits (F, EndLSN], in order,
// and nothing else.

var magicRedo = magic([]byte("SPWYREDO"))

// redoReader reads the redo of a backup from first to last, proving all of it. What it
// hands out counts only when it has returned io.EOF. Not safe for concurrent use.
type redoReader struct {
	in       *seriesReader
	manifest *Manifest
	decoder  *decoder
	number   uint32    // of the chunk that is due
	due      block.LSN // commit whose record is due
	open     bool      // a part of it came
	records  uint64
	bytes    int64
	stored   []byte
	raw      []byte
}

func newRedoReader(objects Objects, m *Manifest) (*redoReader, error) {
	d, err := newDecoder()
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, o := range m.Objects {
		if o.Kind == string(kindLog) {
			list = append(list, o)
		}
	}
	return &redoReader{in: newSeriesReader(objects, m, list, kindLog, magicRedo), manifest: m, decoder: d, due: m.FallForward.LSN + 1}, nil
}

func (r *redoReader) close() {
	r.in.close()
	r.decoder.close()
}

// redoChunk is where a chunk is.
type redoChunk struct {
	object uint32
	off    int64 // of its header
	head   chunkHead
}

// redoFunc takes a record whose body begins at place at of a decoded chunk. Body and
// chunk are valid during the call.
type redoFunc func(c *redoChunk, at int, rec mvcc.LogRecord) error

// next reads the next chunk; io.EOF when all is proven.
func (r *redoReader) next(ctx context.Context, fn redoFunc) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := r.in.more(ctx)
	if err == io.EOF {
		return r.complete()
	}
	if err != nil {
		return err
	}
	c := redoChunk{object: r.in.now.Number, off: r.in.off}
	var head [chunkHeadSize]byte
	if err := r.in.fill(head[:]); err != nil {
		return err
	}
	if c.head, err = decodeChunkHead(r.in.name, c.off, head[:], r.number); err != nil {
		return err
	}
	r.stored = slices.Grow(r.stored[:0], int(c.head.stored))[:c.head.stored] // capped by decodeChunkHead, as raw is
	if err := r.in.fill(r.stored); err != nil {
		return err
	}
	r.raw = slices.Grow(r.raw[:0], int(c.head.raw))[:c.head.raw]
	raw, err := decodeChunk(r.decoder, r.in.name, c, r.stored, r.raw)
	if err != nil {
		return err
	}
	r.number++
	return r.hand(&c, raw, fn)
}

func decodeChunk(d *decoder, name string, c redoChunk, stored, room []byte) ([]byte, error) {
	if checksum(stored) != c.head.crc {
		return nil, damaged(name, c.off, "chunk's checksum does not agree", nil)
	}
	raw, err := d.decode(c.head.codec, stored, room)
	if err != nil {
		return nil, damaged(name, c.off, "chunk does not decode", err)
	}
	return raw, nil
}

// hand hands out the records of a chunk.
func (r *redoReader) hand(c *redoChunk, raw []byte, fn redoFunc) error {
	for rest := raw; len(rest) > 0; {
		rec, more, ok := cutRecord(rest)
		if !ok {
			return damaged(r.in.name, c.off, "chunk holds something that is no record", nil)
		}
		if rec.LSN != r.due || r.due > r.manifest.EndLSN {
			return damaged(r.in.name, c.off, fmt.Sprintf("a record of commit %v where %v was due", rec.LSN, r.due), nil)
		}
		if err := fn(c, len(raw)-len(rest)+recordHeadSize, rec); err != nil {
			return err
		}
		r.records++
		r.bytes += int64(len(rec.Body))
		if r.open = !rec.Last; rec.Last {
			r.due++
		}
		rest = more
	}
	return nil
}

// complete is io.EOF if there was all that the manifest says.
func (r *redoReader) complete() error {
	m := r.manifest
	if f := m.FallForward; r.due != m.EndLSN+1 || r.open || r.number != f.Chunks || r.records != f.Records || r.bytes != f.Bytes {
		return damaged(objectName(m.ID, kindManifest, 0), -1, "there is not the redo that it names", nil)
	}
	return io.EOF
}

// redoWindow is the redo of one backup of a chain, surveyed.
type redoWindow struct {
	manifest *Manifest
	redo     *mvcc.Redo
}

// read hands out all records of the window, and proves them.
func (w redoWindow) read(ctx context.Context, objects Objects, fn redoFunc) error {
	r, err := newRedoReader(objects, w.manifest)
	if err != nil {
		return err
	}
	defer r.close()
	for err == nil {
		err = r.next(ctx, fn)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// surveyRedo reads the redo of those backups of a chain that fell forward, the oldest
// first.
func surveyRedo(ctx context.Context, objects Objects, members []Entry) (list []redoWindow, err error) {
	for i := range slices.Backward(members) {
		m := &members[i].Manifest
		if m.FallForward == nil {
			continue
		}
		w := redoWindow{m, mvcc.NewRedo(m.BlockSize, m.FallForward.LSN, m.EndLSN)}
		err := w.read(ctx, objects, func(_ *redoChunk, _ int, rec mvcc.LogRecord) error {
			if err := w.redo.Survey(rec); err != nil {
				return damaged(objectName(m.ID, kindLog, 1), -1, "it holds what is no redo", err)
			}
			return nil
		})
		if err == nil {
			err = w.redo.Surveyed()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	return list, nil
}
