package mvcc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/yield"
)

// cleaner writes dirty blocks in place, in rounds. A round writes every block
// that has a change at or below C, the durable horizon when it began, and ends
// with a checkpoint record whose redo starts at C+1. A batch of a round:
//
//  1. under each block's latch: pick the head and pin it; see that the version
//     which the data file holds, if a snapshot wants it, is in a frame or a
//     slot, and clear its "in place" (R4)
//  2. sync the log up to the newest version picked (L6)
//  3. write second copies of those whose image the log does not hold from the
//     redo start in force on, and sync them (L6, R8)
//  4. write in place
//  5. under each latch: the version written is in place; if it is still the
//     head, the block is clean
//
// Before a half of the double-write file is used again, and before the
// checkpoint record, the data file is synced.
type cleaner struct {
	s      *Store
	kicked chan struct{}
	quit   chan struct{}
	done   sync.WaitGroup

	turn turn // held by who makes a round: one at a time, none while the store is quiet

	// The standing reserve (R7). It is of the Go heap and not asked of the budget, so
	// that nobody can refuse it; it grows with the batches, up to half of the second
	// copies, because most stores that are opened never have so much to write.
	buf      []byte   // images of a batch
	picked   []picked // the batch
	ids      []block.ID
	unsynced int // batches written in place since the data file was synced

	mu         sync.Mutex
	moved      sync.Cond
	roundsDone uint64
	batchDone  uint64
	stopped    bool
}

// picked is one block of a batch.
type picked struct {
	v      *blockcache.Version
	image  []byte    // sealed, in the cleaner's buffer
	lsn    block.LSN // in its trailer
	second bool      // needs a second copy
}

// turn is a mutual exclusion that may be held for as long as a person likes. Waiting
// for it is idle, also to a test's clock.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// Lock takes the turn.
func (t turn) Lock() { t <- struct{}{} }

// Unlock gives it back.
func (t turn) Unlock() { <-t }

func newCleaner(s *Store) *cleaner {
	c := &cleaner{s: s, kicked: make(chan struct{}, 1), quit: make(chan struct{}), turn: newTurn()}
	c.moved.L = &c.mu
	if s.opts.ReadOnly {
		return c // which never runs
	}
	c.picked = make([]picked, 0, s.second.capacity)
	return c
}

// makeRoom sees to it that a batch of n blocks, or the largest there is, has room.
func (c *cleaner) makeRoom(n int) {
	need, most := min(n, cap(c.picked))*c.s.geo.size, cap(c.picked)*c.s.geo.size
	if len(c.buf) < need {
		c.buf = make([]byte, min(max(need, 2*len(c.buf)), most))
	}
}

func (c *cleaner) start() { c.done.Go(c.run) }

func (c *cleaner) stop() {
	close(c.quit)
	c.done.Wait()
}

// kick asks for a round.
func (c *cleaner) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
}

// checkpointEvery bounds how old a change gets that is not in place.
const checkpointEvery = time.Minute

func (c *cleaner) run() {
	defer c.halt()
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-c.kicked:
		case <-tick.C:
		}
		if err := c.round(); err != nil {
			c.s.cache.ShareReserve() // readers go on, also where all other frames are dirty (L8)
			return
		}
	}
}

func (c *cleaner) halt() {
	c.mu.Lock()
	c.stopped = true
	c.moved.Broadcast()
	c.mu.Unlock()
}

// rounds and batches name a moment for awaitRound and awaitBatch.
func (c *cleaner) rounds() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roundsDone
}

func (c *cleaner) batches() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.batchDone
}

// awaitRound waits for a round that ends after the moment named.
func (c *cleaner) awaitRound(since uint64) error {
	return c.awaitRoundFor(context.Background(), since)
}

// awaitRoundFor is awaitRound for who may give up: while the store is quiet no round ends.
func (c *cleaner) awaitRoundFor(ctx context.Context, since uint64) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		c.moved.Broadcast()
		c.mu.Unlock()
	})
	defer stop()
	reached := false
	err := c.await(func() bool {
		reached = c.roundsDone > since
		return reached || ctx.Err() != nil
	})
	if err == nil && !reached {
		err = context.Cause(ctx)
	}
	return err
}

// awaitBatch waits for a batch that ends after the moment named.
func (c *cleaner) awaitBatch(since uint64) error {
	return c.await(func() bool { return c.batchDone > since })
}

func (c *cleaner) await(reached func() bool) error {
	c.kick()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !reached() {
		if c.stopped {
			return cmp.Or(c.s.state.failure(), ErrClosed) // one that has failed is not closed
		}
		c.moved.Wait()
	}
	return nil
}

func (c *cleaner) count(n *uint64) {
	c.mu.Lock()
	*n++
	c.moved.Broadcast()
	c.mu.Unlock()
}

// round cleans, writes a checkpoint record, and gives space back. If it fails the store
// has failed before anybody else has the turn: whoever quiets the store waits for it, and
// his sync of second copies would succeed where the one of the round did not (L8).
func (c *cleaner) round() error {
	c.turn.Lock()
	defer c.turn.Unlock()
	err := c.checkpoint()
	if err == nil {
		if err = c.shrink(); err != nil {
			err = fmt.Errorf("checkpoint: %w", err)
		}
	}
	if err != nil {
		_ = c.s.fail(err)
		return err
	}
	c.count(&c.roundsDone)
	return nil
}

// checkpoint cleans and writes a checkpoint record. The caller has the turn.
func (c *cleaner) checkpoint() error {
	s := c.s
	if err := s.state.failure(); err != nil {
		return err
	}
	if err := s.log.Sync(s.log.End()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	upTo := s.log.Durable()
	if err := c.clean(upTo); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	// Where a commit is swept before it is durable, a block that it freed was no
	// longer found dirty: the free has to be in the log behind the new redo start
	// before the change that it covers up is passed (R9).
	if s.opts.Durability != DurableCommit {
		if err := s.log.Sync(s.log.End()); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	if err := s.recordCheckpoint(upTo + 1); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// clean writes every block with a change at or below upTo in place and syncs.
func (c *cleaner) clean(upTo block.LSN) error {
	c.collect(upTo)
	c.makeRoom(len(c.ids))
	for ids := c.ids; len(ids) > 0; {
		n := min(len(ids), cap(c.picked))
		if err := c.batch(ids[:n], upTo); err != nil {
			return err
		}
		ids = ids[n:]
		c.count(&c.batchDone)
		c.s.cache.Progress()
	}
	c.count(&c.batchDone)
	return c.syncData()
}

// collect lists the dirty blocks, in the order of the file.
func (c *cleaner) collect(upTo block.LSN) {
	c.ids = c.ids[:0]
	c.s.cache.EachLatch(func(l *blockcache.Latch) {
		l.Heads(func(v *blockcache.Version) {
			if v.Dirty && (v.Rec <= upTo || c.s.geo.isMap(v.ID)) {
				c.ids = append(c.ids, v.ID)
			}
		})
	})
	slices.Sort(c.ids)
}

func (c *cleaner) batch(ids []block.ID, upTo block.LSN) error {
	s := c.s
	c.picked = c.picked[:0]
	last := block.LSN(0)
	for _, id := range ids {
		lsn, err := c.pick(id, upTo)
		if err != nil {
			c.unpin()
			return err
		}
		last = max(last, lsn)
	}
	defer c.unpin()
	s.awaitAppended(last)
	if err := s.log.Sync(last); err != nil {
		return err
	}
	if err := c.writeSecond(); err != nil {
		return err
	}
	if err := c.writeInPlace(); err != nil {
		return err
	}
	yield.At("written in place, not clean")
	for i := range c.picked {
		if v := c.picked[i].v; s.geo.isMap(v.ID) {
			s.cleanedMap(v)
		} else {
			s.cleaned(v)
		}
	}
	return nil
}

func (c *cleaner) unpin() {
	for i := range c.picked {
		c.s.cache.Unpin(c.picked[i].v)
	}
	c.picked = c.picked[:0]
}

// pick takes the block's head into the batch, if it still has to be written,
// and returns the LSN that must be durable before that.
func (c *cleaner) pick(id block.ID, upTo block.LSN) (block.LSN, error) {
	s := c.s
	if s.geo.isMap(id) {
		c.pickMap(id)
		return 0, nil
	}
	l := s.cache.Latch(id)
	defer l.Unlock()
	for {
		v := l.Head(id)
		if v == nil || !v.Dirty || v.Rec > upTo {
			return 0, nil
		}
		if v.Freed {
			return v.LSN, nil // durable is all a free has to be (R9)
		}
		if v.Loading {
			l.Wait()
			continue
		}
		again, err := s.secure(l, v)
		if err != nil {
			return 0, err
		}
		if again {
			continue
		}
		return v.LSN, c.add(l, v)
	}
}

// add copies the version's image into the batch, sealed. Under the latch.
func (c *cleaner) add(l *blockcache.Latch, v *blockcache.Version) error {
	s := c.s
	at := len(c.picked) * s.geo.size
	image := c.buf[at : at+s.geo.size]
	if v.Data() != nil {
		copy(image, v.Data())
	} else if err := s.readSpilled(l, v, image); err != nil {
		return err
	}
	block.Seal(image, block.Trailer{Type: v.Type, ID: v.ID, LSN: v.LSN}, s.data.seed)
	s.checkPicked(l, v)
	v.Pin()
	c.picked = append(c.picked, picked{v, image, v.LSN, v.Image < s.redoStart()})
	return nil
}

// readSpilled reads a committed head whose only image is in temporary storage.
// It takes no frame: a batch of them would need more than the standing reserve
// (R7). If it cannot be read the store fails: data file and log can rebuild the
// block, which is what opening the store again does (R7). Under the latch,
// which it releases meanwhile; the head stays the head, because who replaces it
// waits while it is loading.
func (s *Store) readSpilled(l *blockcache.Latch, v *blockcache.Version, image []byte) error {
	v.Loading = true
	slot := v.Slot()
	l.Unlock()
	err := s.cache.ReadSlotInto(slot, v.ID, v.LSN, image)
	l.Lock()
	v.Loading = false
	l.Wake()
	return err
}

// fetch reads a version's image into a frame of the standing reserve.
func (s *Store) fetch(l *blockcache.Latch, v *blockcache.Version, read func([]byte) error) error {
	v.Loading = true
	l.Unlock()
	frame, err := s.cache.NewReserveFrame()
	if err == nil {
		if err = read(frame); err != nil {
			s.cache.GiveFrame(frame)
		}
	}
	l.Lock()
	v.Loading = false
	l.Wake()
	if err != nil {
		return err
	}
	if v.Role == blockcache.RoleDead {
		s.cache.GiveFrame(frame)
		return nil
	}
	s.cache.Adopt(v, frame)
	s.cache.Keep(v)
	return nil
}

// secure sees to it that overwriting the place of head h destroys no version
// that is wanted: the one that is in place gets a frame, if that is its only
// place (L4), and is in place no longer (R4). Under the latch, which it may
// release: then again is true, and everything must be looked up anew.
func (s *Store) secure(l *blockcache.Latch, h *blockcache.Version) (again bool, err error) {
	v := inPlaceBehind(h)
	if v == nil {
		v = s.snapshots.InPlace(h.ID)
	}
	switch {
	case v == nil:
		return false, nil
	case v.Loading:
		l.Wait()
		return true, nil
	case v.Data() != nil || v.Slot() != 0:
		s.cache.ClearInPlace(v)
		return false, nil
	}
	s.secured.Add(1)
	return true, s.secureFromFile(l, v)
}

func inPlaceBehind(h *blockcache.Version) *blockcache.Version {
	for v := h.Older; v != nil; v = v.Older {
		if v.InPlace {
			return v
		}
	}
	return nil
}

// secureFromFile reads an original into a frame. If it cannot be read, the
// snapshots that want it are broken; the store goes on (R4, L10).
func (s *Store) secureFromFile(l *blockcache.Latch, v *blockcache.Version) error {
	var unreadable error
	var t block.Trailer
	err := s.fetch(l, v, func(frame []byte) error {
		t, unreadable = s.readImage(v.ID, v.LSN, 0, false, frame)
		return unreadable
	})
	if unreadable == nil {
		v.Type = t.Type // of a version that had no frame when it was replaced
		return err
	}
	v.InPlace = false
	until := v.Until
	l.Unlock()
	s.snapshots.BreakWanting(v, until, unreadable)
	l.Lock()
	return nil
}

// cleaned notes that the data file holds v now. The block is clean only if v is
// still its head.
func (s *Store) cleaned(v *blockcache.Version) {
	l := s.cache.Latch(v.ID)
	defer l.Unlock()
	s.published().Placed(v.ID, v.LSN)
	if h := l.Head(v.ID); h != nil && h != v {
		for ; h != nil && h.LSN > v.LSN; h = h.Older {
			h.Rec = max(h.Rec, v.LSN+1)
		}
	}
	for v.Loading { // someone reads it from its slot
		l.Wait()
	}
	if v.Role == blockcache.RoleDead {
		return
	}
	v.InPlace = true
	switch {
	case v.Role != blockcache.RoleHead:
		s.cache.Keep(v) // an original that needs no temporary storage now
	case v.Data() == nil: // it was in its slot only
		v.CheckAlone()
		l.Remove(v)
		s.cache.Kill(v)
	default:
		from := s.cache.ClassOf(v)
		v.Dirty = false
		s.cache.Reclass(v, from)
		s.cache.DropSlot(v)
		s.cache.KeepCleaned(v)
	}
}

// writeSecond makes the second copies of the batch durable, of those that need
// one.
func (c *cleaner) writeSecond() error {
	var places []place
	var images [][]byte
	for _, p := range c.picked {
		if p.second {
			places = append(places, place{p.v.ID, p.lsn})
			images = append(images, p.image)
		}
	}
	if len(places) == 0 {
		return nil
	}
	if c.unsynced >= 2 { // the half about to be used covers writes not yet synced
		if err := c.syncData(); err != nil {
			return err
		}
	}
	c.unsynced++
	return c.s.second.write(c.s.checkpoint(), places, images)
}

// writeInPlace writes the batch, adjacent blocks together.
func (c *cleaner) writeInPlace() error {
	s := c.s
	s.data.writes(c.picked)
	c.checkBatch()
	for i := 0; i < len(c.picked); {
		j := i + 1
		for j < len(c.picked) && c.picked[j].v.ID == c.picked[j-1].v.ID+1 {
			j++
		}
		id := c.picked[i].v.ID
		if _, err := s.data.file.WriteAt(c.buf[i*s.geo.size:j*s.geo.size], s.geo.offset(id)); err != nil {
			return fmt.Errorf("write blocks %v to %v in %s: %w", id, c.picked[j-1].v.ID, s.data.path, err)
		}
		i = j
	}
	return nil
}

func (c *cleaner) syncData() error {
	c.unsynced = 0
	if err := c.s.syncData(); err != nil {
		return fmt.Errorf("sync %s: %w", c.s.data.path, err)
	}
	c.s.data.wrote()
	return nil
}

// syncData makes durable what was written to the data file, by whomever: besides the
// cleaner there is who writes a superblock. Of what it could not write the system tells
// once, to whoever syncs next, and takes it for clean then. So there is one sync at a
// time, and behind the first that failed there is none that succeeds: the cleaner would
// else believe its blocks in place, and give up the redo that they need (L8).
func (s *Store) syncData() error {
	d := s.data
	d.syncing.Lock()
	defer d.syncing.Unlock()
	if d.failed == nil {
		d.failed = d.file.Sync()
	}
	if d.failed != nil {
		s.lose(d.unsynced())
	}
	return d.failed
}

// lose notes what a sync that failed did not make durable. Those blocks count as clean,
// and a system that drops what it could not write shows what was there before, sound in
// itself: from now on only the version that was written is believed (L8).
func (s *Store) lose(written []place) {
	lost := make(map[block.ID]block.LSN, len(written))
	for _, p := range written {
		lost[p.id] = max(lost[p.id], p.lsn)
		s.published().Unplaced(p.id)
	}
	s.forgotten.Store(&lost)
}

// isLost reports whether a version of a block that was read from the data file is one
// from before a write that was lost.
func (s *Store) isLost(id block.ID, lsn block.LSN) bool {
	lost := s.forgotten.Load()
	return lost != nil && lsn < (*lost)[id]
}

// shrink gives a free tail of the data file back (R9). It is an in-place write
// to all its blocks, so originals there are secured first; and it comes after a
// sync of everything up to the commit whose high-water mark it goes by. If a
// write transaction is open the tail waits for the next round.
//
// A commit is published before its last record is appended. If the log refuses that,
// the store has failed when the writer's lock comes free, and meta and newest LSN are
// those of a commit that is in no log: to cut by them would destroy what the commits
// before acknowledged (L8), and to advance to it would show it to readers (L7).
func (c *cleaner) shrink() error {
	s := c.s
	if !s.writer.TryLock() {
		return nil
	}
	defer s.writer.Unlock()
	if err := s.state.failure(); err != nil { // perhaps since the round began
		return err
	}
	highWater := s.meta.highWater
	if !s.data.worthShrinking(highWater) {
		return nil
	}
	if err := s.log.Sync(s.log.End()); err != nil {
		return err
	}
	s.advance(s.newestLSN()) // nothing is pending behind
	if err := s.secureTail(highWater); err != nil {
		return err
	}
	s.published().Cut(highWater)
	return s.data.shrink(highWater)
}

// secureTail secures the originals that only the data file behind the
// high-water mark holds. Nothing there is in use, and no writer can change
// that: the caller holds the writer's lock.
func (s *Store) secureTail(highWater block.ID) (err error) {
	s.snapshots.InPlaceFrom(highWater, func(id block.ID) {
		l := s.cache.Latch(id)
		defer l.Unlock()
		for again := true; again && err == nil; {
			again, err = s.secure(l, &blockcache.Version{ID: id})
		}
	})
	return err
}
