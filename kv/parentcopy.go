package kv

import (
	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// parentCopy is the branch above the leaves that a read transaction walks along,
// copied when it is come to for the second time: who goes from leaf to leaf need
// not look it up for each, and knows which leaves come next.
type parentCopy struct {
	id    block.ID
	node  node // empty: seen once
	ahead int  // leaves that the transaction was told of and the walk has not come to
}

// see is told of branch n, which was fetched to go to the leaf beside, and returns
// what then is known: p may be nil.
func (p *parentCopy) see(id block.ID, n node) *parentCopy {
	switch {
	case p == nil:
		p = &parentCopy{id: id}
	case p.id == id:
		p.node = append(p.node[:0], n...)
	default:
		p.id, p.node, p.ahead = id, p.node[:0], 0
	}
	return p
}

// turn leads tr to the leaf beside its own, if the copy says which that is.
func (p *parentCopy) turn(tx *mvcc.ReadTx, tr trail, by int) bool {
	if len(p.node) == 0 || len(tr) < 2 || tr[1].id != p.id {
		return false
	}
	slot := tr[1].slot + by
	if slot < 0 || slot >= p.node.count() {
		return false
	}
	if p.ahead == 0 {
		p.ahead = p.tell(tx, slot, by)
	}
	p.ahead--
	id, _, ok := p.node.child(slot)
	if ok {
		tr[1].slot = slot
		tr[0] = step{id: id}
	}
	return ok
}

// tell says to the transaction which leaves come next, from slot on, and returns
// how many.
func (p *parentCopy) tell(tx *mvcc.ReadTx, slot, by int) int {
	var ids [mvcc.AheadMax]block.ID
	n := 0
	for ; n < len(ids) && slot >= 0 && slot < p.node.count(); slot += by {
		ids[n], _, _ = p.node.child(slot)
		n++
	}
	tx.Ahead(ids[:n])
	return n
}
