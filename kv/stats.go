package kv

import "github.com/spillwaydb/spillway/block"

// Counts are what write transactions did.
type Counts struct {
	Puts    uint64 // cells stored
	Deletes uint64 // Delete calls
	Splits  uint64 // nodes divided
	Merges  uint64 // nodes put together
}

// Stats are what a database did since it was opened.
type Stats struct {
	Counts           // of transactions that were committed
	Commits   uint64 // transactions committed
	Rollbacks uint64 // write transactions rolled back
	Batches   uint64 // transactions that DB.Batch began
}

// Stats returns the counters. What the store holds is in Store().Status().
func (db *DB) Stats() Stats {
	db.mu.Lock()
	s := db.stats
	db.mu.Unlock()
	s.Rollbacks = db.rollbacks.Load()
	return s
}

func (db *DB) committed(c Counts) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.stats.Commits++
	db.stats.Puts += c.Puts
	db.stats.Deletes += c.Deletes
	db.stats.Splits += c.Splits
	db.stats.Merges += c.Merges
}

// BucketStats describe one bucket, without what is in the buckets nested in it.
type BucketStats struct {
	Keys        uint64 // entries with a value
	Buckets     uint64 // nested buckets
	KeyBytes    uint64 // of keys and names
	ValueBytes  uint64
	LongValues  uint64 // values that are in blocks of their own
	LongBlocks  uint64 // those blocks
	Leaves      uint64 // leaves that the bucket's entries touch
	LeafBytes   uint64 // of its entries in these
	TreeHeight  int    // levels of the tree, which all buckets share
	LeafPayload int    // bytes of entries and header that a leaf has room for
}

// Stats walks through the bucket and describes it.
func (b *Bucket) Stats() (BucketStats, error) {
	if err := b.use(); err != nil {
		return BucketStats{}, err
	}
	t := &b.tx.tree
	s := BucketStats{TreeHeight: t.height, LeafPayload: t.payload}
	if t.root == 0 {
		return s, nil
	}
	lower, upper := b.bounds(nil, nil)
	var tr trail
	if err := t.descend(&tr, lower); err != nil {
		return s, err
	}
	for {
		last, err := s.addLeaf(t, tr[0].id, lower, upper)
		if err != nil || last {
			return s, err
		}
		if more, err := t.turn(tr, 1); err != nil || !more {
			return s, err
		}
	}
}

// addLeaf counts the bucket's entries in a leaf and reports whether the bucket
// ends there.
func (s *BucketStats) addLeaf(t *tree, id block.ID, lower, upper []byte) (last bool, err error) {
	b, n, err := t.fetch(id, 0)
	if err != nil {
		return false, err
	}
	defer b.Release()
	i, end, ok := n.searchRange(lower, upper)
	if i < end {
		s.Leaves++
	}
	last = end < n.count() || n.count() == 0
	for ; ok && i < end; i++ {
		var c cell
		if c, ok = n.cell(i); ok {
			ok = s.addCell(t.payload, c, len(lower))
		}
	}
	if !ok {
		return false, misfit(id)
	}
	return last, nil
}

func (s *BucketStats) addCell(payload int, c cell, prefix int) (ok bool) {
	s.LeafBytes += uint64(c.size() + slotSize)
	s.KeyBytes += uint64(len(c.key) - prefix)
	switch c.kind {
	case kindBucket:
		s.Buckets++
		return true
	case kindInline:
		s.Keys++
		s.ValueBytes += uint64(len(c.value))
		return true
	}
	s.Keys++
	r, ok := decodeReference(c.value, payload)
	s.LongValues++
	s.LongBlocks += uint64(r.blocks(payload))
	s.ValueBytes += r.size
	return ok
}
