package mvcc

import (
	"errors"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/yield"
	"github.com/spillwaydb/spillway/wal"
)

// Commit makes the transaction's changes the newest commit and returns its LSN,
// durable in the default mode (L7). One that changed nothing takes no LSN (R6).
//
// An error that matches ErrNoSpace or ErrTxTooLarge means that nothing was
// committed and the store goes on; wal.ErrUnknownOutcome, that the store failed
// with the commit in flight (L8).
func (t *WriteTx) Commit() (block.LSN, error) {
	if !t.open {
		return 0, ErrTxDone
	}
	s := t.s
	if t.unchanged() {
		base := t.base
		t.finish()
		return base, s.awaitDurable(base)
	}
	began := s.latency.begin(t.base + 1)
	if err := t.prepare(); err != nil {
		return 0, errors.Join(err, t.Rollback())
	}
	lsn, err := t.logAndPublish()
	t.finish()
	if err != nil { // what the transaction saw has to be durable all the same (R3)
		return 0, errors.Join(err, s.awaitDurable(t.base))
	}
	if err = s.awaitCommitted(lsn); err == nil && !began.IsZero() {
		s.latency.end(began)
	}
	if d := s.ladder.delay.Load(); d > 0 {
		s.holdUp(time.Duration(d))
	}
	return lsn, err
}

func (t *WriteTx) unchanged() bool {
	return t.changed() == 0 && t.meta == t.was && t.failed == nil
}

// prepare does what can be refused (R7): afterwards there is an LSN.
func (t *WriteTx) prepare() error {
	if err := t.s.state.failure(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if t.failed != nil {
		return fmt.Errorf("commit: %w", t.failed)
	}
	if t.meta.highWater > reserved && t.meta.inUse < t.was.inUse {
		if err := t.lowerHighWater(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	if t.meta != t.was {
		b, err := t.Edit(metaBlock)
		if err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		t.meta.encode(b.Payload())
		b.Release()
	}
	if err := t.s.awaitDirtyLimit(len(t.blocks)); err != nil {
		return err
	}
	if err := t.raiseMarks(); err != nil { // before the LSN is taken, and before anyone sees the commit (R16)
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// small transactions are encoded before log space is reserved, so that the
// reservation is exact; large ones reserve an upper bound and stream.
func (t *WriteTx) logAndPublish() (block.LSN, error) {
	s := t.s
	lsn := t.base + 1
	at, raw := s.commitTime()
	w := &s.redo
	w.buf = w.buf[:0]
	w.commit(at, raw)
	bound := int64(t.changed()) * int64(s.geo.size+32)
	streamed := bound > recordBytes
	if streamed {
		if err := s.reserveLog(bound + 64); err != nil {
			return 0, t.giveUp(err)
		}
	}
	if err := t.encode(w, lsn); err != nil {
		return 0, t.giveUp(errors.Join(err, s.void(lsn, at)))
	}
	if !streamed {
		if err := s.reserveLog(int64(len(w.buf))); err != nil {
			return 0, t.giveUp(err)
		}
	}
	if err := t.commitRecord(lsn, at, w.buf); err != nil {
		return 0, err
	}
	if cap(w.buf) > 2*wal.RecordBytesMax {
		w.buf = nil
	}
	return lsn, nil
}

// commitRecord publishes the commit and logs its last record. Nothing of it can
// be refused any more (R7).
func (t *WriteTx) commitRecord(lsn block.LSN, at time.Time, body []byte) error {
	s := t.s
	s.lastTime = at
	s.lastCommit.Store(at.UnixNano()) // before anyone can see the commit (R19)
	s.publishing.Lock()
	t.publish(lsn)
	yield.At("published, not in the log")
	err := s.log.Append(lsn, body, true)
	s.publishing.Unlock()
	s.partial = false
	s.pressCleaner(int64(len(body)))
	if err != nil {
		return s.fail(fmt.Errorf("log commit %v: %w", lsn, err))
	}
	return nil
}

// void ends a commit that failed half way through its redo, which happens when
// temporary storage lost a private block (L10): the part that is in the log does
// not count. The LSN is taken, by a commit that changes nothing.
//
// Commits that change nothing take no LSN otherwise (R6). Here records of that LSN
// are in the log already, perhaps durable, and whoever reads the log has perhaps
// seen them. To give the number to the next commit would put the records of two
// commits behind one number: recovery and every reader would have to tell them
// apart, and one that had seen the first part would take it for the beginning of
// the second. A number that stands for nothing harms nobody. It has the time that it
// has in the log: the next one is later (R19).
func (s *Store) void(lsn block.LSN, at time.Time) error {
	if s.log.End() >= lsn || !s.partial {
		return nil
	}
	s.partial = false
	if err := s.log.Append(lsn, []byte{entryVoid}, true); err != nil {
		return s.fail(fmt.Errorf("void commit %v: %w", lsn, err))
	}
	s.lastTime = at
	s.lastCommit.Store(at.UnixNano())
	s.newest.Store(uint64(lsn))
	return nil
}

// giveUp undoes a commit that has no LSN in the log yet.
func (t *WriteTx) giveUp(cause error) error {
	t.drop()
	return fmt.Errorf("commit: %w", cause)
}

// publish makes the private versions the newest ones. It comes before the last
// record is appended: otherwise someone else's sync could make the commit
// durable, and a reader begin at it, before its blocks can be found.
func (t *WriteTx) publish(lsn block.LSN) {
	s := t.s
	for i := range t.blocks {
		s.publishOne(&t.blocks[i], lsn)
	}
	t.away.All(func(h blockcache.Handle) {
		p := s.privateOf(h)
		if e := s.cache.Entry(h); e.Flags&awayFreed != 0 {
			id := e.ID
			s.cache.FreeEntry(h)
			s.publishFree(id, &p, lsn)
		} else {
			p.v = s.cache.Thaw(h, blockcache.RolePrivate)
			s.publishOne(&p, lsn)
		}
	})
	t.away.Clear()
	s.meta = t.meta
	s.newest.Store(uint64(lsn))
	s.replaced.commit(lsn)
}

// publishOne puts a private version at the head of its block.
func (s *Store) publishOne(p *private, lsn block.LSN) {
	l := s.cache.Latch(p.v.ID)
	defer l.Unlock()
	v, h := p.v, s.settledHead(l, p.v.ID, p)
	s.published().Publish(v.ID, v.Shadow(), p.since, p.existed)
	from := s.cache.ClassOf(v)
	v.Dirty, v.Rec = true, lsn
	if h == nil {
		l.Insert(v)
	} else {
		s.replaceHead(l, h, v, lsn)
	}
	s.cache.Reclass(v, from)
	if v.Data() == nil {
		l.Settle(v)
	}
	if p.base != nil {
		s.cache.Unpin(p.base)
		p.base = nil
	}
}

// awaitAppended returns when a commit that was found published is in the log.
func (s *Store) awaitAppended(lsn block.LSN) {
	if lsn > s.log.End() {
		s.publishing.Lock()
		//lint:ignore SA2001 only who holds it is waited for
		s.publishing.Unlock()
	}
}

// settledHead is the head that p, the transaction's version of a block, replaces.
// If the version it replaces is only in the data file, it gets a head without a
// frame.
func (s *Store) settledHead(l *blockcache.Latch, id block.ID, p *private) *blockcache.Version {
	h := l.Head(id)
	for h != nil && h.Loading {
		l.Wait()
		h = l.Head(id)
	}
	if h != nil && !p.existed && !h.Freed { // someone read the place while it was free
		l.Remove(h)
		s.cache.Kill(h)
		h = nil
	}
	if h == nil && p.existed {
		s.published().InPlace(id, p.since, "it is replaced")
		h = &blockcache.Version{ID: id, LSN: p.since, InPlace: true}
		l.Insert(h)
	}
	return h
}

// replaceHead makes v the head in the place of h. What h was hangs behind v
// until the commit is durable (R1).
func (s *Store) replaceHead(l *blockcache.Latch, h, v *blockcache.Version, lsn block.LSN) {
	from := s.cache.ClassOf(h)
	s.cache.Forget(h)
	if h.Dirty {
		v.Rec, h.Dirty = h.Rec, false
	}
	if v.Image == 0 {
		v.Image = h.Image
	}
	l.Replace(h, v)
	if h.Freed { // a block that was free: only what was before that matters
		v.Older = h.Older
		h.Role = blockcache.RoleDead
		return
	}
	h.Until = lsn
	s.cache.Reclass(h, from)
	s.replaced.add(h.ID)
	s.counter.replaced(h.LSN)
}

// publishFree ends the block's newest version (R9). Its head says "free" until
// the commit is durable; then nothing has to be kept but originals.
func (s *Store) publishFree(id block.ID, p *private, lsn block.LSN) {
	l := s.cache.Latch(id)
	defer l.Unlock()
	h := s.settledHead(l, id, p)
	s.published().Free(id, lsn, p.since)
	v := &blockcache.Version{ID: id, LSN: lsn, Freed: true, Dirty: true, Rec: lsn}
	s.replaceHead(l, h, v, lsn)
	l.Settle(v)
}

// commitTime is the commit's time, which never steps back, and the raw clock
// (R19). What is compared is what is logged: the wall clock, not the one that the
// process has beside it and that nobody can put back.
func (s *Store) commitTime() (at, raw time.Time) {
	raw = s.now()
	at = raw
	if raw.UnixNano() <= s.lastTime.UnixNano() {
		at = s.lastTime.Add(1)
		s.lookAtClock(time.Duration(at.UnixNano() - raw.UnixNano()))
	} else if s.clockIsBack {
		s.lookAtClock(0)
	}
	return at, raw
}

// clockGapMax is how far the time of commits may be ahead of the clock before that
// is an event (R19): the clock was put back.
const clockGapMax = time.Second

// lookAtClock tells when the gap grows beyond clockGapMax, and when it has closed.
// The writer calls it.
func (s *Store) lookAtClock(gap time.Duration) {
	switch {
	case gap > clockGapMax && !s.clockIsBack:
		s.clockIsBack = true
		s.emit(Event{Kind: EventClock, Why: "the clock was put back: the time of commits stands still until it has caught up", Gap: gap})
	case gap <= time.Millisecond && s.clockIsBack:
		s.clockIsBack = false
		s.emit(Event{Kind: EventClock, Why: "the clock has caught up with the time of commits"})
	}
}

// awaitCommitted waits until the commit may be acknowledged.
func (s *Store) awaitCommitted(lsn block.LSN) error {
	if s.opts.Durability == DurableCommit {
		if err := s.awaitDurable(lsn); err != nil {
			return err
		}
	} else {
		s.advance(lsn)
	}
	if err := s.state.failure(); err != nil { // no acknowledgement from here on (L8)
		return fmt.Errorf("%w: %w", wal.ErrUnknownOutcome, err)
	}
	return nil
}

// advance lets readers see commit lsn, and decides about what it and its
// predecessors replaced. In the default mode the log calls it when the commit
// is durable, before the commit is acknowledged.
func (s *Store) advance(lsn block.LSN) {
	s.snapshots.Advance(lsn)
	yield.At("horizon moved, not swept")
	s.sweep(lsn)
}

// awaitDurable waits until commit lsn is durable (R3); not in the weaker modes.
func (s *Store) awaitDurable(lsn block.LSN) error {
	if s.opts.Durability != DurableCommit {
		return nil
	}
	// Durable() is not asked: it moves before readers are let see the commit.
	if err := s.log.Sync(lsn); err != nil {
		return s.fail(fmt.Errorf("sync commit %v: %w", lsn, err))
	}
	return nil
}

// reserveLog waits for log space; only a disk without room refuses (R7), and that not
// while the log has room of its own that a checkpoint frees: nobody else may write then
// who would ask for one, and who deletes something to have room again needs some first.
func (s *Store) reserveLog(n int64) error {
	for {
		round := s.cleaner.rounds()
		free := s.log.Floor() > s.log.End() // asked before: a round may end meanwhile
		err := s.log.Reserve(n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, wal.ErrNoSpace) && free:
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		case !errors.Is(err, wal.ErrFull) && !errors.Is(err, wal.ErrNoSpace):
			return s.fail(err)
		}
		s.waits.logSpace.Add(1)
		if err := s.cleaner.awaitRound(round); err != nil {
			return err
		}
	}
}

// dirtyMax is the limit of dirty frames: a share of those that MaxRAM has for
// versions now.
func (s *Store) dirtyMax() int64 { return s.cache.Room() * 3 / 8 }

// awaitDirtyLimit waits until n more dirty frames are allowed.
func (s *Store) awaitDirtyLimit(n int) error {
	dirty := func() bool {
		d := s.cache.Frames(blockcache.ClassDirty) // none at all is enough: the limit may have fallen since n were made
		return d > 0 && d+int64(n) > s.dirtyMax()
	}
	if dirty() {
		s.waits.dirtyLimit.Add(1)
	}
	for dirty() {
		round := s.cleaner.batches()
		if !dirty() {
			return nil
		}
		if err := s.cleaner.awaitBatch(round); err != nil {
			return err
		}
	}
	return nil
}
