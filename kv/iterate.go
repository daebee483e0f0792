package kv

import (
	"bytes"
	"errors"
	"iter"
)

// Entry is a key with its value, or a nested bucket with its name. Both are
// copies and stay valid for ever; neighbours share one allocation of at most a
// block, so clone the few that you keep of many.
type Entry struct {
	Key   []byte
	Value []byte // nil if Bucket
	// Bucket is set if Key names a nested bucket.
	Bucket bool
}

// The sequences below yield an error instead of an entry, once, as their last
// pair: a loop that looks at its error misses nothing. Their transaction may
// change the bucket within the loop; see [Cursor] for what is then found.

// All yields all entries in the order of their keys.
func (b *Bucket) All() iter.Seq2[Entry, error] { return b.Range(nil, nil) }

// Backward yields all entries in the reverse order of their keys.
func (b *Bucket) Backward() iter.Seq2[Entry, error] { return b.RangeBackward(nil, nil) }

// Range yields the entries with from <= key < to. Nil is no bound.
func (b *Bucket) Range(from, to []byte) iter.Seq2[Entry, error] {
	return b.entries(b.cursor(from, to), (*Cursor).First, (*Cursor).Next)
}

// RangeBackward yields the entries with from <= key < to, the last one first. Nil
// is no bound.
func (b *Bucket) RangeBackward(from, to []byte) iter.Seq2[Entry, error] {
	return b.entries(b.cursor(from, to), (*Cursor).Last, (*Cursor).Prev)
}

// Prefix yields the entries whose keys start with prefix. For the reverse order
// use RangeBackward(prefix, PrefixEnd(prefix)).
func (b *Bucket) Prefix(prefix []byte) iter.Seq2[Entry, error] {
	return b.Range(prefix, PrefixEnd(prefix))
}

// PrefixEnd returns the first key behind all keys that start with prefix, or nil
// if there is no such key.
func PrefixEnd(prefix []byte) []byte { return successor(prefix) }

// Keys yields all keys in order, those of nested buckets included, and does not
// read long values.
func (b *Bucket) Keys() iter.Seq2[[]byte, error] { return b.keys(false) }

// Buckets yields the names of the nested buckets in order.
func (b *Bucket) Buckets() iter.Seq2[[]byte, error] { return b.keys(true) }

func (b *Bucket) keys(bucketsOnly bool) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		c := b.cursor(nil, nil)
		c.keysOnly = true
		k, _ := c.First()
		for ; k != nil; k, _ = c.Next() {
			if bucketsOnly && c.kind != kindBucket {
				continue
			}
			if !yield(k, nil) {
				return
			}
		}
		if c.err != nil {
			yield(nil, c.err)
		}
	}
}

// entries is a sequence of what c finds. Every run of it starts anew.
func (b *Bucket) entries(proto *Cursor, start, move func(*Cursor) (k, v []byte)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		c := &Cursor{bucket: proto.bucket, lower: proto.lower, upper: proto.upper}
		k, v := start(c)
		for ; k != nil; k, v = move(c) {
			if !yield(Entry{Key: k, Value: v, Bucket: c.kind == kindBucket}, nil) {
				return
			}
		}
		if c.err != nil {
			yield(Entry{}, c.err)
		}
	}
}

// Cursor returns a cursor for the entries of the bucket.
func (b *Bucket) Cursor() *Cursor { return b.cursor(nil, nil) }

func (b *Bucket) cursor(from, to []byte) *Cursor {
	lower, upper := b.bounds(from, to)
	return &Cursor{bucket: b, lower: lower, upper: upper}
}

// bounds returns from and to as composite keys, the bucket's ends for nil.
func (b *Bucket) bounds(from, to []byte) (lower, upper []byte) {
	lower = b.composite(nil, from)
	if to == nil {
		return lower, successor(b.prefix())
	}
	return lower, b.composite(nil, to)
}

// Scan calls fn with the entries from <= key < to in the order of their keys; nil
// is no bound. It is the fastest way through a bucket, because it lends: key and
// value are good, and must not be changed, until fn returns. The value of a
// nested bucket is nil.
//
// A write transaction may be changed by fn; the scan goes on behind the key that
// fn was called with.
//
// Scan ends at the first error of fn and returns it; ErrStop ends it with nil.
func (b *Bucket) Scan(from, to []byte, fn func(key, value []byte) error) error {
	s := scan{b: b, t: &b.tx.tree, fn: fn}
	s.at, s.upper = b.bounds(from, to)
	err := s.run()
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// scan is a running Bucket.Scan.
type scan struct {
	b     *Bucket
	t     *tree
	fn    func(key, value []byte) error
	upper []byte // composite key
	trail trail

	at      []byte // the scan goes on at or, if behind is set, behind this key
	behind  bool
	fresh   bool // the trail was just searched: its leaf may end before at
	changes uint64

	// copied is the leaf: cells lie in any order, and reading a block from end to
	// end once is quicker than fetching them from memory one by one.
	copied node
	long   []byte // the last long value
}

func (s *scan) run() error {
	for again := true; again; {
		if err := s.b.use(); err != nil {
			return err
		}
		if s.t.root == 0 {
			return nil
		}
		s.changes, s.fresh = s.t.changes, true
		if err := s.t.descend(&s.trail, s.at); err != nil {
			return err
		}
		var err error
		if again, err = s.leaves(); err != nil {
			return err
		}
	}
	return nil
}

// leaves scans from the leaf of the trail on, to the end or to a change of the
// tree: then it reports that the trail must be searched again.
func (s *scan) leaves() (again bool, err error) {
	for {
		more, err := s.leaf()
		if err != nil {
			return false, err
		}
		if err := s.b.use(); err != nil {
			return false, err
		}
		if s.changes != s.t.changes { // also in the last leaf: fn was not called for what is left of it
			return true, nil
		}
		if !more {
			return false, nil
		}
		if more, err = s.t.turn(s.trail, 1); err != nil || !more {
			return false, err
		}
	}
}

// leaf scans one leaf, or a part of it if fn changes the tree, and reports whether
// there may be more behind the leaf.
func (s *scan) leaf() (more bool, err error) {
	id := s.trail[0].id
	b, n, err := s.t.fetch(id, 0)
	if err != nil {
		return false, err
	}
	s.copied = append(s.copied[:0], n...)
	n = s.copied
	b.Release()
	i, end, ok := n.searchRange(s.at, s.upper)
	if ok && s.behind && i < n.count() {
		var k []byte
		if k, ok = n.key(i); ok && bytes.Equal(k, s.at) {
			i++
		}
	}
	if !ok {
		return false, misfit(id)
	}
	first := s.fresh
	s.fresh = false
	if i >= end {
		if end == n.count() && (!first || end == 0) {
			return false, corrupt(id, "leaf does not lead on from the one before it")
		}
		return end == n.count(), nil
	}
	if k, ok := n.key(i); !ok || !s.isAhead(k) {
		return false, corrupt(id, "keys are not in order with those of the leaf before it")
	}
	if err := s.lend(n, i, end); err != nil {
		return false, err
	}
	return end == n.count(), nil
}

// isAhead reports whether key brings the scan forward: through a damaged tree it
// could otherwise go on for ever.
func (s *scan) isAhead(key []byte) bool {
	o := bytes.Compare(key, s.at)
	return o > 0 || o == 0 && !s.behind
}

// lend calls fn for slots [i, end) of a leaf, or until fn changes the tree.
func (s *scan) lend(n node, i, end int) error {
	prefix, fn := int(s.b.prefixSize), s.fn
	for ; i < end; i++ {
		at := n.slot(i)
		start, mid, stop := at.span()
		if stop > len(n) || start+prefix >= mid {
			return misfit(s.trail[0].id)
		}
		v := n[mid:stop:stop]
		if at.kind() != kindInline {
			var err error
			if v, err = s.lendOther(cell{value: v, kind: at.kind()}); err != nil {
				return err
			}
		}
		if err := fn(n[start+prefix:mid:mid], v); err != nil {
			return err
		}
		if s.changes != s.t.changes || i == end-1 {
			s.at, s.behind = append(s.at[:0], n[start:mid]...), true
			break
		}
	}
	return nil
}

// lendOther returns what is lent for a cell that does not hold the value itself.
func (s *scan) lendOther(c cell) (v []byte, err error) {
	if c.kind == kindBucket {
		return nil, nil
	}
	s.long, err = s.t.long(s.long, c, s.trail[0].id)
	return s.long, err
}
