package snapshot

import (
	"runtime"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// TestR11_PlaceOfAClosingBackup: a backup that holds many originals ends in slices. Until
// the last of them has gone its place is nobody else's, or they would count as another's.
func TestR11_PlaceOfAClosingBackup(t *testing.T) {
	const held = 2*releaseSlice + 10
	n := newNaive(t, 1)
	n.set.Advance(1)
	n.openBackup()
	first := n.backups[0]
	n.set.Advance(2)
	for id := range block.ID(held) {
		n.original(id, 1, 2)
	}
	n.compare()
	l := n.cache.Latch(0) // whoever lets the first slice go waits here
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		first.Close()
	}()
	for queueLen(first.Backup) == held {
		runtime.Gosched()
	}
	n.backups = nil
	n.openBackup()
	l.Unlock()
	<-closed
	n.compare()
	n.end()
}
