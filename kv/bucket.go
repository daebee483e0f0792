package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// Bucket is a set of entries, ordered by their keys, and of nested buckets, whose
// names are among the keys. It belongs to its transaction and to one goroutine.
// A bucket that its transaction has deleted answers with ErrBucketNotFound.
type Bucket struct {
	tx     *Tx
	number uint64
	entry  []byte // composite key of its entry in the parent; nil: bucket 0

	// deletions of the transaction when it was last known to exist.
	deletions uint64

	// buf begins with the encoded number; behind it is room for the entry of most
	// buckets: one allocation.
	buf        [39]byte
	prefixSize uint8
}

// init makes b the bucket of this number; entry is copied.
func (b *Bucket) init(tx *Tx, number uint64, entry []byte) *Bucket {
	b.tx, b.number, b.deletions = tx, number, tx.deletions
	b.prefixSize = uint8(len(appendPrefix(b.buf[:0], number)))
	if entry != nil {
		b.entry = append(b.buf[prefixSizeMax:prefixSizeMax], entry...)
	}
	return b
}

// prefix is the encoded number.
func (b *Bucket) prefix() []byte { return b.buf[:b.prefixSize:b.prefixSize] }

// Tx returns the transaction to which the bucket belongs.
func (b *Bucket) Tx() *Tx { return b.tx }

// composite appends the key as the tree knows it.
func (b *Bucket) composite(dst, key []byte) []byte {
	return append(append(dst, b.prefix()...), key...)
}

// use reports why the bucket cannot be used.
func (b *Bucket) use() error {
	if b.tx.done || b.tx.failed != nil {
		return b.tx.usable()
	}
	if b.deletions != b.tx.deletions {
		return b.revive()
	}
	return nil
}

// revive looks whether the bucket survived what its transaction deleted. A number
// is never used twice and dies with its parent: its entry is proof enough.
func (b *Bucket) revive() error {
	if b.entry != nil {
		e, err := b.tx.tree.bucket(b.entry)
		if err != nil {
			return err
		}
		if e.number != b.number {
			return ErrBucketNotFound
		}
	}
	b.deletions = b.tx.deletions
	return nil
}

// change reports why the bucket cannot be changed.
func (b *Bucket) change() error {
	if err := b.use(); err != nil {
		return err
	}
	if b.tx.tree.write == nil {
		return ErrTxNotWritable
	}
	return nil
}

// checkKey reports why key cannot be stored.
func (b *Bucket) checkKey(key []byte) error {
	if len(key) == 0 {
		return ErrKeyRequired
	}
	if limit := maxKeySize(b.tx.tree.payload); len(key) > limit {
		return fmt.Errorf("%w: %d bytes of at most %d", ErrKeyTooLarge, len(key), limit)
	}
	return nil
}

// Get returns a copy of the value of key; nil and no error if there is none. An
// empty value is not nil. The key of a nested bucket is ErrIncompatibleValue.
func (b *Bucket) Get(key []byte) (value []byte, err error) {
	value, _, err = b.Append(nil, key)
	return value, err
}

// Append appends the value of key to dst and reports whether there is one. It is
// Get for who brings the memory.
func (b *Bucket) Append(dst, key []byte) (value []byte, found bool, err error) {
	if err := b.use(); err != nil {
		return dst, false, err
	}
	var buf [96]byte
	t := &b.tx.tree
	blk, c, found, err := t.find(b.composite(buf[:0], key))
	if err != nil || !found {
		return dst, false, err
	}
	if c.kind == kindInline {
		if dst == nil {
			dst = []byte{} // an empty value is not nil
		}
		dst = append(dst, c.value...)
		blk.Release()
		return dst, true, nil
	}
	id := blk.ID()
	r, err := t.decode(c, id)
	blk.Release()
	if err != nil {
		return dst, false, err
	}
	v, err := t.readOverflow(dst[len(dst):], r)
	if err != nil {
		return dst, false, err
	}
	if len(dst) == 0 {
		return v, true, nil
	}
	return append(dst, v...), true, nil
}

// Put sets the value of key, which is copied. A nil value is an empty one.
func (b *Bucket) Put(key, value []byte) error {
	if len(value) > inlineMax(b.tx.tree.payload) {
		return b.PutReader(key, bytes.NewReader(value), int64(len(value)))
	}
	if err := b.change(); err != nil {
		return err
	}
	if err := b.checkKey(key); err != nil {
		return err
	}
	return b.set(key, kindInline, value)
}

// set stores a cell.
func (b *Bucket) set(key []byte, k kind, value []byte) error {
	w := b.tx.tree.w
	w.key = b.composite(w.key[:0], key)
	w.counts.Puts++
	return b.tx.after(b.tx.tree.set(cell{key: w.key, value: value, kind: k}))
}

// PutReader sets the value of key to the next size bytes of r and holds no more
// than a few blocks of it in memory. If r fails, its error is returned and
// nothing was changed. r may read in the transaction; if it changes it, or panics,
// only Rollback is left.
func (b *Bucket) PutReader(key []byte, r io.Reader, size int64) error {
	if err := b.change(); err != nil {
		return err
	}
	if err := b.checkKey(key); err != nil {
		return err
	}
	if size < 0 || size > MaxValueSize {
		return fmt.Errorf("%w: %d bytes of at most %d", ErrValueTooLarge, size, MaxValueSize)
	}
	if size > int64(inlineMax(b.tx.tree.payload)) { // before much is read in vain
		switch is, err := b.isBucket(key); {
		case err != nil:
			return err
		case is:
			return ErrIncompatibleValue
		}
	}
	return b.putFrom(key, r, size)
}

// putFrom calls the user's code, which may do what it must not.
func (b *Bucket) putFrom(key []byte, r io.Reader, size int64) error {
	t := &b.tx.tree
	changes, returned := t.changes, false
	defer func() {
		if !returned { // blocks that nothing refers to may be left
			_ = b.tx.after(errReaderPanics)
		}
	}()
	var buf [8 + 8*directMax]byte
	k, value, err := t.readValue(buf[:0], r, size)
	returned = true
	var source *sourceError
	switch {
	case errors.As(err, &source):
		return err // nothing of it is left
	case b.tx.done || b.tx.failed != nil:
		return b.tx.usable()
	case err == nil && t.changes != changes: // the bucket may be gone
		err = errReaderChanges
	}
	if err != nil {
		return b.tx.after(err)
	}
	return b.set(key, k, value)
}

// isBucket reports whether key is the name of a nested bucket.
func (b *Bucket) isBucket(key []byte) (bool, error) {
	blk, c, found, err := b.tx.tree.find(b.composite(nil, key))
	if err != nil || !found {
		return false, err
	}
	is := c.kind == kindBucket
	blk.Release()
	return is, nil
}

// Delete deletes key and its value; it is no error if there is none. A nested
// bucket is ErrIncompatibleValue.
func (b *Bucket) Delete(key []byte) error {
	if err := b.change(); err != nil {
		return err
	}
	w := b.tx.tree.w
	w.key = b.composite(w.key[:0], key)
	return b.deleteComposite(w.key)
}

func (b *Bucket) deleteComposite(key []byte) error {
	if err := b.change(); err != nil {
		return err
	}
	b.tx.tree.w.counts.Deletes++
	_, err := b.tx.tree.remove(key, false)
	return b.tx.after(err)
}

// Sequence returns the bucket's number of its own, which NextSequence counts.
func (b *Bucket) Sequence() (uint64, error) {
	if err := b.use(); err != nil {
		return 0, err
	}
	e, err := b.tx.tree.bucket(b.entry)
	return e.sequence, err
}

// SetSequence sets the number that NextSequence counts.
func (b *Bucket) SetSequence(v uint64) error {
	if err := b.change(); err != nil {
		return err
	}
	value := bucketEntry{b.number, v}.encode()
	return b.tx.after(b.tx.tree.set(cell{key: b.entry, value: value[:], kind: kindBucket}))
}

// NextSequence adds one to the bucket's sequence and returns it: a number that
// the bucket has not had before.
func (b *Bucket) NextSequence() (uint64, error) {
	v, err := b.Sequence()
	if err != nil {
		return 0, err
	}
	if v == math.MaxUint64 {
		return 0, fmt.Errorf("%w: sequence is at its end", ErrValueTooLarge)
	}
	return v + 1, b.SetSequence(v + 1)
}
