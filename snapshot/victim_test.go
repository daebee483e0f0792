package snapshot

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// age makes everybody old.
func (n *naive) age() { n.set.Tick(time.Now().Add(time.Hour)) }

// TestR13_Victims: who frees most goes first; the young last, but they go.
func TestR13_Victims(t *testing.T) {
	t.Run("most bytes", func(t *testing.T) {
		n := newNaive(t, 1)
		a, b := n.reader(1), n.reader(2)
		n.twoOriginals()
		n.original(3, 2, 9)
		n.age()
		if !n.set.BreakVictim() || a.Err() != nil || b.Err() == nil {
			t.Fatal("not the one that frees most")
		}
		n.dropBroken()
		n.compare()
		n.end()
	})
	t.Run("youth orders", func(t *testing.T) {
		n := newNaive(t, 1)
		a := n.reader(1)
		n.age()
		b := n.reader(2)
		n.twoOriginals()
		n.original(3, 2, 9)
		if !n.set.BreakVictim() || a.Err() == nil || b.Err() != nil {
			t.Fatal("the young one went first")
		}
		if !n.set.BreakVictim() || b.Err() == nil {
			t.Fatal("the young one never goes")
		}
		n.dropBroken()
		n.compare()
		n.end()
	})
	t.Run("shared by reader and backup", func(t *testing.T) {
		n := newNaive(t, 1)
		n.reader(1)
		b, err := n.set.OpenBackup("", "")
		ok(t, err)
		n.backups = append(n.backups, &naiveBackup{Backup: b, done: map[block.ID]bool{}})
		n.set.Advance(9)
		n.original(1, 1, 4)
		n.age()
		for n.set.Len() > 0 {
			if !n.set.BreakVictim() {
				t.Fatal("something is held and there is no victim")
			}
		}
		n.dropBroken()
		n.end()
	})
}

// TestR13_VictimRuns: if nobody frees anything alone, the run that does.
func TestR13_VictimRuns(t *testing.T) {
	t.Run("run of two", func(t *testing.T) {
		n := newNaive(t, 1)
		a, b, c := n.reader(1), n.reader(2), n.reader(5)
		n.set.Advance(9)
		n.original(1, 1, 4)
		n.age()
		if !n.set.BreakVictim() || a.Err() == nil || b.Err() == nil || c.Err() != nil {
			t.Fatalf("a %v, b %v, c %v", a.Err(), b.Err(), c.Err())
		}
		n.dropBroken()
		n.compare()
		n.end()
	})
	t.Run("two runs", func(t *testing.T) {
		n := newNaive(t, 1)
		a, b := n.reader(1), n.reader(2)
		c, d := n.reader(5), n.reader(6)
		n.set.Advance(9)
		n.original(1, 1, 4)
		n.original(2, 5, 9)
		n.original(3, 5, 9)
		n.age()
		if !n.set.BreakVictim() || a.Err() != nil || b.Err() != nil || c.Err() == nil || d.Err() == nil {
			t.Fatalf("not the run that frees most: a %v, b %v, c %v, d %v", a.Err(), b.Err(), c.Err(), d.Err())
		}
		n.dropBroken()
		n.compare()
		n.end()
	})
	t.Run("youth orders runs", func(t *testing.T) {
		n := newNaive(t, 1)
		a, b := n.reader(1), n.reader(2)
		c := n.reader(5)
		n.set.Advance(6)
		n.age()
		d := &Reader{Owner: "young"}
		n.set.OpenReader(d)
		n.readers = append(n.readers, d)
		n.set.Advance(9)
		n.original(1, 1, 4)
		n.original(2, 5, 9)
		n.original(3, 5, 9)
		if !n.set.BreakVictim() || a.Err() == nil || b.Err() == nil || c.Err() != nil || d.Err() != nil {
			t.Fatalf("the run with a young one went first: a %v, b %v, c %v, d %v", a.Err(), b.Err(), c.Err(), d.Err())
		}
		n.dropBroken()
		n.compare()
		n.end()
	})
}

// TestR13_WhoNeedsRoomWaitsForAnEnd: the originals of a reader or a backup that was closed, or
// those that an incremental does not carry, belong to nobody, and are not given back yet. Who
// needs room meanwhile ends nobody else.
func TestR13_WhoNeedsRoomWaitsForAnEnd(t *testing.T) {
	t.Run("closed", func(t *testing.T) {
		n := newNaive(t, 1)
		a, b := n.reader(1), n.reader(2)
		n.twoOriginals()
		n.waitsFor(func() { n.set.CloseReader(a) }, b)
	})
	t.Run("narrowed", func(t *testing.T) {
		n, incremental, b := backupBesideReader(t)
		n.waitsFor(func() {
			incremental.Narrow(1, func(block.ID) bool { return false })
			incremental.Close()
		}, b)
	})
	t.Run("a backup ended", func(t *testing.T) {
		n, backup, b := backupBesideReader(t)
		n.waitsFor(backup.Close, b)
	})
}

// backupBesideReader has an original of a backup and one of a reader.
func backupBesideReader(t *testing.T) (*naive, *Backup, *Reader) {
	t.Helper()
	n := newNaive(t, 1)
	n.set.Advance(1)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	r := n.reader(2)
	n.twoOriginals()
	return n, b, r
}

// twoOriginals are one that ends at 2, and one that begins there.
func (n *naive) twoOriginals() {
	n.set.Advance(9)
	n.original(1, 1, 2)
	n.original(2, 2, 9)
}

// needed is how many wait for room.
func (n *naive) needed() int {
	n.set.mu.Lock()
	defer n.set.mu.Unlock()
	return n.set.leaving.needed
}

// waitsFor has block 1's original let go, and somebody need room before that has happened:
// he waits, and the reader beside it lives on. It is closed, and the cache.
func (n *naive) waitsFor(letGo func(), beside *Reader) {
	t := n.t
	l := n.cache.Latch(1)
	ended, broke := make(chan struct{}), make(chan bool)
	go func() {
		defer close(ended)
		letGo()
	}()
	for n.set.Len() > 1 { // until it is at the latch
		runtime.Gosched()
	}
	go func() { broke <- n.set.BreakVictim() }()
	for n.needed() == 0 {
		runtime.Gosched()
		select {
		case <-broke:
			t.Fatal("it does not wait")
		default:
		}
	}
	l.Unlock()
	<-ended
	if freed := <-broke; !freed || beside.Err() != nil {
		t.Fatalf("freed: %v, the other reader: %v", freed, beside.Err())
	}
	if l := n.set.leaving.list; len(l) != 0 {
		t.Fatalf("%d ends are not over", len(l))
	}
	n.set.CloseReader(beside)
	n.close()
}

// TestL10_UnreadableBreaksWhoWants: and nobody else.
func TestL10_UnreadableBreaksWhoWants(t *testing.T) {
	n := newNaive(t, 1)
	a, b, c := n.reader(1), n.reader(3), n.reader(5)
	n.set.Advance(9)
	n.original(1, 2, 5)
	v := n.found(1, 3)
	n.set.BreakWanting(v, v.Until, errors.New("rot"))
	var e *BrokenError
	if a.Err() != nil || c.Err() != nil || !errors.As(b.Err(), &e) || e.Reason != ReasonUnreadable || e.LSN != 3 {
		t.Fatalf("a %v, b %v, c %v", a.Err(), b.Err(), c.Err())
	}
	n.dropBroken()
	n.compare()
	n.end()
}
