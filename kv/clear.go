package kv

import (
	"bytes"

	"github.com/spillwaydb/spillway/block"
)

// clearRange deletes all entries with from <= key < to. Subtrees between the two
// are freed whole: of their leaves only those are read that may hold long values.
// What buckets in the range contain is not touched.
func (t *tree) clearRange(from, to []byte) error {
	if t.root == 0 {
		return nil
	}
	special := true // the root has no cell that says otherwise
	changes := t.changes
	if _, err := t.clearNode(childRef{t.root, special}, t.height-1, from, to); err != nil {
		return err
	}
	if t.changes == changes {
		return nil // there was nothing
	}
	if err := t.lowerRoot(); err != nil {
		return err
	}
	// What is left on the two edges of the hole may be sparse.
	for _, edge := range [][]byte{from, to} {
		if t.root == 0 || edge == nil {
			continue
		}
		if err := t.descend(&t.w.trail, edge); err != nil {
			return err
		}
		if err := t.rebalance(t.w.trail, true); err != nil {
			return err
		}
	}
	return nil
}

// clearNode deletes the range below a node; nil is no bound. It reports whether
// the node was left empty: its parent then takes it out and frees it.
func (t *tree) clearNode(c childRef, level int, from, to []byte) (empty bool, err error) {
	i, j, err := t.slotsBetween(c, level, from, to)
	if err != nil {
		return false, err
	}
	if level == 0 {
		return t.clearSlots(c.id, 0, i, j)
	}
	return t.clearChildren(c, level, i, j, from, to)
}

// slotsBetween returns what of a node the range touches: slots [i, j) of a leaf,
// whose long values it frees, or children i to j of a branch.
func (t *tree) slotsBetween(c childRef, level int, from, to []byte) (i, j int, err error) {
	b, n, err := t.fetch(c.id, level)
	if err != nil {
		return 0, 0, err
	}
	if level > 0 {
		i, j, ok := n.routeRange(from, to)
		b.Release()
		if !ok {
			return 0, 0, misfit(c.id)
		}
		return i, j, nil
	}
	i, j, ok := n.searchRange(from, to)
	if !ok {
		b.Release()
		return 0, 0, misfit(c.id)
	}
	refs, err := t.references(n, c, i, j)
	b.Release()
	if err != nil {
		return 0, 0, err
	}
	return i, j, t.freeAll(refs)
}

// searchRange returns the slots of a leaf with from <= key < to; nil is no bound.
func (n node) searchRange(from, to []byte) (i, j int, ok bool) {
	j, ok = n.count(), true
	if from != nil {
		i, _, ok = n.search(from)
	}
	if ok && to != nil {
		j, _, ok = n.search(to)
	}
	return i, max(i, j), ok
}

// routeRange returns the first and the last child of a branch that may hold keys
// with from <= key < to; nil is no bound.
func (n node) routeRange(from, to []byte) (first, last int, ok bool) {
	if n.count() == 0 {
		return 0, 0, false
	}
	last, ok = n.count()-1, true
	if from != nil {
		first, ok = n.route(from)
	}
	if ok && to != nil {
		last, ok = n.route(to)
	}
	return first, max(first, last), ok
}

// clearChildren deletes the range below children first to last of a branch.
func (t *tree) clearChildren(c childRef, level, first, last int, from, to []byte) (empty bool, err error) {
	children, err := t.children(c.id, level, first, last+1)
	if err != nil {
		return false, err
	}
	gone := make([]bool, len(children))
	for i, child := range children {
		lower, upper := from, to
		if i > 0 {
			lower = nil
		}
		if i < len(children)-1 {
			upper = nil
		}
		if lower == nil && upper == nil {
			gone[i] = true
			err = t.freeSubtree(child, level-1)
		} else if gone[i], err = t.clearNode(child, level-1, lower, upper); gone[i] && err == nil {
			err = t.free(child.id)
		}
		if err != nil {
			return false, err
		}
	}
	// What is gone is one run: only the first and the last child can be left.
	i, j := 0, len(gone)
	for i < j && !gone[i] {
		i++
	}
	for j > i && !gone[j-1] {
		j--
	}
	return t.clearSlots(c.id, level, first+i, first+j)
}

// clearSlots takes slots [i, j) out of a node and reports whether none are left.
func (t *tree) clearSlots(id block.ID, level, i, j int) (empty bool, err error) {
	if i < j {
		if err := t.removeSlots(id, level, i, j); err != nil {
			return false, err
		}
	}
	b, n, err := t.fetch(id, level)
	if err != nil {
		return false, err
	}
	empty = n.count() == 0
	b.Release()
	return empty, nil
}

// children returns children [i, j) of a branch.
func (t *tree) children(id block.ID, level, i, j int) ([]childRef, error) {
	b, n, err := t.fetch(id, level)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	refs := make([]childRef, 0, j-i)
	for ; i < j; i++ {
		child, special, err := childOf(n, id, i)
		if err != nil {
			return nil, err
		}
		refs = append(refs, childRef{child, special})
	}
	return refs, nil
}

// freeSubtree frees a node, what is below it, and the long values of its leaves.
func (t *tree) freeSubtree(c childRef, level int) error {
	switch {
	case level > 0:
		b, n, err := t.fetch(c.id, level)
		if err != nil {
			return err
		}
		count := n.count()
		b.Release()
		children, err := t.children(c.id, level, 0, count)
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := t.freeSubtree(child, level-1); err != nil {
				return err
			}
		}
	case c.special:
		if _, _, err := t.slotsBetween(c, 0, nil, nil); err != nil {
			return err
		}
	}
	return t.free(c.id)
}

// references returns the long values in slots [i, j) of a leaf.
func (t *tree) references(n node, c childRef, i, j int) (refs []reference, err error) {
	if !c.special {
		return nil, nil
	}
	for ; i < j; i++ {
		cell, ok := n.cell(i)
		if ok && cell.kind == kindOverflow {
			var r reference
			r, ok = decodeReference(cell.value, t.payload)
			refs = append(refs, r)
		}
		if !ok {
			return nil, misfit(c.id)
		}
	}
	return refs, nil
}

func (t *tree) freeAll(refs []reference) error {
	for _, r := range refs {
		if err := t.freeOverflow(r); err != nil {
			return err
		}
	}
	return nil
}

// nextBucket returns the first bucket entry with from <= key < to. Subtrees that
// hold none are not read.
func (t *tree) nextBucket(from, to []byte) (key []byte, e bucketEntry, found bool, err error) {
	if t.root == 0 {
		return nil, e, false, nil
	}
	return t.nextBucketBelow(t.root, t.height-1, from, to)
}

func (t *tree) nextBucketBelow(id block.ID, level int, from, to []byte) (key []byte, e bucketEntry, found bool, err error) {
	if level == 0 {
		return t.nextBucketInLeaf(id, from, to)
	}
	b, n, err := t.fetch(id, level)
	if err != nil {
		return nil, e, false, err
	}
	first, last, ok := n.routeRange(from, to)
	b.Release()
	if !ok {
		return nil, e, false, misfit(id)
	}
	for i := first; i <= last; i++ {
		child, err := t.children(id, level, i, i+1)
		if err != nil {
			return nil, e, false, err
		}
		if !child[0].special {
			continue
		}
		key, e, found, err = t.nextBucketBelow(child[0].id, level-1, from, to)
		if found || err != nil {
			return key, e, found, err
		}
	}
	return nil, e, false, nil
}

func (t *tree) nextBucketInLeaf(id block.ID, from, to []byte) (key []byte, e bucketEntry, found bool, err error) {
	b, n, err := t.fetch(id, 0)
	if err != nil {
		return nil, e, false, err
	}
	defer b.Release()
	i, j, ok := n.searchRange(from, to)
	for ; ok && i < j; i++ {
		var c cell
		if c, ok = n.cell(i); ok && c.kind == kindBucket {
			e, ok = decodeBucket(c.value)
			ok = ok && bytes.Compare(c.key, from) >= 0 // or who asks again behind it goes round
			if ok {
				return bytes.Clone(c.key), e, true, nil
			}
		}
	}
	if !ok {
		return nil, e, false, misfit(id)
	}
	return nil, e, false, nil
}
