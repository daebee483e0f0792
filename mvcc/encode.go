package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/wal"
)

// recordBytes is how long a record of a commit grows before the next begins: an
// entry of the largest block still fits into wal.RecordBytesMax behind it.
const recordBytes = wal.RecordBytesMax - 2*block.SizeMax

// parallelBlocks is from how many blocks on a transaction's redo is encoded on
// two goroutines: below, starting one costs more than it saves.
const parallelBlocks = 64

// encode writes the commit's redo. Records that are full go to the log, all but
// the last one.
func (t *WriteTx) encode(w *redoWriter, lsn block.LSN) error {
	step := max(1, 2*recordBytes/(t.s.geo.size+32))
	for rest := t.blocks; len(rest) > 0; {
		n := min(len(rest), step)
		if err := t.encodeSome(w, rest[:n], lsn); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if t.away.Len() == 0 {
		return nil
	}
	if err := t.encodeSpilled(w, lsn); err != nil {
		return err
	}
	return t.encodeFrees(w, lsn)
}

// encodeSome encodes a stretch of the transaction's blocks, each half of which
// fits into one record.
func (t *WriteTx) encodeSome(w *redoWriter, blocks []private, lsn block.LSN) error {
	if len(blocks) < parallelBlocks && len(w.buf)+len(blocks)*(t.s.geo.size+32) <= wal.RecordBytesMax {
		w.encode(blocks, lsn, t.s.zeros)
		return nil
	}
	half := len(blocks) / 2
	a, b := &t.s.redoHalves[0], &t.s.redoHalves[1]
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.encode(blocks[half:], lsn, t.s.zeros)
	}()
	a.encode(blocks[:half], lsn, t.s.zeros)
	<-done
	for _, part := range []*redoWriter{a, b} {
		if err := t.flushRedo(w, lsn, len(part.buf)); err != nil {
			return err
		}
		w.buf = append(w.buf, part.buf...)
		part.buf = part.buf[:0]
	}
	return nil
}

// encodeSpilled encodes the blocks that are in temporary storage, in the order in
// which they lie there: whole, because what they replace is not kept in RAM.
func (t *WriteTx) encodeSpilled(w *redoWriter, lsn block.LSN) error {
	s := t.s
	var spilled []blockcache.Handle
	t.away.All(func(h blockcache.Handle) {
		if s.cache.Entry(h).Slot != 0 {
			spilled = append(spilled, h)
		}
	})
	slices.SortFunc(spilled, func(a, b blockcache.Handle) int {
		return cmp.Compare(s.cache.Entry(a).Slot, s.cache.Entry(b).Slot)
	})
	for _, h := range spilled {
		e := s.cache.Entry(h)
		if err := s.cache.ReadSlotInto(e.Slot, e.ID, e.LSN, s.scratch); err != nil {
			return err
		}
		if err := t.flushRedo(w, lsn, s.geo.size+32); err != nil {
			return err
		}
		w.image(e.ID, e.Type, block.Payload(s.scratch), s.zeros)
		e.Flags |= blockcache.EntryImage
	}
	return nil
}

// freesListed is how many frees are listed at once.
const freesListed = 1 << 14

// encodeFrees lists the blocks whose versions end with this commit.
func (t *WriteTx) encodeFrees(w *redoWriter, lsn block.LSN) (err error) {
	t.freed = t.freed[:0]
	list := func() {
		if err == nil && len(t.freed) > 0 {
			err = t.flushRedo(w, lsn, 1+(len(t.freed)+1)*binary.MaxVarintLen64)
			w.free(t.freed)
			t.freed = t.freed[:0]
		}
	}
	t.away.All(func(h blockcache.Handle) {
		if e := t.s.cache.Entry(h); e.Flags&awayFreed != 0 {
			if t.freed = append(t.freed, e.ID); len(t.freed) == freesListed {
				list()
			}
		}
	})
	list()
	return err
}

// encode writes the redo of the blocks that are in frames.
func (w *redoWriter) encode(blocks []private, lsn block.LSN, zeros []byte) {
	for i := range blocks {
		p := &blocks[i]
		payload := block.Payload(p.v.Data())
		image := true
		if p.base != nil {
			image = w.diff(p.v.ID, p.v.Type, lsn-p.since, block.Payload(p.base.Data()), payload, zeros)
		} else {
			w.image(p.v.ID, p.v.Type, payload, zeros)
		}
		if image {
			p.v.Image = lsn
		}
	}
}

// flushRedo logs what was encoded so far if more bytes would not fit into the
// same record.
func (t *WriteTx) flushRedo(w *redoWriter, lsn block.LSN, more int) error {
	if len(w.buf) == 0 || len(w.buf) <= recordBytes && len(w.buf)+more <= wal.RecordBytesMax {
		return nil
	}
	t.s.partial = true
	if err := t.s.log.Append(lsn, w.buf, false); err != nil {
		return t.s.fail(fmt.Errorf("log commit %v: %w", lsn, err))
	}
	w.buf = w.buf[:0]
	return nil
}
