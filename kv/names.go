package kv

import (
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
// changes.
type names struct {
	changed atomic.Uint64                          // block.LSN
	known   atomic.Pointer[map[string]knownBucket] // by composite key; never changed
}

// knownBucket is a bucket's number as it was found at an LSN.
type knownBucket struct {
	number uint64
	lsn    block.LSN
}

// namesMax bounds what is remembered.
const namesMax = 32

// change says that the commit lsn, which is about to be made, creates or deletes
// a bucket. The writer calls it.
func (n *names) change(lsn block.LSN) { n.changed.Store(uint64(lsn)) }

// find returns the number of a bucket in a snapshot at lsn, if it is known.
func (n *names) find(key []byte, lsn block.LSN) (number uint64, ok bool) {
	known := n.known.Load()
	if known == nil {
		return 0, false
	}
	k, ok := (*known)[string(key)]
	changed := block.LSN(n.changed.Load())
	return k.number, ok && k.lsn >= changed && lsn >= changed
}

// learn remembers a bucket that was found in a snapshot at lsn. One that is lost
// to a race is learned the next time.
func (n *names) learn(key []byte, k knownBucket) {
	if k.lsn < block.LSN(n.changed.Load()) {
		return
	}
	old := n.known.Load()
	all := make(map[string]knownBucket)
	if old != nil && len(*old) < namesMax {
		for key, k := range *old {
			all[key] = k
		}
	}
	all[string(key)] = k
	n.known.CompareAndSwap(old, &all)
}

func (tx *Tx) knownBucket(key []byte) (number uint64, ok bool) {
	if tx.tree.write != nil {
		return 0, false
	}
	return tx.db.names.find(key, tx.base)
}

func (tx *Tx) learnBucket(key []byte, number uint64) {
	if tx.tree.write == nil {
		tx.db.names.learn(key, knownBucket{number, tx.base})
	}
}
