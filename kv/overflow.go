package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// reference is the value of a kindOverflow cell: where a long value is. The zero
// reference is of no value.
type reference struct {
	size  uint64
	ids   [directMax]block.ID // of the pieces, or ids[0] is the first index block
	count int                 // of ids
}

// pieces is the number of overflow blocks.
func (r *reference) pieces(payload int) int {
	return int((r.size + uint64(payload) - 1) / uint64(payload))
}

func (r *reference) isDirect(payload int) bool { return r.pieces(payload) <= directMax }

// blocks is the number of all blocks of the value.
func (r *reference) blocks(payload int) int {
	n := r.pieces(payload)
	if r.isDirect(payload) {
		return n
	}
	per := idsPerIndex(payload)
	return n + (n+per-1)/per
}

func (r *reference) encode(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.size)
	for _, id := range r.ids[:r.count] {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(id))
	}
	return dst
}

func decodeReference(v []byte, payload int) (r reference, ok bool) {
	if len(v) < 16 || len(v)%8 != 0 {
		return r, false
	}
	r.size = binary.LittleEndian.Uint64(v)
	if r.size == 0 || r.size > MaxValueSize {
		return r, false
	}
	r.count = 1
	if r.isDirect(payload) {
		r.count = r.pieces(payload)
	}
	if len(v) != 8+8*r.count {
		return r, false
	}
	for i := range r.count {
		r.ids[i] = block.ID(binary.LittleEndian.Uint64(v[8+8*i:]))
	}
	return r, true
}

// indexBlock is the payload of a block.TypeIndex.
type indexBlock []byte

func (x indexBlock) position() int     { return int(binary.LittleEndian.Uint32(x)) }
func (x indexBlock) count() int        { return int(binary.LittleEndian.Uint32(x[4:])) }
func (x indexBlock) next() block.ID    { return block.ID(binary.LittleEndian.Uint64(x[8:])) }
func (x indexBlock) id(i int) block.ID { return block.ID(binary.LittleEndian.Uint64(x[16+8*i:])) }

func (x indexBlock) set(position int, ids []block.ID, next block.ID) {
	binary.LittleEndian.PutUint32(x, uint32(position))
	binary.LittleEndian.PutUint32(x[4:], uint32(len(ids)))
	binary.LittleEndian.PutUint64(x[8:], uint64(next))
	for i, id := range ids {
		binary.LittleEndian.PutUint64(x[16+8*i:], uint64(id))
	}
}

// decode returns the reference in a cell of leaf id, which is of no other kind.
func (t *tree) decode(c cell, id block.ID) (reference, error) {
	if c.kind == kindBucket {
		return reference{}, ErrIncompatibleValue
	}
	r, ok := decodeReference(c.value, t.payload)
	if c.kind != kindOverflow || !ok {
		return reference{}, corrupt(id, "cell of an unknown kind, or a long value without a place")
	}
	return r, nil
}

// long returns a copy of the long value of a cell of leaf id, in dst if it has
// room for it.
func (t *tree) long(dst []byte, c cell, id block.ID) ([]byte, error) {
	r, err := t.decode(c, id)
	if err != nil {
		return nil, err
	}
	return t.readOverflow(dst, r)
}

// fetchPiece pins a block of a long value.
func (t *tree) fetchPiece(id block.ID, want block.Type) (b mvcc.Block, err error) {
	if b, err = t.pin(id); err != nil {
		return b, err
	}
	if b.Type() != want || len(b.Payload()) != t.payload {
		b.Release()
		return mvcc.Block{}, corrupt(id, fmt.Sprintf("a %v block was expected", want))
	}
	return b, nil
}

// eachPiece calls fn with the block of every piece of a value in turn, and index,
// if it is not nil, with every index block after its pieces.
func (t *tree) eachPiece(r reference, piece, index func(block.ID) error) error {
	if r.isDirect(t.payload) {
		for _, id := range r.ids[:r.count] {
			if err := piece(id); err != nil {
				return err
			}
		}
		return nil
	}
	left := r.pieces(t.payload)
	ids := make([]block.ID, 0, min(left, idsPerIndex(t.payload)))
	id := r.ids[0]
	for position := 0; left > 0; position++ {
		var next block.ID
		var err error
		if ids, next, err = t.readIndex(id, position, left, ids[:0]); err != nil {
			return err
		}
		for _, p := range ids {
			if err := piece(p); err != nil {
				return err
			}
		}
		if index != nil {
			if err := index(id); err != nil {
				return err
			}
		}
		left -= len(ids)
		id = next
	}
	return nil
}

// readIndex appends what index block id names. left is the number of pieces that
// are still to come, position that of the block in its chain: a chain that was
// bent into a circle does not have them both right.
func (t *tree) readIndex(id block.ID, position, left int, ids []block.ID) (all []block.ID, next block.ID, err error) {
	b, err := t.fetchPiece(id, block.TypeIndex)
	if err != nil {
		return nil, 0, err
	}
	defer b.Release()
	x := indexBlock(b.Payload())
	want := min(left, idsPerIndex(t.payload))
	last := want == left
	if x.position() != position || x.count() != want || last != (x.next() == 0) {
		return nil, 0, corrupt(id, fmt.Sprintf("index block %d of %d entries, expected %d of %d",
			x.position(), x.count(), position, want))
	}
	for i := range want {
		ids = append(ids, x.id(i))
	}
	return ids, x.next(), nil
}

// readOverflow returns a copy of a long value, in dst if it has room for it.
func (t *tree) readOverflow(dst []byte, r reference) ([]byte, error) {
	if !r.isDirect(t.payload) {
		// All index blocks must be there before their word is taken for the size.
		if err := t.eachPiece(r, func(block.ID) error { return nil }, nil); err != nil {
			return nil, err
		}
	}
	size := int(r.size)
	if cap(dst) < size {
		dst = make([]byte, 0, size)
	}
	dst = dst[:0]
	err := t.eachPiece(r, func(id block.ID) error {
		b, err := t.fetchPiece(id, block.TypeOverflow)
		if err != nil {
			return err
		}
		dst = append(dst, b.Payload()[:min(size-len(dst), t.payload)]...)
		b.Release()
		return nil
	}, nil)
	return dst, err
}

// freeOverflow frees the blocks of a long value; only index blocks are read.
func (t *tree) freeOverflow(r reference) error {
	if r.count == 0 {
		return nil
	}
	if life, watched := t.lives[r.ids[0]]; watched {
		t.lives[r.ids[0]] = life + 1
	}
	return t.eachPiece(r, t.free, t.free)
}

// watch has it noted when the value at r ends, for a reader of it. In a read
// transaction none does.
func (t *tree) watch(r reference) (life uint64) {
	if t.write == nil {
		return 0
	}
	if t.lives == nil {
		t.lives = map[block.ID]uint64{}
	}
	life = t.lives[r.ids[0]]
	t.lives[r.ids[0]] = life
	return life
}

// chain writes a long value.
type chain struct {
	t       *tree
	r       reference
	indexes []block.ID // allocated so far
	pending []block.ID // pieces that are in no index block yet
}

// writeOverflow stores size bytes of src. If src fails, nothing of it is left
// and the error is a *sourceError.
func (t *tree) writeOverflow(src io.Reader, size int64) (reference, error) {
	c := chain{t: t, r: reference{size: uint64(size)}}
	err := c.fill(src, size)
	if err == nil {
		err = c.finish()
	}
	var source *sourceError
	if errors.As(err, &source) {
		if undo := c.abort(); undo != nil {
			return reference{}, undo
		}
	}
	return c.r, err
}

// readValue makes the value of a cell of the next size bytes of src, in dst or in
// memory of its own. If src fails, nothing of it is left and the error is a
// *sourceError.
func (t *tree) readValue(dst []byte, src io.Reader, size int64) (k kind, value []byte, err error) {
	if size <= int64(inlineMax(t.payload)) {
		value = make([]byte, size)
		return kindInline, value, readFull(src, value)
	}
	r, err := t.writeOverflow(src, size)
	return kindOverflow, r.encode(dst), err
}

// sourceError is an error of a reader that the user gave us.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return fmt.Sprintf("read value: %v", e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// What a reader that the user gave us must not do.
var (
	errReaderPanics  = errors.New("the reader of a value panicked")
	errReaderChanges = errors.New("the reader of a value changed the transaction")
)

// readFull fills p from the user's reader, whose end comes too early here.
func readFull(src io.Reader, p []byte) error {
	_, err := io.ReadFull(src, p)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &sourceError{err}
}

// fill writes the pieces, and every index block that is full and not the last.
func (c *chain) fill(src io.Reader, size int64) error {
	buf := make([]byte, c.t.payload)
	for size > 0 {
		piece := buf[:min(size, int64(len(buf)))]
		if err := readFull(src, piece); err != nil {
			return err
		}
		size -= int64(len(piece))
		b, err := c.t.write.Alloc(block.TypeOverflow)
		if err != nil {
			return err
		}
		copy(b.Payload(), piece)
		c.pending = append(c.pending, b.ID())
		b.Release()
		if len(c.pending) == idsPerIndex(c.t.payload) && size > 0 {
			if err := c.flush(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish makes the reference, and the last index block if there are any.
func (c *chain) finish() error {
	if c.r.isDirect(c.t.payload) {
		c.r.count = copy(c.r.ids[:], c.pending)
		return nil
	}
	if err := c.flush(true); err != nil {
		return err
	}
	c.r.ids[0], c.r.count = c.indexes[0], 1
	return nil
}

// flush writes the pending ids to the newest index block and allocates the one
// behind it.
func (c *chain) flush(last bool) error {
	if len(c.indexes) == 0 {
		if err := c.grow(); err != nil {
			return err
		}
	}
	position := len(c.indexes) - 1
	var next block.ID
	if !last {
		if err := c.grow(); err != nil {
			return err
		}
		next = c.indexes[position+1]
	}
	b, err := c.t.write.Edit(c.indexes[position])
	if err != nil {
		return err
	}
	indexBlock(b.Payload()).set(position, c.pending, next)
	b.Release()
	c.pending = c.pending[:0]
	return nil
}

func (c *chain) grow() error {
	b, err := c.t.write.Alloc(block.TypeIndex)
	if err != nil {
		return err
	}
	c.indexes = append(c.indexes, b.ID())
	b.Release()
	return nil
}

// abort frees what fill has written so far. The newest index block is empty.
func (c *chain) abort() error {
	for _, id := range c.pending {
		if err := c.t.free(id); err != nil {
			return err
		}
	}
	for i, id := range c.indexes {
		if i < len(c.indexes)-1 {
			if err := c.freePieces(id); err != nil {
				return err
			}
		}
		if err := c.t.free(id); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) freePieces(index block.ID) error {
	b, err := c.t.fetchPiece(index, block.TypeIndex)
	if err != nil {
		return err
	}
	x := indexBlock(b.Payload())
	ids := make([]block.ID, x.count())
	for i := range ids {
		ids[i] = x.id(i)
	}
	b.Release()
	for _, id := range ids {
		if err := c.t.free(id); err != nil {
			return err
		}
	}
	return nil
}
