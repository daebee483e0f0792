package kv

import (
	"bytes"
	"encoding/binary"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// set stores c, replacing what has its key. A bucket is not replaced by a value
// nor a value by a bucket: that is ErrIncompatibleValue, and nothing changed.
// Any other error leaves the tree in pieces.
func (t *tree) set(c cell) error {
	if t.root == 0 {
		return t.plant(c)
	}
	tr := &t.w.trail
	if err := t.descend(tr, c.key); err != nil {
		return err
	}
	if c.kind != kindInline {
		if err := t.markSpecial(*tr); err != nil {
			return err
		}
	}
	b, n, err := t.edit((*tr)[0].id, 0)
	if err != nil {
		return err
	}
	slot, found, ok := n.search(c.key)
	if !ok {
		b.Release()
		return misfit((*tr)[0].id)
	}
	t.changes++
	if found {
		return t.replace(b, n, slot, c)
	}
	return t.insert(b, n, slot, c)
}

// plant makes c the only entry of an empty tree.
func (t *tree) plant(c cell) error {
	b, err := t.write.Alloc(block.TypeLeaf)
	if err != nil {
		return err
	}
	n := node(b.Payload())
	n.format(0)
	n.setShared(len(c.key))
	n.push(c)
	t.root, t.height = b.ID(), 1
	t.changes++
	b.Release()
	return nil
}

// replace puts c into slot, which has its key. b is released.
func (t *tree) replace(b mvcc.Block, n node, slot int, c cell) error {
	old, ok := n.cell(slot)
	if ok && (old.kind == kindBucket) != (c.kind == kindBucket) {
		b.Release()
		return ErrIncompatibleValue
	}
	var freed reference
	if ok && old.kind == kindOverflow {
		freed, ok = decodeReference(old.value, t.payload)
	}
	var fits bool
	if ok {
		fits, ok = n.replace(slot, c, t.w.scratch)
	}
	if ok && !fits {
		ok = n.remove(slot, slot+1)
	}
	if !ok {
		b.Release()
		return misfit(b.ID())
	}
	var err error
	if fits {
		b.Release()
	} else {
		err = t.split(b, n, 0, slot, c)
	}
	if err != nil {
		return err
	}
	return t.freeOverflow(freed)
}

// insert makes c slot i of leaf b, which is released.
func (t *tree) insert(b mvcc.Block, n node, i int, c cell) error {
	fits, ok := n.insert(i, c, t.w.scratch)
	if !ok {
		b.Release()
		return misfit(b.ID())
	}
	if !fits {
		return t.split(b, n, 0, i, c)
	}
	b.Release()
	return nil
}

// markSpecial records in the branches of tr that its leaf is going to hold
// something else than inline values. A marked branch has marked parents.
func (t *tree) markSpecial(tr trail) error {
	for level := 1; level < len(tr); level++ {
		done, err := t.markChild(tr[level], level)
		if err != nil || done {
			return err
		}
	}
	return nil
}

// markChild marks the child that s took, and reports whether it was marked.
func (t *tree) markChild(s step, level int) (was bool, err error) {
	b, n, err := t.fetch(s.id, level)
	if err != nil {
		return false, err
	}
	_, was, err = childOf(n, s.id, s.slot)
	b.Release()
	if err != nil || was {
		return was, err
	}
	b, n, err = t.edit(s.id, level)
	if err != nil {
		return false, err
	}
	n.setSlot(s.slot, n.slot(s.slot)|slot(kindSpecial)<<62)
	b.Release()
	return false, nil
}

// split divides node b, which has no room for c in slot i, and tells its parent
// on the workspace's trail. b is released.
func (t *tree) split(b mvcc.Block, n node, level, i int, c cell) error {
	right, err := t.write.Alloc(nodeType(level))
	if err != nil {
		b.Release()
		return err
	}
	r := node(right.Payload())
	r.format(level)
	separator, ok := t.divide(n, r, level, i, c)
	parts := [2]childRef{{b.ID(), n.special()}, {right.ID(), r.special()}}
	b.Release()
	right.Release()
	if !ok {
		return misfit(parts[0].id)
	}
	t.w.counts.Splits++
	return t.addChild(level+1, separator, parts)
}

// childRef is what a branch's cell says of a child.
type childRef struct {
	id      block.ID
	special bool
}

// cell returns the cell of a branch for c and the keys from key on.
func (c childRef) cell(key []byte, value *[childSize]byte) cell {
	binary.LittleEndian.PutUint64(value[:], uint64(c.id))
	k := kindPlain
	if c.special {
		k = kindSpecial
	}
	return cell{key: key, value: value[:], kind: k}
}

// addChild tells the branch at level that the child it took was split at
// separator; above the root it makes a new one.
func (t *tree) addChild(level int, separator []byte, parts [2]childRef) error {
	var value [childSize]byte
	if level == t.height {
		return t.growRoot(separator, parts)
	}
	s := t.w.trail[level]
	b, n, err := t.edit(s.id, level)
	if err != nil {
		return err
	}
	c := parts[1].cell(separator, &value)
	fits, ok := n.insert(s.slot+1, c, t.w.scratch)
	if !ok {
		b.Release()
		return misfit(s.id)
	}
	if !fits {
		return t.split(b, n, level, s.slot+1, c)
	}
	b.Release()
	return nil
}

func (t *tree) growRoot(separator []byte, parts [2]childRef) error {
	if t.height == heightMax {
		return corrupt(t.root, "tree is higher than any tree can be")
	}
	b, err := t.write.Alloc(block.TypeBranch)
	if err != nil {
		return err
	}
	n := node(b.Payload())
	n.format(t.height)
	var value [childSize]byte
	n.setShared(len(separator))
	n.push(parts[0].cell(nil, &value))
	n.push(parts[1].cell(separator, &value))
	t.root = b.ID()
	t.height++
	b.Release()
	return nil
}

// divide moves the upper cells of n to the empty node r, with c as slot i of the
// two together, and returns what separates them.
func (t *tree) divide(n, r node, level, i int, c cell) (separator []byte, ok bool) {
	sp := spread{n: n, at: i, c: c}
	m, ok := sp.cut()
	if !ok {
		return nil, false
	}
	first, ok1 := sp.cell(m)
	last, ok2 := sp.cell(m - 1)
	if !ok1 || !ok2 {
		return nil, false
	}
	separator = bytes.Clone(first.key)
	if level == 0 {
		separator = separator[:min(commonPrefix(last.key, first.key)+1, len(separator))]
	}
	if !sp.shareRight(r, m) {
		return nil, false
	}
	for v := m; v < sp.count(); v++ {
		moved, ok := sp.cell(v)
		if level > 0 && v == m {
			moved.key = nil // the parent has it
		}
		if !ok || r.hole() < moved.size()+slotSize {
			return nil, false
		}
		r.push(moved)
	}
	if m > i { // c stays on the left
		if !n.remove(m-1, n.count()) {
			return nil, false
		}
		fits, ok := n.insert(i, c, t.w.scratch)
		return separator, ok && fits
	}
	return separator, n.remove(m, n.count())
}

// spread is a node with one cell more than it has room for.
type spread struct {
	n  node
	at int // slot of the cell c
	c  cell
}

func (s spread) count() int { return s.n.count() + 1 }

func (s spread) cell(v int) (cell, bool) {
	switch {
	case v == s.at:
		return s.c, true
	case v > s.at:
		return s.n.cell(v - 1)
	default:
		return s.n.cell(v)
	}
}

// shareRight sets what the keys from cell m on will share in node r.
func (s spread) shareRight(r node, m int) (ok bool) {
	m += r.base()
	if m >= s.count() {
		return true
	}
	first, ok1 := s.cell(m)
	last, ok2 := s.cell(s.count() - 1)
	r.setShared(commonPrefix(first.key, last.key))
	return ok1 && ok2
}

// cut returns the number of cells that stay on the left: at least one, and at
// least one goes to the right.
func (s spread) cut() (m int, ok bool) {
	total, before := 0, 0 // bytes of all cells, and of those below c
	for v := range s.count() {
		c, ok := s.cell(v)
		if !ok {
			return 0, false
		}
		total += c.size() + slotSize
		if v < s.at {
			before += c.size() + slotSize
		}
	}
	if m, ok := s.cutRun(total, before); ok {
		return m, true
	}
	return s.cutEven(total)
}

// cutRun cuts beside c if the cells before it came in ascending or descending
// order, as far as the node shows: the run goes on in a node that has room, and
// leaves full ones behind.
func (s spread) cutRun(total, before int) (m int, ok bool) {
	room := len(s.n) - nodeHeaderSize
	up := s.n.isNewest(s.at-1, s.at-2)
	down := s.n.isNewest(s.at, s.at+1)
	switch {
	case up && before > room/2, down && before > room/2:
		m = s.at
	case up, down:
		m = s.at + 1
		before += s.c.size() + slotSize
	default:
		return 0, false
	}
	return m, m > 0 && m < s.count() && before <= room && total-before <= room
}

// cutEven halves the bytes as well as cells allow.
func (s spread) cutEven(total int) (m int, ok bool) {
	room := len(s.n) - nodeHeaderSize
	left := 0
	for v := range s.count() - 1 {
		c, _ := s.cell(v)
		size := c.size() + slotSize
		if v > 0 && left+size/2 > total/2 {
			break
		}
		left += size
		m = v + 1
	}
	return m, m > 0 && left <= room && total-left <= room
}
