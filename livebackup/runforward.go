package livebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// A run whose session falls forward (R12):
//
//	pull, pack, write    as ever, until the session says that it fell forward at F
//	cut                  the groups so far become a part: its objects are finished
//	pull, pack, write    again: blocks as they are now, and, whenever some have come,
//	                     the redo that there is by then, packed into chunks
//	the last block       the session has fixed E: the rest of the redo, up to there
//	look                 is each block that E's bitmaps name here, or in the base, or
//	                     made by the redo?
//	publish
//
// A slow sink keeps the run from pulling; then the database holds log for it, up to a
// limit (R14). Redo counts as safe when the next is asked for: if the run dies, so does
// the backup.

// runForward is what a run has of a session that fell forward.
type runForward struct {
	at     block.LSN       // F
	end    mvcc.BackupInfo // as of E
	first  *blockSet       // blocks of the first part
	again  *blockSet       // of the second
	newest block.LSN       // of all images of the second part

	log     *objectSeries
	enc     *encoder
	free    chan *group // buffers of chunks
	filling *group
	due     block.LSN // commit whose record comes next
	open    bool      // a part of it came
	records uint64
	bytes   int64
	chunks  uint32 // of the writer
}

// redoBuffers is how many chunks of redo are on their way at most.
const redoBuffers = 2

// fellForward notes that the session fell forward. Its groups so far are on their way.
func (r *run) fellForward(at block.LSN, seen *blockSet) error {
	if r.forward != nil || at < r.info.LSN {
		return fmt.Errorf("source says what cannot be: it fell forward at LSN %v", at)
	}
	enc, err := newEncoder(r.o.Compression, logChunkBytes+recordHeadSize)
	if err != nil {
		return err
	}
	f := &runForward{at: at, due: at + 1, first: seen, again: newBlockSet(), enc: enc, free: make(chan *group, redoBuffers)}
	f.log = r.series(magicRedo, kindLog)
	for range redoBuffers {
		g := &group{redo: true, raw: make([]byte, 0, max(logChunkBytes, logBodyBytesMax+recordHeadSize))}
		g.out = make([]byte, 0, enc.outputMax(cap(g.raw)))
		r.bufferBytes += int64(cap(g.raw) + cap(g.out))
		f.free <- g
	}
	r.forward = f
	// What comes is as of some commit above F, and E is not known yet.
	r.bounds.upTo, r.bounds.highWater = math.MaxUint64, block.ID(math.MaxInt64/int64(r.info.BlockSize))
	return nil
}

// cutPart makes a part of the groups that were written since the last one, if any
// were: it makes its objects durable, the last one of blocks and the index at once.
func (r *run) cutPart(ctx context.Context) error {
	blocks := make(chan error, 1)
	go func() { blocks <- r.blocks.finish() }()
	err := r.index.flush(ctx)
	if err == nil {
		err = r.index.out.finish()
	}
	if err := cmp.Or(<-blocks, err); err != nil {
		return err
	}
	if p := r.openPart(); p.Groups > 0 {
		r.parts, r.held = append(r.parts, p), append(r.held, r.info.LSN)
	}
	r.newest, r.above = 0, 0
	return nil
}

// redoPull is how much redo is asked for behind each group of blocks: as much as there
// is, if the sink keeps up.
const redoPull = 8 << 20

// pullRedo takes the redo that there is, at most redoPull. io.EOF at E.
func (r *run) pullRedo(ctx context.Context, s Session, packed chan<- *group) error {
	f := r.forward
	lsn, err := s.Redo(ctx, redoPull, func(rec mvcc.LogRecord) error { return r.takeRedo(ctx, rec, packed) })
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("pull redo: %w", err)
	case lsn != f.due-1 || f.open:
		return fmt.Errorf("source says that it handed out redo up to commit %v, it was %v", lsn, f.due-1)
	}
	return err
}

// takeRedo appends a record to the chunk that is being filled.
func (r *run) takeRedo(ctx context.Context, rec mvcc.LogRecord, packed chan<- *group) error {
	f := r.forward
	if rec.LSN != f.due || len(rec.Body) > logBodyBytesMax {
		return fmt.Errorf("source handed out %d bytes of redo of commit %v where %v was due", len(rec.Body), rec.LSN, f.due)
	}
	if f.filling != nil && len(f.filling.raw)+recordHeadSize+len(rec.Body) > logChunkBytes {
		r.packRedo(packed)
	}
	if f.filling == nil {
		select {
		case f.filling = <-f.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		f.filling.raw = f.filling.raw[:0]
	}
	f.filling.raw = appendRecord(f.filling.raw, rec)
	f.records++
	f.bytes += int64(len(rec.Body))
	if f.open = !rec.Last; rec.Last {
		f.due++
	}
	return nil
}

// packRedo sends the chunk that is being filled on its way.
func (r *run) packRedo(packed chan<- *group) {
	g := r.forward.filling
	if g == nil {
		return
	}
	r.forward.filling = nil
	g.stored, g.codec = r.forward.enc.encode(g.raw, g.out)
	packed <- g // there is room for all buffers
}

// endForward takes the rest of the redo when the last block has come.
func (r *run) endForward(ctx context.Context, s Session, packed chan<- *group) error {
	f := r.forward
	f.end = s.Final()
	switch end := f.end; {
	case end.LSN < f.at || end.Database != r.info.Database || end.Timeline != r.info.Timeline || end.BlockSize != r.info.BlockSize:
		return fmt.Errorf("source says what cannot be: a backup from LSN %v, forward at %v, ends at %v", r.info.LSN, f.at, end.LSN)
	case f.newest > end.LSN: // R12
		return fmt.Errorf("source handed out a block of LSN %v, and ends at %v", f.newest, end.LSN)
	}
	for {
		err := r.pullRedo(ctx, s, packed)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	if f.due != f.end.LSN+1 {
		return fmt.Errorf("source handed out redo up to commit %v, and ends at %v", f.due-1, f.end.LSN)
	}
	r.packRedo(packed)
	r.setBytes = f.first.bytesPeak + f.again.bytesPeak
	return nil
}

// writeRedo writes a chunk.
func (r *run) writeRedo(ctx context.Context, g *group) error {
	f := r.forward
	head := chunkHead{number: f.chunks, raw: uint32(len(g.raw)), stored: uint32(len(g.stored)), codec: g.codec, crc: checksum(g.stored)}.encode()
	if _, _, err := f.log.append(ctx, head[:], g.stored); err != nil {
		return err
	}
	f.chunks++
	r.report(0)
	return nil
}

// enter says in the manifest how the run fell forward.
func (f *runForward) enter(m *Manifest) {
	m.FallForward = &FallForward{LSN: f.at, Records: f.records, Bytes: f.bytes, Chunks: f.chunks}
	m.Objects, m.StoredBytes = append(m.Objects, f.log.done...), m.StoredBytes+f.log.bytes
	m.EndLSN, m.Committed, m.RecordSum = f.end.LSN, f.end.Time.UTC(), f.end.RecordSum
	m.HighWater, m.BlocksInUse = f.end.HighWater, f.end.Blocks
}

// checkForward looks whether all that is in use at E is there (R12): in this backup,
// in its base, or as a whole image in the redo, which it reads back for that.
func (r *run) checkForward(ctx context.Context, m *Manifest) error {
	members := append([]Entry{{ID: m.ID, Manifest: *m}}, r.base...)
	windows, err := surveyRedo(ctx, r.repo.objects, members)
	if err != nil {
		return err
	}
	last := len(windows) - 1 // that of the backup itself
	now, err := openBitmaps(ctx, r.repo, members, windows)
	if err != nil {
		return err
	}
	defer now.Close()
	var base *Image
	if r.base != nil {
		if base, err = openBitmaps(ctx, r.repo, r.base, windows[:last]); err != nil {
			return err
		}
		defer base.Close()
	}
	for id := range m.HighWater {
		if id%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		there := r.forward.has(id) || windows[last].redo.Makes(id)
		if used, err := now.inUse(id); err != nil || !used || there {
			if err != nil {
				return err
			}
			continue
		}
		if base != nil {
			if there, err = base.inUse(id); err != nil {
				return err
			}
		}
		if !there {
			return fmt.Errorf("source fell forward, and block %v, which is in use at LSN %v, is nowhere (R12)", id, m.EndLSN)
		}
	}
	return nil
}

// has reports whether the run was handed out a block.
func (f *runForward) has(id block.ID) bool { return f.first.has(id) || f.again.has(id) }
