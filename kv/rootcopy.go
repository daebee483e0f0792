package kv

import (
	"bytes"

	"github.com/spillwaydb/spillway/block"
)

// rootCopy is the tree's topmost node as of a commit, when two read transactions
// in a row saw that commit: on a database that is mostly read, all of them begin
// at that node, and would take turns in pinning it. Only for View: a transaction
// that Begin returned may stay open, and many of them would keep as many copies.
type rootCopy struct {
	lsn  block.LSN
	node node // nil: only one transaction has seen the commit yet
}

// top returns the copy of the root for a read transaction, or nil.
func (db *DB) top(tx *Tx) node {
	c := db.root.Load()
	if c == nil || c.lsn != tx.base {
		db.root.Store(&rootCopy{lsn: tx.base})
		return nil
	}
	if c.node == nil && tx.tree.height > 1 {
		b, n, err := tx.tree.fetch(tx.tree.root, tx.tree.height-1)
		if err != nil {
			return nil // who needs it will be told
		}
		c = &rootCopy{tx.base, bytes.Clone(n)}
		b.Release()
		db.root.Store(c)
	}
	return c.node
}
