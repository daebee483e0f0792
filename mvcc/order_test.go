package mvcc

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// TestL6_LogBeforeData: a block becomes due for one commit and is changed by
// the next while the cleaner is at work: what it writes is in the log first.
func TestL6_LogBeforeData(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, a := oneBlock(t, smallOptions(fsys))
	b := anotherBlock(t, s)
	r := beginRead(t, s)
	set(t, s, a, 2)
	set(t, s, b, 2)
	squeeze(t, s) // now the cleaner has to read the original of block a

	var early atomic.Bool
	at := s.geo.offset(b)
	fsys.Trace(func(ev simfs.Event) {
		if ev.Op == simfs.OpWrite && ev.File == fileData && ev.Off <= at && at < ev.Off+ev.Len {
			early.Store(true)
		}
	})
	read := g.next(simfs.OpRead, fileData, func(ev simfs.Event) bool { return ev.Off == s.geo.offset(a) })
	cleaned := async(func() { settle(t, s) })
	<-read.reached
	log := g.every(simfs.OpSync, filesLog)
	done := async(func() { set(t, s, b, 3) })
	published(t, s, 5)
	read.open()
	mustWait(t, cleaned, "the cleaner, for the log,")
	if early.Load() {
		t.Error("a block is in place before its redo is durable")
	}
	log.open()
	<-done
	<-cleaned
	if !early.Load() {
		t.Error("never written")
	}
	fsys.Trace(nil)
	r.Close()
	mustClose(t, s)
}

// TestR8_HalvesTakeTurns: the second copies of one batch are there until its
// writes in place are synced, though the next batch has its own.
func TestR8_HalvesTakeTurns(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	o.BlockSize = 4096
	ram(20)(&o)
	c := &crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(1, 1))}
	c.o.LogBytesMax = 0
	c.s = mustOpen(t, c.o)
	ok(t, c.allocMany(600))
	settle(t, c.s)
	ok(t, c.change(func(w *writeOp) error {
		for _, id := range w.held {
			b, err := w.tx.Edit(id)
			if err != nil {
				return err
			}
			for at := 0; at < len(b.Payload()); at += 512 {
				b.Payload()[at] ^= 0xff
			}
			w.note(b)
			b.Release()
		}
		return nil
	}))
	h := g.next(simfs.OpSync, fileData)
	cleaned := async(func() { settle(t, c.s) })
	<-h.reached
	for range 25 {
		c.checkAfter(fsys.Crash(c.rng, simfs.Random), "between two batches", nil)
	}
	last := g.next(simfs.OpSync, fileData)
	h.open()
	<-last.reached
	for range 25 { // what comes behind that sync has copies, too
		c.checkAfter(fsys.Crash(c.rng, simfs.Random), "behind the last batch", nil)
	}
	last.open()
	<-cleaned
	mustClose(t, c.s)
}

// TestSuperblock_CopiesTakeTurns: a checkpoint leaves the one before it whole.
func TestSuperblock_CopiesTakeTurns(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	for range 3 {
		set(t, s, id, byte(s.newestLSN()))
		settle(t, s)
		data, err := fsys.Bytes(fileData)
		ok(t, err)
		a, err := decodeSuperblock(data)
		ok(t, err)
		b, err := decodeSuperblock(data[superblockStride:])
		ok(t, err)
		if a.sequence+1 != b.sequence && b.sequence+1 != a.sequence {
			t.Fatalf("copies of checkpoints %d and %d", a.sequence, b.sequence)
		}
	}
	mustClose(t, s)
}
