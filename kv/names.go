package kv

import (
	"maps"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
)

// names remembers what number a bucket's name stands for, so that a transaction
// that reads one entry searches the tree once and not twice.
//
// What a name stands for changes only by a commit that creates or deletes a
// bucket, and the root says which was the last one: a bucket that was found in one
// snapshot is the same in every other one whose root says the same. A write
// transaction, which sees its own changes, searches.
type names struct{ known atomic.Pointer[bucketNumbers] }

// bucketNumbers are buckets, by composite key, as of the roots that say renamed.
// Never changed.
type bucketNumbers struct {
	renamed block.LSN
	numbers map[string]uint64
}

// namesMax bounds what is remembered. The first that are found stay: to make
// room again and again would cost more than it saves.
const namesMax = 32

// find returns the number of a bucket, if it is known.
func (n *names) find(key []byte, renamed block.LSN) (number uint64, ok bool) {
	known := n.known.Load()
	if known == nil || known.renamed != renamed {
		return 0, false
	}
	number, ok = known.numbers[string(key)]
	return number, ok
}

// learn remembers a bucket. What is known of newer snapshots stays. One that is
// lost to a race is learned the next time.
func (n *names) learn(key []byte, number uint64, renamed block.LSN) {
	old := n.known.Load()
	same := old != nil && old.renamed == renamed
	if same && len(old.numbers) >= namesMax || old != nil && old.renamed > renamed {
		return
	}
	next := &bucketNumbers{renamed, map[string]uint64{string(key): number}}
	if same {
		maps.Copy(next.numbers, old.numbers)
	}
	n.known.CompareAndSwap(old, next)
}

func (tx *Tx) knownBucket(key []byte) (number uint64, ok bool) {
	if tx.tree.write != nil {
		return 0, false
	}
	return tx.db.names.find(key, tx.tree.renamed)
}

func (tx *Tx) learnBucket(key []byte, number uint64) {
	if tx.tree.write == nil {
		tx.db.names.learn(key, number, tx.tree.renamed)
	}
}
