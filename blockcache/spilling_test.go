package blockcache

import (
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// writeGate holds the n-th write to temporary storage back until pass is closed.
func writeGate(fsys *simfs.FS, n int) (reached, pass chan struct{}) {
	reached, pass = make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	fsys.Before(func(ev simfs.Event) {
		if ev.Op != simfs.OpWrite {
			return
		}
		mu.Lock()
		n--
		last := n == 0
		mu.Unlock()
		if last {
			close(reached)
			<-pass
		}
	})
	return reached, pass
}

// kill ends versions as their owner does.
func kill(c *Cache, list []*Version) {
	for _, v := range list {
		l := c.Latch(v.ID)
		c.Kill(v)
		l.Unlock()
	}
}

// TestL1_ReadWhileItIsSpilled: who pins an original while it goes to temporary storage
// keeps its frame.
func TestL1_ReadWhileItIsSpilled(t *testing.T) {
	fsys := simfs.New()
	reached, pass := writeGate(fsys, 1)
	c := openOn(t, fsys, 400, 1000, nil)
	var all []*Version
	for i := range c.FramesMax() - 5 {
		all = append(all, original(t, c, block.ID(i), 7))
	}
	v := all[0] // the oldest goes first
	c.spiller.demand()
	<-reached
	l := c.Latch(v.ID)
	v.Pin()
	l.Unlock()
	close(pass)
	for c.spilled.Load() == 0 {
		runtime.Gosched()
	}
	l = c.Latch(v.ID)
	kept := v.data != nil
	if v.slot == 0 || !kept {
		t.Errorf("the frame is gone (slot %v), and somebody reads it", v.slot)
	}
	l.Unlock()
	if kept {
		c.Unpin(v)
	}
	kill(c, all)
	awaitFree(t, c)
	closeEmpty(t, c)
}

// TestR13_RoomThatComesWhileNoneIsFound: temporary storage was full when a batch was
// written, and has room again when that is told: it does not count as full, or snapshots
// would end for nothing.
func TestR13_RoomThatComesWhileNoneIsFound(t *testing.T) {
	const room = 200 // blocks: a batch and a half
	fsys := simfs.New()
	reached, pass := writeGate(fsys, 1+spillBatch/64) // the second batch's first: 64 blocks go in one
	c := openOn(t, fsys, 400, room, nil)
	var all []*Version
	for i := range c.FramesMax() - 5 {
		all = append(all, original(t, c, block.ID(i), 7))
	}
	spilled := func(n int64) {
		for c.spilled.Load() < n {
			runtime.Gosched()
		}
	}
	c.spiller.demand()
	spilled(spillBatch)
	first, last := all[spillBatch], all[2*spillBatch-1] // of the second batch
	c.spiller.demand()
	<-reached // all of the batch was chosen
	held := c.Latch(last.ID)
	if c.latchOf(first.ID) == held {
		t.Fatal("choose other blocks")
	}
	close(pass)
	for told := false; !told; runtime.Gosched() { // that the write has ended, with too little room
		l := c.Latch(first.ID)
		told = first.slot != 0
		l.Unlock()
	}
	var gone []*Version
	for i, v := range all[:spillBatch] {
		if c.latchOf(v.ID) != held && int64(len(gone)) <= c.spiller.worthWhile {
			gone = append(gone, v)
			all[i] = nil
		}
	}
	kill(c, gone)
	held.Unlock()
	spilled(room)
	if c.spiller.full.Load() != nil {
		t.Errorf("it counts as full, and %d of %d blocks have room", len(gone), room)
	}
	for _, v := range all {
		if v != nil {
			kill(c, []*Version{v})
		}
	}
	awaitFree(t, c)
	closeEmpty(t, c)
}

// TestR13_DiskThatHasRoomAgain: a file system without room had temporary storage count as
// full, and has room again, because somebody else gave some back. No slot came free
// meanwhile, and yet neither overflow is taken nor a snapshot ended before that was tried.
func TestR13_DiskThatHasRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		noRoom := fsys.Fail(simfs.Fault{Ops: simfs.OpAllocate, Err: syscall.ENOSPC, Sticky: true})
		c := openOn(t, fsys, 400, 4000, func(o *Options) {
			o.OverflowBytesMax = 40 * size
			o.Exhausted = func() bool {
				t.Error("a snapshot must end, and temporary storage has room")
				return false
			}
		})
		var all []*Version
		for c.overflowed.Load() < 10 {
			all = append(all, original(t, c, block.ID(len(all)), 7))
		}
		noRoom.Disarm()
		time.Sleep(fullFor + time.Second) // of spill, too
		before := c.overflowed.Load()
		for range 1000 {
			all = append(all, original(t, c, block.ID(len(all)), 7))
		}
		if n := c.overflowed.Load() - before; n != 0 {
			t.Errorf("%d frames of overflow, and temporary storage has room", n)
		}
		kill(c, all)
		awaitFree(t, c)
		closeEmpty(t, c)
	})
}

// A load that goes on asks a full file system again and again; the write that finds room
// ends that it counts as full, or overflow is taken beside free room for another second.
func TestR13_WriteThatFindsRoomEndsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := simfs.New()
		noRoom := fsys.Fail(simfs.Fault{Ops: simfs.OpAllocate, Err: syscall.ENOSPC, Sticky: true})
		broke := 0
		c := openOn(t, fsys, 400, 4000, func(o *Options) {
			o.OverflowBytesMax = 100 * size
			o.Exhausted = func() bool { broke++; return false }
		})
		var all []*Version
		for c.overflowed.Load() < 10 {
			all = append(all, original(t, c, block.ID(len(all)), 7))
		}
		noRoom.Disarm()
		for c.spilled.Load() == 0 && len(all) < 2000 { // a load that goes on
			time.Sleep(50 * time.Millisecond)
			all = append(all, original(t, c, block.ID(len(all)), 7))
			synctest.Wait()
		}
		before := c.overflowed.Load()
		for range 1000 {
			all = append(all, original(t, c, block.ID(len(all)), 7))
		}
		if n := c.overflowed.Load() - before; n != 0 || broke > 0 {
			t.Errorf("%d frames of overflow, %d snapshots ended, and temporary storage has room", n, broke)
		}
		kill(c, all)
		awaitFree(t, c)
		closeEmpty(t, c)
	})
}
