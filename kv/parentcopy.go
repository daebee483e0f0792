package kv

import "github.com/spillwaydb/spillway/block"

// parentCopy is the branch above the leaves that a read transaction walks along,
// copied when it is come to for the second time: who goes from leaf to leaf need
// not look it up for each.
type parentCopy struct {
	id   block.ID
	node node // empty: seen once
}

// see is told of branch n, which was fetched to go to the leaf beside.
func (p *parentCopy) see(id block.ID, n node) {
	if p.id == id {
		p.node = append(p.node[:0], n...)
		return
	}
	p.id, p.node = id, p.node[:0]
}

// turn leads tr to the leaf beside its own, if the copy says which that is.
func (p *parentCopy) turn(tr trail, by int) bool {
	if len(p.node) == 0 || len(tr) < 2 || tr[1].id != p.id {
		return false
	}
	slot := tr[1].slot + by
	if slot < 0 || slot >= p.node.count() {
		return false
	}
	id, _, ok := p.node.child(slot)
	if ok {
		tr[1].slot = slot
		tr[0] = step{id: id}
	}
	return ok
}
