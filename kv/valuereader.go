package kv

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
)

// ValueReader reads a value piece by piece: for values that one does not want in
// memory at once. Its Size, Read, ReadAt and Seek are those of
// [io.SectionReader]. It is good until its transaction ends, belongs to the same
// goroutine, and keeps no block pinned.
type ValueReader struct{ *io.SectionReader }

// Reader returns a reader of the value of key, or nil and no error if there is
// none. The key of a nested bucket is ErrIncompatibleValue. If the transaction
// replaces or deletes the value meanwhile, reading ends with ErrValueChanged; a
// value of less than a quarter of a block was copied, and is read to its end.
func (b *Bucket) Reader(key []byte) (*ValueReader, error) {
	if err := b.use(); err != nil {
		return nil, err
	}
	t := &b.tx.tree
	blk, c, found, err := t.find(b.composite(nil, key))
	if err != nil || !found {
		return nil, err
	}
	defer blk.Release()
	if c.kind == kindInline {
		v := bytes.NewReader(bytes.Clone(c.value))
		return &ValueReader{io.NewSectionReader(v, 0, int64(len(c.value)))}, nil
	}
	r, err := t.decode(c, blk.ID())
	if err != nil {
		return nil, err
	}
	long := &longReader{bucket: b, ref: r, life: t.watch(r), indexAt: -1}
	return &ValueReader{io.NewSectionReader(long, 0, int64(r.size))}, nil
}

// longReader is the io.ReaderAt of a value in overflow blocks.
type longReader struct {
	bucket *Bucket
	ref    reference
	life   uint64 // what tree.watch said of ref

	chain   []block.ID // index blocks found so far
	index   []block.ID // what the one at indexAt of the chain names
	indexAt int
}

// ReadAt is that of io.ReaderAt, but for one goroutine.
func (r *longReader) ReadAt(p []byte, off int64) (n int, err error) {
	if err := r.valid(); err != nil {
		return 0, err
	}
	t := &r.bucket.tx.tree
	size := int64(r.ref.size)
	if off < 0 {
		return 0, fmt.Errorf("read value: negative offset %d", off)
	}
	for n < len(p) && off < size {
		id, err := r.piece(int(off / int64(t.payload)))
		if err != nil {
			return n, err
		}
		b, err := t.fetchPiece(id, block.TypeOverflow)
		if err != nil {
			return n, err
		}
		from := off % int64(t.payload)
		to := min(int64(t.payload), from+size-off)
		m := copy(p[n:], b.Payload()[from:to])
		b.Release()
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// valid reports why the value cannot be read any more.
func (r *longReader) valid() error {
	if err := r.bucket.use(); err != nil {
		return err
	}
	if r.bucket.tx.tree.lives[r.ref.ids[0]] != r.life {
		return ErrValueChanged
	}
	return nil
}

// piece returns the block of piece i.
func (r *longReader) piece(i int) (block.ID, error) {
	t := &r.bucket.tx.tree
	if r.ref.isDirect(t.payload) {
		return r.ref.ids[i], nil
	}
	per := idsPerIndex(t.payload)
	if len(r.chain) == 0 {
		r.chain = append(r.chain, r.ref.ids[0])
	}
	at := min(i/per, len(r.chain)-1) // from there the chain must be followed
	for r.indexAt != i/per {
		left := r.ref.pieces(t.payload) - at*per
		ids, next, err := t.readIndex(r.chain[at], at, left, r.index[:0])
		if err != nil {
			return 0, err
		}
		r.index, r.indexAt = ids, at
		if at++; at == len(r.chain) && next != 0 {
			r.chain = append(r.chain, next)
		}
	}
	return r.index[i%per], nil
}
