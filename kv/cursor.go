package kv

import "bytes"

// Cursor walks through the entries of a bucket in the order of their keys, bytes
// compared as unsigned numbers.
//
// It stands on a key, not on a place: whatever its transaction does meanwhile,
// Next goes to the first entry behind that key and Prev to the last one before
// it. So after Delete, Next is the entry behind the deleted one, and entries that
// were put behind the cursor's key are found. A new cursor stands nowhere: Next
// is First and Prev is Last. When a move finds no entry, the cursor stands behind
// the last or before the first one, and moving back finds that one.
//
// Every move returns key and value of the entry, or nil and nil where there is
// none. The value of a nested bucket is nil; an empty value is not nil. A move
// that fails also returns nil and nil: call [Cursor.Err] after a loop.
//
// Keys and values are copies and stay valid for ever. Neighbours share one
// allocation of at most a block: clone the few that you keep of many. Only the
// key on which the cursor stands must not be overwritten while it is used.
//
// A cursor belongs to one goroutine, like its transaction.
type Cursor struct {
	bucket       *Bucket
	lower, upper []byte // composite keys: lower <= key < upper
	keysOnly     bool   // long values are not read

	place place
	key   []byte // composite key it stands on, if place is onKey
	kind  kind   // of the entry it stood on

	trail   trail
	changes uint64 // of the tree, when trail and leaf were taken
	leaf    leafCopy
	err     error
}

// place is where a cursor stands.
type place uint8

const (
	nowhere place = iota
	onKey
	beforeFirst
	behindLast
)

// leafCopy is a copy of a leaf as far as it lies in the cursor's bounds.
type leafCopy struct {
	slots      []byte // reused from leaf to leaf
	cells      []byte // handed out to the user; nil: nothing was copied yet
	low        int    // offset of cells in the leaf
	begin, end int    // slots in bounds
	count      int
	edge       []byte // last key that was in cells, in the direction of the walk
}

// First goes to the first entry.
func (c *Cursor) First() (key, value []byte) {
	return c.locate(c.lower, true, 1)
}

// Last goes to the last entry.
func (c *Cursor) Last() (key, value []byte) {
	return c.locate(c.upper, false, -1)
}

// Seek goes to the first entry whose key is at or behind key.
func (c *Cursor) Seek(key []byte) (k, v []byte) {
	composite := c.bucket.composite(nil, key)
	if bytes.Compare(composite, c.lower) < 0 {
		composite = c.lower
	}
	return c.locate(composite, true, 1)
}

// Next goes to the entry behind the one on which the cursor stands.
func (c *Cursor) Next() (key, value []byte) {
	switch c.place {
	case nowhere, beforeFirst:
		return c.First()
	case behindLast:
		return c.none(behindLast)
	}
	return c.step(1)
}

// Prev goes to the entry before the one on which the cursor stands.
func (c *Cursor) Prev() (key, value []byte) {
	switch c.place {
	case nowhere, behindLast:
		return c.Last()
	case beforeFirst:
		return c.none(beforeFirst)
	}
	return c.step(-1)
}

// Err returns why the last move returned nil, nil although it may not have
// reached an end, or nil.
func (c *Cursor) Err() error { return c.err }

// Delete deletes the entry on which the cursor stands; it is no error if the
// transaction has deleted it before. A nested bucket is ErrIncompatibleValue:
// use Bucket.DeleteBucket.
func (c *Cursor) Delete() error {
	if c.place != onKey {
		return ErrCursorUnset
	}
	return c.bucket.deleteComposite(c.key)
}

// fail ends a move with an error.
func (c *Cursor) fail(err error) (key, value []byte) {
	c.err = err
	c.place, c.key = nowhere, nil
	c.leaf.cells = nil
	return nil, nil
}

// none ends a move that found no entry.
func (c *Cursor) none(p place) (key, value []byte) {
	c.err = c.bucket.use()
	c.place, c.key = p, nil
	return nil, nil
}

func end(by int) place {
	if by > 0 {
		return behindLast
	}
	return beforeFirst
}

// locate goes to the first entry at or behind key (by = 1; only behind it if at
// is false) or the last one before it (by = -1).
func (c *Cursor) locate(key []byte, at bool, by int) (k, v []byte) {
	if err := c.bucket.use(); err != nil {
		return c.fail(err)
	}
	t := &c.bucket.tx.tree
	c.err = nil
	c.leaf.cells = nil
	c.changes = t.changes
	if t.root == 0 {
		return c.none(end(by))
	}
	b, n, found, err := t.seek(&c.trail, key)
	if err != nil {
		return c.fail(err)
	}
	slot := c.trail[0].slot
	switch {
	case by < 0:
		slot--
	case found && !at:
		slot++
	}
	if slot < 0 || slot >= n.count() {
		b.Release()
		return c.turn(key, by)
	}
	c.trail[0].slot = slot
	cell, ok := n.cell(slot)
	if o := bytes.Compare(cell.key, key) * by; o < 0 || o == 0 && !(at && by > 0) {
		ok = false // the leaf is not in order: a walk could go round in it
	}
	if ok && c.outside(cell.key, by) {
		b.Release()
		return c.none(end(by))
	}
	if ok { // only this one is copied: the next move may be another Seek
		cell = cell.clone()
	}
	b.Release()
	if !ok {
		return c.fail(misfit(c.trail[0].id))
	}
	return c.arrive(cell)
}

// clone copies key and value into one allocation.
func (c cell) clone() cell {
	buf := make([]byte, 0, len(c.key)+len(c.value))
	buf = append(append(buf, c.key...), c.value...)
	k := len(c.key)
	return cell{key: buf[:k:k], value: buf[k:], kind: c.kind}
}

// outside reports whether key is beyond the bound that a walk in direction by
// comes to.
func (c *Cursor) outside(key []byte, by int) bool {
	if by > 0 {
		return bytes.Compare(key, c.upper) >= 0
	}
	return bytes.Compare(key, c.lower) < 0
}

// step moves by one entry.
func (c *Cursor) step(by int) (k, v []byte) {
	if err := c.bucket.use(); err != nil {
		return c.fail(err)
	}
	if c.changes != c.bucket.tx.tree.changes {
		return c.locate(c.key, false, by)
	}
	if c.leaf.cells == nil {
		if err := c.load(by); err != nil {
			return c.fail(err)
		}
	}
	leaf := &c.trail[0]
	slot := leaf.slot + by
	if slot >= c.leaf.begin && slot < c.leaf.end {
		leaf.slot = slot
		return c.take(slot)
	}
	if slot >= 0 && slot < c.leaf.count {
		return c.none(end(by)) // the bound lies in this leaf
	}
	return c.turn(c.key, by)
}

// turn goes to the leaf beside the one it has come to the end of.
func (c *Cursor) turn(last []byte, by int) (k, v []byte) {
	more, err := c.bucket.tx.tree.turn(c.trail, by)
	if err != nil {
		return c.fail(err)
	}
	if !more {
		return c.none(end(by))
	}
	return c.enter(last, by)
}

// enter takes the first entry (by = 1) or the last one of the leaf to which the
// trail leads. last is a key that must lie behind it in the walk.
func (c *Cursor) enter(last []byte, by int) (k, v []byte) {
	c.leaf.edge = append(c.leaf.edge[:0], last...)
	if err := c.load(by); err != nil {
		return c.fail(err)
	}
	slot := 0
	if by < 0 {
		slot = c.leaf.count - 1
	}
	if c.leaf.count == 0 {
		return c.fail(corrupt(c.trail[0].id, "empty leaf"))
	}
	if slot < c.leaf.begin || slot >= c.leaf.end {
		return c.none(end(by))
	}
	c.trail[0].slot = slot
	k, v = c.take(slot)
	if c.err == nil && !inOrder(c.leaf.edge, c.key, by) {
		return c.fail(corrupt(c.trail[0].id, "keys are not in order with those of the leaf beside it"))
	}
	return k, v
}

// load copies the leaf to which the trail leads.
func (c *Cursor) load(by int) error {
	t := &c.bucket.tx.tree
	id := c.trail[0].id
	b, n, err := t.fetch(id, 0)
	if err != nil {
		return err
	}
	defer b.Release()
	l := &c.leaf
	l.count = n.count()
	l.low = n.low()
	// First this: read from end to end, all that is looked at later is at hand.
	l.slots = append(l.slots[:0], n[nodeHeaderSize:nodeHeaderSize+slotSize*l.count]...)
	l.cells = append([]byte(nil), n[l.low:]...)
	var ok bool
	if l.begin, l.end, ok = c.inBounds(n, by); !ok {
		return misfit(id)
	}
	return nil
}

// inBounds returns the slots of leaf n that are in the cursor's bounds. Only the
// bound that the walk comes to can lie in a leaf that it enters.
func (c *Cursor) inBounds(n node, by int) (begin, end int, ok bool) {
	begin, end = 0, n.count()
	if end == 0 {
		return 0, 0, true
	}
	first, ok1 := n.key(0)
	last, ok2 := n.key(end - 1)
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	ok = true
	if bytes.Compare(first, c.lower) < 0 {
		begin, _, ok = n.search(c.lower)
	}
	if ok && bytes.Compare(last, c.upper) >= 0 {
		end, _, ok = n.search(c.upper)
	}
	return begin, max(begin, end), ok
}

// take arrives at the cell in a slot of the copied leaf.
func (c *Cursor) take(i int) (k, v []byte) {
	l := &c.leaf
	s := slotAt(l.slots[slotSize*i:])
	start, mid, stop := s.span()
	prefix := int(c.bucket.prefixSize)
	if start < l.low || stop > l.low+len(l.cells) || start+prefix >= mid {
		return c.fail(misfit(c.trail[0].id))
	}
	cells := l.cells
	key, value := cells[start-l.low:mid-l.low:mid-l.low], cells[mid-l.low:stop-l.low:stop-l.low]
	if s.kind() != kindInline {
		return c.arrive(cell{key, value, s.kind()})
	}
	c.place, c.key, c.kind = onKey, key, kindInline
	return key[prefix:], value
}

// arrive makes the cursor stand on an entry, whose bytes are the user's now.
func (c *Cursor) arrive(e cell) (k, v []byte) {
	prefix := int(c.bucket.prefixSize)
	if len(e.key) <= prefix {
		return c.fail(corrupt(c.trail[0].id, "key is shorter than the number of its bucket"))
	}
	c.place, c.key, c.kind = onKey, e.key, e.kind
	switch e.kind {
	case kindInline:
		return e.key[prefix:], e.value
	case kindBucket:
		return e.key[prefix:], nil
	}
	if c.keysOnly {
		return e.key[prefix:], nil
	}
	v, err := c.bucket.tx.tree.long(nil, e, c.trail[0].id)
	if err != nil {
		return c.fail(err)
	}
	return e.key[prefix:], v
}
