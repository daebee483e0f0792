package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// R15, R6: a cursor hands out each durable commit once, whole, in order, however
// it is interrupted, across segments, marks and pieces; what it says of the last
// record is the commit's name (R18). It costs what is new: it does not read
// again what it has read.
func TestR15_CursorReadsEachCommitOnce(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t, newTestFS(t)).create()
	h := r.l.Hold("archive", 1)
	c := r.l.Cursor(1)
	fail := errors.New("reader fails")
	for range 200 {
		for range rng.IntN(3) {
			sizes := make([]int, 1+rng.IntN(3))
			for i := range sizes {
				sizes[i] = rng.IntN(30000)
			}
			r.append(sizes...)
		}
		switch rng.IntN(4) {
		case 0:
			r.sync()
			r.release(r.acked + 1)
		case 1:
			r.sync()
		case 2:
			r.idle()
		}
		r.must()
		readSome(t, r, c, rng, fail)
		h.Move(c.Next())
	}
	r.commit(10)
	for c.Next() <= r.must().acked {
		readSome(t, r, c, rng, fail)
	}
	if seen, err := r.must().l.Checksum(c.Next() - 1); err != nil || c.Sum() != seen {
		t.Fatalf("the cursor says %x, the log %x, %v", c.Sum(), seen, err)
	}
}

// readSome reads on and compares; now and then the reader fails half way.
func readSome(t *testing.T, r *rig, c *Cursor, rng *rand.Rand, fail error) {
	t.Helper()
	next, i, bytesMax, bytesRead := c.Next(), 0, int64(rng.IntN(60000)), int64(0)
	failAt := -1
	if rng.IntN(3) == 0 {
		failAt = rng.IntN(4)
	}
	err := c.Read(bytesMax, func(lsn block.LSN, body []byte, last bool) error {
		if failAt--; failAt == -1 {
			return fail
		}
		m := r.model[lsn]
		if lsn != next || lsn > r.l.Durable() || !bytes.Equal(body, m.body(lsn, i)) || last != (i == len(m.sizes)-1) {
			return fmt.Errorf("record %d of LSN %v where LSN %v is due, horizon %v", i, lsn, next, r.l.Durable())
		}
		if i == 0 && bytesRead > 0 && bytesRead >= bytesMax {
			return fmt.Errorf("it goes on behind %d bytes, %d were asked for", bytesRead, bytesMax)
		}
		bytesRead += int64(len(body))
		i++
		if last {
			next, i = next+1, 0
		}
		return nil
	})
	if err != nil && !errors.Is(err, fail) {
		t.Fatal(err)
	}
	if c.Next() != next {
		t.Fatalf("next is %v, %v was read", c.Next(), next)
	}
}

// A cursor that follows reads only what is new, not the segment from its start.
func TestCursor_CostsWhatIsNew(t *testing.T) {
	r := newRig(t, newTestFS(t)).create()
	for range 10 {
		r.commit(3000)
	}
	c := r.must().l.Cursor(1)
	nothing := func(block.LSN, []byte, bool) error { return nil }
	if err := c.Read(1<<30, nothing); err != nil || c.Next() != 11 {
		t.Fatal(c.Next(), err)
	}
	place, lowest := r.placeOf(10), int64(1<<62)
	r.fs.Trace(func(ev simfs.Event) {
		if ev.Op == simfs.OpRead {
			lowest = min(lowest, ev.Off)
		}
	})
	r.commit(10)
	if err := c.Read(1<<30, nothing); err != nil || c.Next() != 12 {
		t.Fatal(c.Next(), err)
	}
	if lowest <= place.off {
		t.Fatalf("read from offset %d, what is new begins behind %d", lowest, place.off)
	}
}

// R14: held log has a limit. The holder that wants the oldest is broken and
// told of; the others keep theirs, and so does recovery, whatever the limit.
func TestR14_HeldLogHasALimit(t *testing.T) {
	r := newRig(t, newTestFS(t))
	r.o.LimitBytes, r.o.HoldBytesMax = 3*SegmentBytesMin, 4*SegmentBytesMin
	var told []HolderStatus
	r.o.OnHolderBroken = func(h HolderStatus) { told = append(told, h) }
	r.create()
	r.commit(10)
	archive := r.l.Hold("archive", 1)
	for range 6 {
		r.commit(30000)
	}
	standby := r.l.Hold("standby", r.acked)
	if r.must(); archive.Broken() {
		t.Fatal("broken while nothing is held but by recovery")
	}
	c := r.l.Cursor(1)
	for !archive.Broken() {
		r.commit(30000)
		r.release(r.acked + 1)
		if st := r.must().l.Stats(); st.HeldBytes > r.o.HoldBytesMax {
			t.Fatalf("%d bytes are held, the limit is %d", st.HeldBytes, r.o.HoldBytesMax)
		}
	}
	if len(told) != 1 || told[0].Name != "archive" || told[0].LSN != 1 || told[0].Bytes <= r.o.HoldBytesMax {
		t.Fatalf("told of %+v", told)
	}
	if standby.Broken() || len(r.l.Holders()) != 1 {
		t.Fatalf("left: %+v", r.l.Holders())
	}
	r.checkRead(standby.lsn, r.acked)
	if err := c.Read(1, nil); !errors.Is(err, ErrReleased) {
		t.Fatalf("read of what was let go: %v", err)
	}
	archive.Move(r.acked)
	archive.Drop()
	if len(r.l.Holders()) != 1 {
		t.Fatal("a broken holder took another one with it")
	}
}
