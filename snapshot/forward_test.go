package snapshot

import (
	"errors"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// TestR13_R12_BackupsFallForwardFirst: a backup that can fall forward goes before a
// reader that would free more, once; it is not broken, and wants nothing from then on.
func TestR13_R12_BackupsFallForwardFirst(t *testing.T) {
	n := newNaive(t, 1)
	r := n.reader(2)
	n.set.Advance(3)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	fell := 0
	b.CanFallForward(func(frees int64, why Reason, _ error) {
		if frees <= 0 || why != ReasonExhausted || !b.FellForward() {
			t.Errorf("it frees %d, %s", frees, why)
		}
		fell++
	})
	n.set.Advance(9)
	n.original(1, 2, 3)
	n.original(2, 2, 3)
	n.original(3, 3, 9)
	n.set.Tick(time.Now().Add(time.Hour))
	if !n.set.BreakVictim() || fell != 1 || b.Err() != nil || r.Err() != nil {
		t.Fatal("the backup did not fall forward first")
	}
	if b.Stats().HeldBytes != 0 || queueLen(b) != 0 {
		t.Fatal("it keeps originals")
	}
	v, err := n.cache.NewVersion(4, block.TypeLeaf)
	ok(t, err)
	v.LSN = 3
	n.pend(v, 9)
	l := n.cache.Latch(4)
	if n.set.Replaced(v) || n.set.Len() != 2 {
		t.Fatalf("%d originals", n.set.Len())
	}
	n.cache.Kill(v)
	l.Unlock()
	if !n.set.BreakVictim() || fell != 1 || b.Err() != nil || r.Err() == nil {
		t.Fatal("then it is the reader's turn")
	}
	if n.set.BreakVictim() {
		t.Fatal("there is nothing left")
	}
	b.Break(ReasonLogHeld, nil)
	var broken *BrokenError
	if err := b.Err(); !errors.As(err, &broken) || broken.Reason != ReasonLogHeld {
		t.Fatal(err)
	}
	b.Break(ReasonExhausted, nil)
	if !errors.As(b.Err(), &broken) || broken.Reason != ReasonLogHeld {
		t.Fatal("it was broken twice")
	}
	n.set.CloseReader(r)
	again, err := n.set.OpenBackup("", "")
	if err != nil || again.bit != b.bit {
		t.Fatal("its place was not given back")
	}
	again.Close()
	n.close()
}

// TestR13_R12_WhoNeedsRoomHelps: one who needs room while the originals of a backup that
// fell forward are on their way out ends nobody.
func TestR13_R12_WhoNeedsRoomHelps(t *testing.T) {
	n := newNaive(t, 1)
	n.set.Advance(3)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	b.CanFallForward(func(int64, Reason, error) {
		if !n.set.BreakVictim() || n.set.Len() != 0 {
			t.Error("the second one freed nothing")
		}
	})
	n.set.Advance(9)
	n.original(1, 3, 9)
	if !n.set.BreakVictim() || b.Err() != nil {
		t.Fatalf("it was broken while it fell: %v", b.Err())
	}
	b.Close()
	n.close()
}

// TestR4_R12_LostOriginalFallsForward: what is lost for one that can fall forward is
// not the end of it.
func TestR4_R12_LostOriginalFallsForward(t *testing.T) {
	n := newNaive(t, 1)
	n.set.Advance(3)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	cause := errors.New("lost")
	var told error
	b.CanFallForward(func(_ int64, why Reason, cause error) {
		if why == ReasonUnreadable {
			told = cause
		}
	})
	n.set.Advance(9)
	n.original(1, 3, 9)
	v := n.set.Find(1, 3)
	n.set.BreakWanting(v, 9, cause)
	if told != cause || b.Err() != nil || n.set.Len() != 0 {
		t.Fatalf("told %v, broken %v, %d originals", told, b.Err(), n.set.Len())
	}
	b.Close()
	n.close()
}
