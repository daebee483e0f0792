package mvcc

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestL3_WhatIsKeptAgainstEverything: blocks that change when the backup has them are
// counted, and nothing is kept of them; nor is a second change.
func TestL3_WhatIsKeptAgainstEverything(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 40)
	settle(t, s)
	p := openBackup(t, s)
	change := func(list []block.ID) {
		for _, id := range list {
			set(t, s, id, 9)
		}
	}
	change(ids[20:30])
	change(ids[20:30])
	ok(t, p.rest(t))
	change(ids[:30])
	c := p.b.Cost()
	if c.BlocksChanged != 30 || c.OriginalsMade != 10 || c.OriginalsPruned != 20 || c.OriginalsPeak != 10 || c.OriginalsHeldPeak != 10 || c.HeldBytes != 0 {
		t.Fatalf("%+v", c)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestL4_InPlaceIsCountedApart: an original is counted for as long as it is wanted,
// but takes room only while it has a frame, or when it was secured.
func TestL4_InPlaceIsCountedApart(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 6)
	settle(t, s)
	p := openBackup(t, s)
	s.cleaner.turn.Lock() // it would secure them before their turn
	for i, id := range ids {
		set(t, s, id, 9)
		squeeze(t, s) // its original leaves RAM: the data file has it
		c := p.b.Cost()
		if made := uint64(i + 1); c.OriginalsMade != made || c.OriginalsPeak != made || c.OriginalsHeldPeak != 1 {
			t.Fatalf("%+v", c)
		}
	}
	s.cleaner.turn.Unlock()
	settle(t, s) // they are secured before they are overwritten
	if c := p.b.Cost(); c.OriginalsHeldPeak != 6 {
		t.Fatalf("%+v", c)
	}
	ok(t, p.rest(t))
	if c := p.b.Cost(); c.HeldBytes != 0 || c.OriginalsPeak != 6 || c.OriginalsRead != 6 {
		t.Fatalf("%+v", c)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}
