package kv

import (
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

// bucket returns the bucket entry at a composite key.
func (t *tree) bucket(key []byte) (e bucketEntry, err error) {
	b, c, found, err := t.find(key)
	if err != nil {
		return e, err
	}
	if !found {
		return e, ErrBucketNotFound
	}
	defer b.Release()
	if c.kind != kindBucket {
		return e, ErrIncompatibleValue
	}
	e, ok := decodeBucket(c.value)
	if !ok {
		return e, corrupt(b.ID(), "bucket without a number")
	}
	return e, nil
}

// Bucket returns the nested bucket of this name: ErrBucketNotFound if there is
// none, ErrIncompatibleValue if the key has a value.
func (b *Bucket) Bucket(name []byte) (*Bucket, error) {
	if err := b.use(); err != nil {
		return nil, err
	}
	var buf [96]byte
	key := b.composite(buf[:0], name)
	number, known := b.tx.knownBucket(key)
	if !known {
		e, err := b.tx.tree.bucket(key)
		if err != nil {
			return nil, err
		}
		if e.number <= b.number {
			return nil, corrupt(block.NoBlock, fmt.Sprintf("bucket %d is nested in bucket %d", e.number, b.number))
		}
		number = e.number
		b.tx.learnBucket(key, number)
	}
	return new(Bucket).init(b.tx, number, key), nil
}

// CreateBucket makes a nested bucket: ErrBucketExists if there is one,
// ErrIncompatibleValue if the key has a value.
func (b *Bucket) CreateBucket(name []byte) (*Bucket, error) {
	if err := b.checkName(name); err != nil {
		return nil, err
	}
	if err := b.change(); err != nil {
		return nil, err
	}
	key := b.composite(nil, name)
	switch _, err := b.tx.tree.bucket(key); {
	case err == nil:
		return nil, ErrBucketExists
	case !errors.Is(err, ErrBucketNotFound):
		return nil, err
	}
	t := &b.tx.tree
	number := t.next
	value := bucketEntry{number: number}.encode()
	if err := b.tx.after(t.set(cell{key: key, value: value[:], kind: kindBucket})); err != nil {
		return nil, err
	}
	t.next++
	t.renamed = b.tx.base + 1
	return new(Bucket).init(b.tx, number, key), nil
}

// CreateBucketIfNotExists returns the nested bucket of this name and makes it if
// it does not exist.
func (b *Bucket) CreateBucketIfNotExists(name []byte) (*Bucket, error) {
	if err := b.change(); err != nil {
		return nil, err
	}
	child, err := b.CreateBucket(name)
	if errors.Is(err, ErrBucketExists) {
		return b.Bucket(name)
	}
	return child, err
}

func (b *Bucket) checkName(name []byte) error {
	err := b.checkKey(name)
	if errors.Is(err, ErrKeyRequired) {
		return ErrBucketNameRequired
	}
	return err
}

// DeleteBucket deletes a nested bucket with all that it contains, in time that
// depends on its size in blocks, not in entries: ErrBucketNotFound if there is
// none, ErrIncompatibleValue if the key has a value.
func (b *Bucket) DeleteBucket(name []byte) error {
	if err := b.change(); err != nil {
		return err
	}
	t := &b.tx.tree
	key := b.composite(nil, name)
	e, err := t.bucket(key)
	if err != nil {
		return err
	}
	if e.number <= b.number {
		return corrupt(block.NoBlock, fmt.Sprintf("bucket %d is nested in bucket %d", e.number, b.number))
	}
	b.tx.deletions++
	t.renamed = b.tx.base + 1
	if err := b.tx.after(t.clearBucket(e.number)); err != nil {
		return err
	}
	_, err = t.remove(key, true)
	return b.tx.after(err)
}

// clearing is a bucket whose content is about to be deleted.
type clearing struct {
	number uint64
	resume []byte // composite key behind the nested buckets that are done
}

// clearBucket deletes all entries of a bucket and of the buckets nested in it,
// the innermost first. Its memory is that of the path to the innermost.
func (t *tree) clearBucket(number uint64) error {
	stack := []clearing{{number, appendPrefix(nil, number)}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		prefix := appendPrefix(nil, top.number)
		key, child, found, err := t.nextBucket(top.resume, successor(prefix))
		if err != nil {
			return err
		}
		if found {
			if child.number <= top.number {
				return corrupt(block.NoBlock, fmt.Sprintf("bucket %d is nested in bucket %d", child.number, top.number))
			}
			top.resume = append(key, 0)
			stack = append(stack, clearing{child.number, appendPrefix(nil, child.number)})
			continue
		}
		if err := t.clearRange(prefix, successor(prefix)); err != nil {
			return err
		}
		stack = stack[:len(stack)-1]
	}
	return nil
}
