package kv

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// tree is the B+tree as one transaction sees it. Keys here are composite keys.
// No block stays pinned between two calls.
type tree struct {
	rootFields
	read    *mvcc.ReadTx // one of these two
	write   *mvcc.WriteTx
	payload int         // bytes of a block's payload
	top     node        // a copy of the root, or nil; of a read transaction
	parent  *parentCopy // of a read transaction that walks

	// changes counts what was done to the tree: who remembers a place in it
	// must search again when the number is another one.
	changes uint64
	w       *workspace // nil in a read transaction

	// lives counts, for the first block of each long value that a write
	// transaction has a reader of, how many values have ended there. A freed block
	// is used again at once (L11), so that a value's place does not prove that it
	// is still the same one.
	lives map[block.ID]uint64
}

// workspace is what a write transaction needs besides blocks. There is one
// writer at a time, so a database has one and hands it on.
type workspace struct {
	trail   trail  // of the last descent that came to change something
	scratch node   // packing
	key     []byte // composite key of the running operation
	counts  Counts
}

// step is a block on the way from the root to an entry, and the slot taken in
// it.
type step struct {
	id   block.ID
	slot int
}

// trail leads to an entry: trail[0] is its leaf, trail[height-1] the root.
type trail []step

// sized returns t with room for the levels of a tree.
func (t trail) sized(height int) trail {
	if cap(t) < height {
		return make(trail, height)
	}
	return t[:height]
}

// idEnd bounds the block numbers that the tree may name: their place in the data
// file is a number of bytes that an int64 holds.
const idEnd = block.ID(1) << 46

// pin pins block id.
func (t *tree) pin(id block.ID) (b mvcc.Block, err error) {
	switch {
	case id >= idEnd:
		return b, stray(id, nil)
	case t.write != nil:
		b, err = t.write.Block(id)
	default:
		b, err = t.read.Block(id)
	}
	if err != nil {
		return b, stray(id, err)
	}
	return b, nil
}

// stray makes damage of what the store says to a number that only a damaged tree
// can ask for.
func stray(id block.ID, err error) error {
	if err == nil || errors.Is(err, mvcc.ErrNotInUse) {
		return &block.CorruptError{Path: "data", Offset: -1, Block: id,
			Reason: "the tree refers to a block that is not in use", Cause: err}
	}
	return err
}

// fetch pins block id, which must be a node of this level.
func (t *tree) fetch(id block.ID, level int) (b mvcc.Block, n node, err error) {
	if b, err = t.pin(id); err != nil {
		return b, nil, err
	}
	n, err = t.open(b, level)
	return b, n, err
}

// edit pins the transaction's own copy of block id.
func (t *tree) edit(id block.ID, level int) (b mvcc.Block, n node, err error) {
	if id >= idEnd {
		return b, nil, stray(id, nil)
	}
	if b, err = t.write.Edit(id); err != nil {
		return b, nil, stray(id, err)
	}
	n, err = t.open(b, level)
	return b, n, err
}

// free gives a block back, of which nothing is pinned.
func (t *tree) free(id block.ID) error {
	if id >= idEnd {
		return stray(id, nil)
	}
	t.changes++
	if err := t.write.Free(id); err != nil {
		return stray(id, err)
	}
	return nil
}

// open checks what everything else relies on. On an error b is released. The type
// of the block is left to Check: the trailer would be one more line to fetch from
// memory, and node.tag says the same.
func (t *tree) open(b mvcc.Block, level int) (node, error) {
	n := node(b.Payload())
	if len(n) != t.payload || !n.wellFormed(level) {
		err := corrupt(b.ID(), fmt.Sprintf("not a sound node of level %d, where it was reached", level))
		b.Release()
		return nil, err
	}
	return n, nil
}

// misfit reports a node whose cells contradict its header.
func misfit(id block.ID) error {
	return corrupt(id, "cell out of bounds, or free space that does not add up")
}

// childOf returns child i of branch n, which is block id.
func childOf(n node, id block.ID, i int) (child block.ID, special bool, err error) {
	child, special, ok := n.child(i)
	if !ok {
		return 0, false, corrupt(id, "branch without a child in the slot that was taken")
	}
	return child, special, nil
}

// leafOf pins the leaf where key is, or would be. The tree is not empty.
func (t *tree) leafOf(key []byte) (mvcc.Block, node, error) {
	id, level := t.root, t.height-1
	if t.top != nil {
		child, ok := t.top.childFor(key)
		if !ok {
			return mvcc.Block{}, nil, misfit(id)
		}
		id, level = child, level-1
	}
	for ; ; level-- {
		b, n, err := t.fetch(id, level)
		if err != nil || level == 0 {
			return b, n, err
		}
		child, ok := n.childFor(key)
		b.Release()
		if !ok {
			return mvcc.Block{}, nil, misfit(id)
		}
		id = child
	}
}

// find returns the cell of key, whose bytes are good until b is released. If
// there is none, nothing is pinned.
func (t *tree) find(key []byte) (b mvcc.Block, c cell, found bool, err error) {
	if t.root == 0 {
		return b, c, false, nil
	}
	b, n, err := t.leafOf(key)
	if err != nil {
		return b, c, false, err
	}
	slot, found, ok := n.search(key)
	if found {
		c, ok = n.cell(slot)
	}
	if !ok || !found {
		id := b.ID()
		b.Release()
		if !ok {
			err = misfit(id)
		}
		return mvcc.Block{}, c, false, err
	}
	return b, c, true, nil
}

// descend leads tr to the leaf of key; the leaf's own slot is not set. The tree
// is not empty.
func (t *tree) descend(tr *trail, key []byte) error {
	*tr = tr.sized(t.height)
	id := t.root
	for level := t.height - 1; level > 0; level-- {
		b, n, err := t.fetch(id, level)
		if err != nil {
			return err
		}
		slot, ok := n.route(key)
		(*tr)[level] = step{id, slot}
		if ok {
			id, _, ok = n.child(slot)
		}
		b.Release()
		if !ok {
			return misfit((*tr)[level].id)
		}
	}
	(*tr)[0] = step{id: id}
	return nil
}

// seek leads tr to the first entry of its leaf whose key is not below key: that
// is slot count, behind the last one, if the whole leaf is below.
func (t *tree) seek(tr *trail, key []byte) (b mvcc.Block, n node, found bool, err error) {
	if err = t.descend(tr, key); err != nil {
		return b, nil, false, err
	}
	leaf := &(*tr)[0]
	b, n, err = t.fetch(leaf.id, 0)
	if err != nil {
		return b, nil, false, err
	}
	var ok bool
	leaf.slot, found, ok = n.search(key)
	if !ok {
		b.Release()
		return mvcc.Block{}, nil, false, misfit(leaf.id)
	}
	return b, n, found, nil
}

// turn leads tr to the leaf beside its own: by = 1 the next, -1 the one before.
// It reports false at the end of the tree.
func (t *tree) turn(tr trail, by int) (bool, error) {
	if t.parent != nil && t.parent.turn(t.read, tr, by) {
		return true, nil
	}
	for level := 1; level < len(tr); level++ {
		s := &tr[level]
		b, n, err := t.fetch(s.id, level)
		if err != nil {
			return false, err
		}
		if level == 1 && t.read != nil {
			t.parent = t.parent.see(s.id, n)
		}
		if next := s.slot + by; next >= 0 && next < n.count() {
			s.slot = next
			id, _, err := childOf(n, s.id, next)
			b.Release()
			if err != nil {
				return false, err
			}
			return true, t.fall(tr, level-1, id, by)
		}
		b.Release()
	}
	return false, nil
}

// fall leads tr from node id at level down to its first leaf (by > 0) or its
// last.
func (t *tree) fall(tr trail, level int, id block.ID, by int) error {
	for ; level > 0; level-- {
		b, n, err := t.fetch(id, level)
		if err != nil {
			return err
		}
		slot := 0
		if by < 0 {
			slot = max(n.count()-1, 0)
		}
		tr[level] = step{id, slot}
		if n.count() == 0 {
			err = misfit(id)
		} else {
			id, _, err = childOf(n, id, slot)
		}
		b.Release()
		if err != nil {
			return err
		}
	}
	tr[0] = step{id: id}
	return nil
}

// inOrder reports whether key is on the side of the last one on which a walk in
// direction by must find it. It is what ends a walk through a damaged tree.
func inOrder(last, key []byte, by int) bool {
	return bytes.Compare(key, last)*by > 0
}
