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
// bucket. Such a commit says so before it is made, and so before anyone can see
// it: changed is the LSN of the newest one. A bucket that was found in a snapshot
// at or above changed is the same in every other snapshot at or above changed.
// Snapshots below it search, and write transactions, which see their own
// changes. A standby remembers nothing: the commits that it applies do not say
// what they do to buckets.
type names struct {
	off     bool          // set at Open, then constant
	changed atomic.Uint64 // block.LSN
	known   atomic.Pointer[bucketNumbers]
}

// bucketNumbers are buckets that were found while changed had that value, by
// composite key. Never changed.
type bucketNumbers struct {
	changed block.LSN
	numbers map[string]uint64
}

// namesMax bounds what is remembered. The first that are found stay: to make
// room again and again would cost more than it saves.
const namesMax = 32

// change says that the commit lsn, which is about to be made, creates or deletes
// a bucket. The writer calls it.
func (n *names) change(lsn block.LSN) { n.changed.Store(uint64(lsn)) }

// find returns the number of a bucket in a snapshot at lsn, if it is known.
func (n *names) find(key []byte, lsn block.LSN) (number uint64, ok bool) {
	changed := block.LSN(n.changed.Load())
	known := n.known.Load()
	if n.off || known == nil || known.changed != changed || lsn < changed {
		return 0, false
	}
	number, ok = known.numbers[string(key)]
	return number, ok
}

// learn remembers a bucket that was found in a snapshot at lsn. One that is lost
// to a race is learned the next time.
func (n *names) learn(key []byte, number uint64, lsn block.LSN) {
	changed := block.LSN(n.changed.Load())
	if lsn < changed {
		return
	}
	old := n.known.Load()
	next := &bucketNumbers{changed, map[string]uint64{string(key): number}}
	if old != nil && old.changed == changed {
		if len(old.numbers) >= namesMax {
			return
		}
		maps.Copy(next.numbers, old.numbers)
	}
	n.known.CompareAndSwap(old, next)
}

func (tx *Tx) knownBucket(key []byte) (number uint64, ok bool) {
	if tx.tree.write != nil {
		return 0, false
	}
	return tx.db.names.find(key, tx.base)
}

func (tx *Tx) learnBucket(key []byte, number uint64) {
	if tx.tree.write == nil {
		tx.db.names.learn(key, number, tx.base)
	}
}
