package kv

import (
	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Merging: a node that is left less than a third full is put together with a
// neighbour under the same parent if both fill at most seven eighths of a block.
// If they do not fit, the two are more than 7/16 full on average, and nothing is
// moved between them: that would write three blocks to gain none.

func (t *tree) isSparse(used int) bool { return used < t.payload/3 }
func (t *tree) mayMerge(used int) bool { return used <= t.payload-t.payload/8 }

// remove deletes key if it is there. A cell of another class than wanted
// (bucket or value) is ErrIncompatibleValue, and nothing changed. Any other
// error leaves the tree in pieces.
func (t *tree) remove(key []byte, bucket bool) (found bool, err error) {
	if t.root == 0 {
		return false, nil
	}
	tr := &t.w.trail
	b, n, found, err := t.seek(tr, key)
	if err != nil {
		return false, err
	}
	leaf := (*tr)[0]
	var freed reference
	if found {
		freed, err = t.removable(n, leaf, bucket)
	}
	b.Release()
	if err != nil || !found {
		return false, err
	}
	if err := t.removeSlots(leaf.id, 0, leaf.slot, leaf.slot+1); err != nil {
		return false, err
	}
	if err := t.freeOverflow(freed); err != nil {
		return false, err
	}
	return true, t.rebalance(*tr, false)
}

// removable checks the class of the cell that s leads to and returns what else
// must be freed with it.
func (t *tree) removable(n node, s step, bucket bool) (r reference, err error) {
	c, ok := n.cell(s.slot)
	if !ok {
		return r, misfit(s.id)
	}
	if (c.kind == kindBucket) != bucket {
		return r, ErrIncompatibleValue
	}
	if c.kind == kindOverflow {
		r, ok = decodeReference(c.value, t.payload)
	}
	if !ok {
		return r, misfit(s.id)
	}
	return r, nil
}

// removeSlots takes slots [i, j) out of a node.
func (t *tree) removeSlots(id block.ID, level, i, j int) error {
	b, n, err := t.edit(id, level)
	if err != nil {
		return err
	}
	defer b.Release()
	t.changes++
	if j > n.count() || !n.remove(i, j) {
		return misfit(id)
	}
	return nil
}

// rebalance merges what is sparse along tr, from the leaf up: on all levels, or
// as far as the level below lost a node.
func (t *tree) rebalance(tr trail, all bool) error {
	for level := 0; level < len(tr)-1; level++ {
		changed, err := t.rebalanceNode(tr, level)
		if err != nil {
			return err
		}
		if !changed && !all {
			return nil
		}
	}
	return t.lowerRoot()
}

// rebalanceNode frees the node of tr at level if it is empty, or merges it with
// a neighbour if it is sparse. It reports whether its parent lost a child.
func (t *tree) rebalanceNode(tr trail, level int) (changed bool, err error) {
	id := tr[level].id
	b, n, err := t.fetch(id, level)
	if err != nil {
		return false, err
	}
	used, count := n.used(), n.count()
	b.Release()
	parent := tr[level+1]
	switch {
	case count == 0:
		if err := t.removeSlots(parent.id, level+1, parent.slot, parent.slot+1); err != nil {
			return false, err
		}
		return true, t.free(id)
	case t.isSparse(used):
		return t.mergeBeside(parent, level)
	}
	return false, nil
}

// mergeBeside merges the child that parent took, which is at level, with the
// next or the previous one, if it fits with one of them.
func (t *tree) mergeBeside(parent step, level int) (merged bool, err error) {
	b, p, err := t.fetch(parent.id, level+1)
	if err != nil {
		return false, err
	}
	count := p.count()
	b.Release()
	if parent.slot+1 < count {
		if merged, err = t.merge(parent.id, parent.slot, level); merged || err != nil {
			return merged, err
		}
	}
	if parent.slot > 0 {
		return t.merge(parent.id, parent.slot-1, level)
	}
	return false, nil
}

// couple is two children of a branch that are neighbours.
type couple struct {
	left, right childRef
	separator   []byte // points into the branch
}

func coupleOf(p node, id block.ID, slot int) (c couple, err error) {
	if c.left.id, c.left.special, err = childOf(p, id, slot); err != nil {
		return c, err
	}
	if c.right.id, c.right.special, err = childOf(p, id, slot+1); err != nil {
		return c, err
	}
	c.separator, _ = p.key(slot + 1)
	return c, nil
}

// merge moves all of the child at slot+1 of a branch into the child at slot, if
// it fits, and takes it out of the branch.
func (t *tree) merge(parent block.ID, slot, level int) (merged bool, err error) {
	b, p, err := t.fetch(parent, level+1)
	if err != nil {
		return false, err
	}
	c, err := coupleOf(p, parent, slot)
	if err == nil {
		merged, err = t.mergeCouple(c, level)
	}
	b.Release()
	if err != nil || !merged {
		return false, err
	}
	if c.right.special && !c.left.special {
		if _, err := t.markChild(step{parent, slot}, level+1); err != nil {
			return false, err
		}
	}
	t.w.counts.Merges++
	if err := t.removeSlots(parent, level+1, slot+1, slot+2); err != nil {
		return false, err
	}
	return true, t.free(c.right.id)
}

// mergeCouple moves the cells of the right node into the left one if they fit.
func (t *tree) mergeCouple(c couple, level int) (merged bool, err error) {
	rb, r, err := t.fetch(c.right.id, level)
	if err != nil {
		return false, err
	}
	defer rb.Release()
	lb, l, err := t.fetch(c.left.id, level)
	if err != nil {
		return false, err
	}
	sum := l.used() + r.used() - nodeHeaderSize
	if level > 0 {
		sum += len(c.separator)
	}
	lb.Release()
	if !t.mayMerge(sum) {
		return false, nil
	}
	lb, l, err = t.edit(c.left.id, level)
	if err != nil {
		return false, err
	}
	defer lb.Release()
	if !l.absorb(r, c.separator, t.w.scratch) {
		return false, misfit(c.left.id)
	}
	return true, nil
}

// absorb appends all cells of r. In a branch the first one gets the key that
// separated the two.
func (n node) absorb(r node, separator []byte, scratch node) (ok bool) {
	for i := range r.count() {
		c, ok := r.cell(i)
		if !ok {
			return false
		}
		if i == 0 && n.level() > 0 {
			c.key = separator
		}
		if fits, ok := n.insert(n.count(), c, scratch); !ok || !fits {
			return false
		}
	}
	return true
}

// lowerRoot takes branches with a single child, and an empty leaf, off the top.
func (t *tree) lowerRoot() error {
	for t.height > 0 {
		b, n, err := t.fetch(t.root, t.height-1)
		if err != nil {
			return err
		}
		done, child, err := t.rootChild(b, n)
		b.Release()
		if err != nil || done {
			return err
		}
		if err := t.free(t.root); err != nil {
			return err
		}
		t.root = child
		t.height--
		if child == 0 {
			t.height = 0
		}
	}
	return nil
}

// rootChild returns what is to be the root instead of b: 0 is no root at all.
func (t *tree) rootChild(b mvcc.Block, n node) (done bool, child block.ID, err error) {
	switch {
	case n.count() == 0:
		return false, 0, nil
	case n.count() > 1 || t.height == 1:
		return true, 0, nil
	}
	child, _, err = childOf(n, b.ID(), 0)
	return false, child, err
}
