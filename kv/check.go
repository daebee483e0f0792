package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// What Check proves of a tree:
//
//	K1  every node is well-formed: cells in bounds, none overlaps another, free
//	    space adds up, no node is empty
//	K2  keys ascend, are within what the branches above say, share what the node
//	    says, and have the hints that they should
//	K3  all leaves are on level 0; a root branch has two children at least
//	K4  a branch marks every child below which there is more than inline values
//	K5  a long value has exactly the blocks that its size asks for
//	K6  every block is reached once: visit decides
//	K7  bucket numbers are below the next one, greater than the parent's, and
//	    used by one bucket only
//	K8  no entry is in a bucket that does not exist
//
// K7 and K8 together say that every bucket is found from the top.

// problemsMax bounds what one check reports.
const problemsMax = 100

// checkStore is mvcc.Options.CheckTrees.
func checkStore(ctx context.Context, rtx *mvcc.ReadTx, visit func(block.ID) error) error {
	root := rtx.Root()
	f, err := decodeRoot(&root)
	if err != nil || f.root == 0 {
		return err
	}
	t := &tree{rootFields: f, read: rtx}
	b, err := rtx.Block(f.root)
	if err != nil {
		return err
	}
	t.payload = len(b.Payload())
	b.Release()
	return t.check(ctx, visit)
}

// Check proves the tree as the transaction sees it, changes included. It calls
// visit, if that is not nil, for every block that the tree refers to, and does not
// look into one for which visit returns an error: one that is block.ErrCorrupt
// counts as damage, any other one ends the check. Damage is returned as errors that
// are block.ErrCorrupt, joined. Its memory does not depend on the size of the
// database. That no block is referred to twice, and none without use, is proved by
// [DB.Check].
func (tx *Tx) Check(ctx context.Context, visit func(block.ID) error) error {
	if err := tx.usable(); err != nil {
		return err
	}
	if tx.tree.root == 0 {
		return nil
	}
	return tx.tree.check(ctx, visit)
}

func (t *tree) check(ctx context.Context, visit func(block.ID) error) error {
	if visit == nil {
		visit = func(block.ID) error { return nil }
	}
	c := &checker{t: t, ctx: ctx, visit: visit}
	root := childRef{t.root, true}
	err := c.node(root, t.height-1, nil, nil)
	if err == nil && len(c.problems) == 0 { // what a broken tree says of its buckets is not worth hearing
		err = c.buckets()
	}
	if err != nil && !errors.Is(err, errTooMuch) {
		return err
	}
	return errors.Join(c.problems...)
}

// checker is a running check. Its methods return an error if they cannot go on.
type checker struct {
	t        *tree
	ctx      context.Context
	visit    func(block.ID) error
	problems []error
}

// errTooMuch ends a check that has found enough.
var errTooMuch = errors.New("too many problems")

// found records damage, and ends the check when there is too much of it.
func (c *checker) found(id block.ID, format string, args ...any) error {
	c.problems = append(c.problems, corrupt(id, fmt.Sprintf(format, args...)))
	return c.enough()
}

// enough ends the check when there is too much damage.
func (c *checker) enough() error {
	if len(c.problems) >= problemsMax {
		return errTooMuch
	}
	return nil
}

// damaged records err if it is damage: the check goes on beside it. Nil is none.
func (c *checker) damaged(err error) error {
	if !errors.Is(err, block.ErrCorrupt) {
		return err
	}
	c.problems = append(c.problems, err)
	return c.enough()
}

// node proves what is below ref: lower <= keys < upper, nil is no bound.
func (c *checker) node(ref childRef, level int, lower, upper []byte) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if err := c.visit(ref.id); err != nil {
		return c.damaged(err)
	}
	b, n, err := c.t.fetch(ref.id, level)
	if err != nil {
		return c.damaged(err)
	}
	typ := b.Type()
	n = slices.Clone(n) // visiting goes deep: nothing stays pinned
	b.Release()
	if want := nodeType(level); typ != want {
		return c.found(ref.id, "its type is %v, expected %v", typ, want)
	}
	if reason := n.problem(); reason != "" {
		return c.found(ref.id, "%s", reason)
	}
	if reason := n.orderProblem(lower, upper); reason != "" {
		return c.found(ref.id, "%s", reason)
	}
	if n.special() && !ref.special {
		if err := c.found(ref.id, "its branch says that it holds inline values only"); err != nil {
			return err
		}
	}
	if level == 0 {
		return c.leaf(ref.id, n)
	}
	return c.branch(ref.id, n, level, lower, upper)
}

func (c *checker) branch(id block.ID, n node, level int, lower, upper []byte) error {
	if id == c.t.root && n.count() < 2 {
		if err := c.found(id, "root branch has a single child"); err != nil {
			return err
		}
	}
	for i := range n.count() {
		child, special, ok := n.child(i)
		if !ok {
			if err := c.found(id, "slot %d is no child", i); err != nil {
				return err
			}
			continue
		}
		from, to := lower, upper
		if i > 0 {
			from, _ = n.key(i)
		}
		if i+1 < n.count() {
			to, _ = n.key(i + 1)
		}
		if err := c.node(childRef{child, special}, level-1, from, to); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(id block.ID, n node) error {
	for i := range n.count() {
		cell, _ := n.cell(i)
		if err := c.cell(id, cell); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) cell(id block.ID, e cell) error {
	number, rest, ok := cutPrefix(e.key)
	if !ok || number >= c.t.next || len(rest) == 0 || len(rest) > maxKeySize(c.t.payload) {
		return c.found(id, "key %x is not in a bucket below %d", e.key, c.t.next)
	}
	switch e.kind {
	case kindInline:
		if number == 0 {
			return c.found(id, "key %x has a value where only buckets may be", e.key)
		}
		if len(e.value) > inlineMax(c.t.payload) {
			return c.found(id, "inline value of %d bytes", len(e.value))
		}
		return nil
	case kindBucket:
		if b, ok := decodeBucket(e.value); !ok || b.number <= number || b.number >= c.t.next {
			return c.found(id, "bucket %d in bucket %d, next is %d", b.number, number, c.t.next)
		}
		return nil
	}
	return c.long(id, e)
}

// long proves the blocks of a long value.
func (c *checker) long(id block.ID, e cell) error {
	r, err := c.t.decode(e, id)
	if err != nil {
		return c.damaged(err)
	}
	if r.size <= uint64(inlineMax(c.t.payload)) {
		return c.found(id, "value of %d bytes is in blocks of its own", r.size)
	}
	var stop error // not damage: the check cannot go on
	err = c.t.eachPiece(r, func(p block.ID) error {
		stop = c.piece(p)
		return stop
	}, func(x block.ID) error {
		stop = c.damaged(c.visit(x))
		return stop
	})
	if stop != nil {
		return stop
	}
	return c.damaged(err)
}

func (c *checker) piece(id block.ID) error {
	if err := c.visit(id); err != nil {
		return c.damaged(err)
	}
	b, err := c.t.fetchPiece(id, block.TypeOverflow)
	if err != nil {
		return c.damaged(err)
	}
	b.Release()
	return context.Cause(c.ctx)
}

// span is where a cell lies in its node.
type span struct{ from, to int }

// problem says in what way a node is not well-formed, or "".
func (n node) problem() string {
	if n.count() == 0 {
		return "empty node"
	}
	spans := make([]span, 0, n.count())
	live := 0
	for i := range n.count() {
		c, ok := n.cell(i)
		if !ok || n.slot(i).offset() < n.low() {
			return fmt.Sprintf("cell of slot %d is out of bounds", i)
		}
		from := n.slot(i).offset()
		spans = append(spans, span{from, from + c.size()})
		live += c.size()
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return fmt.Sprintf("cells overlap at offset %d", spans[i].from)
		}
	}
	if area := len(n) - n.low(); live+n.garbage() != area {
		return fmt.Sprintf("%d bytes of cells and %d of garbage in an area of %d", live, n.garbage(), area)
	}
	return ""
}

// orderProblem says which key is out of order or bounds, or "". In a branch slot
// 0 has no key.
func (n node) orderProblem(lower, upper []byte) string {
	first := n.base()
	last := lower
	for i := first; i < n.count(); i++ {
		k, _ := n.key(i)
		if last != nil {
			if o := bytes.Compare(k, last); o < 0 || o == 0 && (i > first || first > 0) {
				return fmt.Sprintf("key %x of slot %d is not behind %x", k, i, last)
			}
		}
		if other, _ := n.key(first); n.shared() > commonPrefix(k, other) {
			return fmt.Sprintf("key %x of slot %d does not share %d bytes", k, i, n.shared())
		}
		if n.hint(i) != hintOf(k, n.shared()) {
			return fmt.Sprintf("hint of slot %d is %#x", i, n.hint(i))
		}
		last = k
	}
	if n.count() > first && upper != nil && bytes.Compare(last, upper) >= 0 {
		return fmt.Sprintf("key %x is not below the bound %x", last, upper)
	}
	return ""
}
