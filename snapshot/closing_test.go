package snapshot

import (
	"errors"
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

// TestR21_EndsAreToldOnce: a backup that is being closed when all snapshots are broken was
// not broken; one that is broken, and has not let go yet, is not broken again.
func TestR21_EndsAreToldOnce(t *testing.T) {
	t.Run("closing", func(t *testing.T) {
		n := newNaive(t, 1)
		reader := n.reader(0)
		n.set.Advance(1)
		b, err := n.set.OpenBackup("", "")
		ok(t, err)
		n.set.Advance(2)
		const held = 2 * releaseSlice
		for id := range block.ID(held) {
			n.original(id, 1, 2)
		}
		l := n.cache.Latch(0) // whoever lets the first slice go waits here
		closed, all := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(closed)
			b.Close()
		}()
		for queueLen(b) == held {
			runtime.Gosched()
		}
		go func() {
			defer close(all)
			n.set.BreakAll(ReasonClosed)
		}()
		for reader.Err() == nil {
			runtime.Gosched()
		}
		l.Unlock()
		<-closed
		<-all
		n.toldOf(1, b.Err() == nil && n.broken[0].Kind == "reader")
		n.set.CloseReader(reader)
		n.close()
	})
	t.Run("broken", func(t *testing.T) {
		n := newNaive(t, 1)
		reader := n.reader(1)
		b, err := n.set.OpenBackup("", "")
		ok(t, err)
		n.set.Advance(2)
		for id := block.ID(1); id <= 3; id++ {
			n.original(id, 1, 2)
		}
		first, second := n.set.Find(1, 1), n.set.Find(2, 1)
		l := n.cache.Latch(3)
		b.Done(3) // only the reader wants it: whoever breaks both waits here for its latch
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.set.BreakWanting(first, 2, errors.New("the first"))
		}()
		for b.Err() == nil {
			runtime.Gosched()
		}
		n.set.BreakWanting(second, 2, errors.New("the second"))
		l.Unlock()
		<-ended
		n.toldOf(2, reader.Err() != nil)
		n.set.CloseReader(reader)
		n.close()
	})
}

// toldOf proves that so many snapshots were broken, counted and told of, and what else is so.
func (n *naive) toldOf(broken int, also bool) {
	n.t.Helper()
	if len(n.broken) != broken || n.set.broken != uint64(broken) || !also {
		n.t.Fatalf("told of %v, counted %d", n.broken, n.set.broken)
	}
}
