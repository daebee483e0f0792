package mvcc

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// A large commit leaves heads in temporary storage. Who reads one takes a frame for it,
// which is dirty and so the cleaner's to free. When the store fails nobody cleans any
// more: readers, and a rescue backup, go on all the same (L8), and nobody waits for ever.

// failsWhileCleaning is a store with such a commit, whose cleaner waits at the gate; once
// that is open its write fails.
func failsWhileCleaning(t *testing.T) (c *crowd, h *gate) {
	c = newCrowd(t, 20)
	settle(t, c.s)
	fsys := c.s.opts.FS.(*simfs.FS)
	h = newGates(fsys).every(simfs.OpWrite, fileData)
	fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: fileData, Sticky: true})
	c.grow(1500, 1500)
	c.s.cleaner.kick()
	<-h.reached
	return c, h
}

// readAll reads every block once.
func (c *crowd) readAll(r *ReadTx) {
	for _, id := range c.ids {
		b, err := r.Block(id)
		ok(c.t, err)
		c.proveImage(b.data, id, r.LSN())
		b.Release()
		c.dog.pat()
	}
}

func (c *crowd) proveImage(image []byte, id block.ID, lsn block.LSN) {
	if got, want := block.LSN(binary.LittleEndian.Uint64(image[100:])), c.at(id, lsn); got != want {
		c.t.Errorf("block %v at LSN %v is from %v, want %v", id, lsn, got, want)
	}
}

// TestL8_ReadersWhereNobodyCleans: those who come when it has failed.
func TestL8_ReadersWhereNobodyCleans(t *testing.T) {
	c, h := failsWhileCleaning(t)
	h.open()
	if err := c.s.cleaner.awaitRound(c.s.cleaner.rounds()); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	r := beginRead(t, c.s)
	c.readAll(r)
	c.readAll(r)
	r.Close()
	b, err := c.s.OpenBackup(t.Context(), BackupOptions{Rescue: true})
	ok(t, err)
	p := &backupPull{b: b, images: map[block.ID][]byte{}}
	ok(t, p.rest(t))
	for _, id := range c.ids {
		c.proveImage(p.images[id], id, b.Info().LSN)
	}
	ok(t, b.Close())
	if err := c.s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Error(err)
	}
}

// TestL8_WhoWaitsForTheCleanerThatFails: readers and the write transaction have every
// frame when it fails. The transaction is told; the readers go on, though it keeps its
// frames until it ends.
func TestL8_WhoWaitsForTheCleanerThatFails(t *testing.T) {
	c, h := failsWhileCleaning(t)
	tx, err := c.s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(c.ids[0])
	ok(t, err)
	b.Release()
	told := make(chan error, 1)
	writing := async(func() {
		for i := 0; ; i++ {
			b, err := tx.Edit(c.ids[i%len(c.ids)])
			if err != nil {
				told <- err
				return
			}
			b.Release()
		}
	})
	r := beginRead(t, c.s)
	reading := async(func() { c.readAll(r) })
	eventually(t, func() string {
		if c.s.cache.Stats().FrameWaits == 0 {
			return "nobody waits for a frame"
		}
		return ""
	})
	mustWait(t, reading, "a reader that finds no frame")
	h.open()
	<-reading
	<-writing
	if err := <-told; !errors.Is(err, ErrPoisoned) {
		t.Errorf("the write transaction: %v", err)
	}
	again := beginRead(t, c.s)
	c.readAll(again)
	again.Close()
	r.Close()
	if _, err := tx.Commit(); !errors.Is(err, ErrPoisoned) {
		t.Errorf("commit: %v", err)
	}
	if err := c.s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Error(err)
	}
}
