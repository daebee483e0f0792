package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/yield"
	"github.com/spillwaydb/spillway/snapshot"
)

// # Falling forward (R12)
//
// A backup whose originals outgrow what was granted is not broken. It falls forward:
//
//	at S --rung--> fallen at F --Next: told--> catching up --Next: EOF--> exact at E
//
// The rung, by whoever needed the room: from under the snapshots' lock on no commit
// makes an original for the backup. F is the durable horizon after that, and the log
// behind F is held (R14). The originals that it had go.
//
// Next, the first time that it finds this: whatever it was doing as of S is given up,
// blocks that it has taken are handed out, and then a [FellForwardError] tells once
// that what follows is of another kind. From then on it goes through all groups
// again, and looks at
//
//	not in hand:   each block that the group's bitmap names (of an incremental: whose
//	               extent has a mark above the base)
//	in hand:       those whose extent has a mark above S; they are handed out again
//	               if their version is above S
//
// and takes them at their newest version, which it makes durable first (R6). In hand
// is what was handed out, what an incremental leaves to its base, and what was free
// at S.
//
// Why that is enough. Commits up to F have raised their marks before F was fixed; so
// a block in hand in an extent with no mark above S has no version in (S, F]. A read
// that was under way at F is in nobody's hand: the original may be gone, and where the
// block was freed since, its place may show a version older than that of S. A
// bitmap is read at some V >= F: a block that it does not name and that is in use at
// E was allocated in (V, E], and its whole image is in the redo. A block that it names
// and that is free when its turn comes was freed in (V, E], and redo makes void what
// is there of it (R8). The same goes for whole groups, and for the high-water mark,
// which is read once, behind F. Only a block that is audited has to be right as it
// comes: it is held against the base, and no redo goes over it. It is handed out if
// a reader that begins behind that still sees this version, of a block in use.
//
// What a version is that was taken when it was not durable yet, a free that was seen
// before it was durable: both lie at or below the newest commit when the last block was
// taken, or at the one that is just being published, which is waited for. That is made
// durable then, and E is not below it. So E covers all that was
// seen, and the blocks with the redo (F, E] are what recovery finds in a data file
// whose redo begins at F+1.
//
// From F on the backup keeps nothing of the store but log. If its taker is slower than
// the writers for so long that this reaches Options.LogHoldMax, the backup is broken
// (snapshot.ReasonLogHeld). Writers never wait.

// Exhaustion says what a backup does when its originals outgrow what was granted.
type Exhaustion string

// What a backup can do then.
const (
	// ExhaustionForward has it fall forward: it is exact at a later commit, and
	// carries the redo up to there. Also the meaning of "".
	ExhaustionForward Exhaustion = "fall-forward"
	// ExhaustionAbort breaks it.
	ExhaustionAbort Exhaustion = "abort"
)

func (e Exhaustion) validate() error {
	switch e {
	case "", ExhaustionForward, ExhaustionAbort:
		return nil
	}
	return optionError("OnExhaustion %q is none of %s, %s", string(e), ExhaustionForward, ExhaustionAbort)
}

// ErrFellForward matches every [FellForwardError].
var ErrFellForward = errors.New("backup fell forward")

// FellForwardError comes from [Backup.Next] once, between the blocks that were
// handed out as of the backup's LSN and those that follow: these are of their newest
// versions, may have been handed out before, and count from here on. With the redo
// behind LSN, see [Backup.Redo], they make a whole backup.
type FellForwardError struct{ LSN block.LSN } // F

func (e *FellForwardError) Error() string { return fmt.Sprintf("%v at LSN %v", ErrFellForward, e.LSN) }

// Is matches ErrFellForward.
func (e *FellForwardError) Is(target error) bool { return target == ErrFellForward }

// forward is what a backup has to fall forward with.
type forward struct {
	mu     sync.Mutex
	begun  bool
	closed bool
	lsn    block.LSN // F
	tail   *LogTail  // from F on
	end    BackupInfo
	ended  bool // end is fixed

	// Of Next:
	told      bool
	group     uint64
	loaded    bool
	highWater block.ID
	marks     []byte // of one map block
}

// begin fixes F and holds the log behind it. The second call does nothing.
func (f *forward) begin(s *Store, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun || f.closed {
		return
	}
	f.begun = true
	for {
		f.lsn = s.log.Durable()
		h := s.log.HoldBriefly(name, f.lsn+1)
		if s.log.Oldest() <= f.lsn+1 {
			f.tail = &LogTail{s: s, cursor: s.log.Cursor(f.lsn + 1), holder: h, quit: make(chan struct{})}
			return
		}
		h.Drop() // a checkpoint was faster
	}
}

func (f *forward) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.tail != nil {
		f.tail.Close()
	}
}

// fellForward is told, by whoever needed the room, that the backup wants no
// originals any more.
func (b *Backup) fellForward(frees int64, why snapshot.Reason, cause error) {
	yield.At("backup gave up its originals, F is not fixed")
	b.fwd.begin(b.s, b.holderName())
	b.s.emit(Event{
		Kind: EventFellForward, Rung: RungFallForward, Why: string(why), Bytes: frees, Forward: b.fwd.lsn, Err: cause,
		Of: b.name(),
	})
}

// holderName is what the list of those who hold log calls the backup.
func (b *Backup) holderName() string {
	return fmt.Sprintf("backup of LSN %v that fell forward, %q %q", b.live.LSN(), b.live.Owner, b.live.Label)
}

// errGivenUp ends a reading as of S that may have come too late. Next does not return
// it: it tells that the backup fell forward.
var errGivenUp = errors.New("the backup gave up its originals")

// turning reports whether the backup fell forward and Next has not told.
func (b *Backup) turning() bool { return !b.fwd.told && b.live.FellForward() }

// turn begins to catch up, and is how Next tells.
func (b *Backup) turn() error {
	f := &b.fwd
	f.begin(b.s, b.holderName())
	if f.tail == nil {
		return ErrTxDone // closed
	}
	if err := b.s.log.Sync(f.lsn); err != nil { // until readers see F: what is durable is told before it is seen
		return b.explain(err)
	}
	hw, err := b.highWaterNow()
	if err != nil {
		return b.explain(err)
	}
	f.told, f.highWater, f.marks = true, hw, make([]byte, b.s.geo.bitsEnd)
	b.pending = nil
	b.hot.drop(b)
	return &FellForwardError{f.lsn}
}

// readNow begins a read transaction for who is a user of the store, so that a store
// that is being closed, and waits for him, grants that.
func (s *Store) readNow() (*ReadTx, error) {
	t := new(ReadTx)
	s.state.enter()
	return t, s.openRead(t, SnapshotOptions{})
}

func (b *Backup) highWaterNow() (block.ID, error) {
	t, err := b.s.readNow()
	if err != nil {
		return 0, err
	}
	defer t.Close()
	return t.meta.highWater, nil
}

// stopForward breaks a backup whose log was let go (R14).
func (b *Backup) stopForward() error {
	if b.fwd.told && b.fwd.tail.holder.Broken() {
		b.live.Break(snapshot.ReasonLogHeld, ErrLogGone)
	}
	return b.live.Err()
}

// stepForward hands out some blocks as they are now; none means that all are done.
func (b *Backup) stepForward(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	for {
		if b.pace != nil {
			b.pace.rest(ctx)
		}
		if n, err := b.fromPending(buf, ids, gapMax, b.takeForward); n > 0 || err != nil {
			return n, err
		}
		more, err := b.nextForwardGroup()
		if err != nil || !more {
			return 0, err
		}
		if err := b.stop(ctx); err != nil {
			return 0, err
		}
	}
}

// nextForwardGroup lists what is to be looked at of the next group.
func (b *Backup) nextForwardGroup() (bool, error) {
	f := &b.fwd
	if f.loaded {
		f.group++
		f.loaded = false
	}
	if f.group >= b.s.geo.groups(f.highWater) {
		return false, nil
	}
	err := b.listForward()
	f.loaded = err == nil
	return true, err
}

func (b *Backup) listForward() error {
	g, group := b.s.geo, b.fwd.group
	b.scanned.Bitmaps++
	bits, err := b.newestVersion(g.bitmapOf(group))
	if errors.Is(err, ErrNotInUse) {
		return nil // the group was given back
	}
	if err != nil {
		return fmt.Errorf("read allocation bitmap: %w", err)
	}
	defer bits.Release()
	yield.At("bitmap read behind F")
	b.pending = b.pending[:0]
	var m mapBlock
	known := false
	look := func(id block.ID) {
		if err == nil && id >= m.end {
			m = g.extentsOf(id)
			known, err = b.readMarks(m, b.fwd.marks)
		}
		if err == nil && b.mayBeNewer(id, known, getMark(b.fwd.marks, m.at(id))) {
			b.pending = append(b.pending, id)
		}
	}
	if group == 0 {
		look(metaBlock)
	}
	look(g.bitmapOf(group))
	g.eachInUse(group, bits.Payload(), look)
	return err
}

// mayBeNewer reports whether a block has to be looked at, by the mark of its extent.
func (b *Backup) mayBeNewer(id block.ID, known bool, mark block.LSN) bool {
	switch {
	case !known:
		return true
	case b.live.IsDone(id):
		return mark > b.info.LSN
	case b.inc == nil:
		return true
	}
	_, audited := b.inc.audit[id]
	return audited || mark > b.inc.base
}

// isNewer reports whether a version of a block is to be handed out.
func (b *Backup) isNewer(id block.ID, lsn block.LSN) (bool, error) {
	switch {
	case b.live.IsDone(id) || lsn > b.info.LSN:
		return lsn > b.info.LSN, nil
	}
	ok, err := b.carries(id, lsn)
	if ok && b.inc != nil && lsn <= b.inc.base { // to be held against the base, as it is
		return b.isNewest(id, lsn)
	}
	return ok, err
}

// takeForward hands out those blocks of a run that are to be handed out as they are now.
func (b *Backup) takeForward(run []block.ID, buf []byte, ids []block.ID) (out int, rest []block.ID, err error) {
	return b.readRun(run, buf, ids, b.newestInPlace, b.takeNewest)
}

// newestInPlace tells whether the file holds the newest version of a block, wholly,
// now: then a read that begins later gets that one or a newer one, or something
// that the checksum tells apart. What is in the file is durable (L6).
func (b *Backup) newestInPlace(id block.ID) (ok bool, least block.LSN) {
	l := b.s.cache.Latch(id)
	defer l.Unlock()
	h := l.Head(id)
	switch {
	case h == nil:
		return true, 0
	case h.InPlace && !h.Loading && !h.Dirty:
		return true, h.LSN
	}
	return false, 0
}

// takeNewest copies a block as it is now, if that is to be handed out.
func (b *Backup) takeNewest(id block.ID, image []byte, least block.LSN, dst []byte) (bool, error) {
	if image != nil {
		if t, reason := block.Verify(image, id, b.s.data.seed); reason == "" && t.LSN >= least && t.LSN <= b.s.log.Durable() && !b.s.isLost(id, t.LSN) {
			b.caught(id, image, t)
			ok, err := b.isNewer(id, t.LSN)
			if ok {
				copy(dst, image)
			}
			return ok, err
		}
	}
	r, err := b.newestVersion(id)
	if errors.Is(err, ErrNotInUse) {
		return false, nil // it was freed: the redo tells
	}
	if err != nil {
		return false, err
	}
	defer r.Release()
	b.caught(id, r.data, block.Trailer{Type: r.v.Type, LSN: r.v.LSN})
	ok, err := b.isNewer(id, r.v.LSN)
	if ok {
		copy(dst, r.data)
		block.Seal(dst, block.Trailer{Type: r.v.Type, ID: id, LSN: r.v.LSN}, b.s.data.seed)
	}
	return ok, err
}

// newestVersion returns the newest version of a block, and makes it durable first
// (R6). ErrNotInUse if the block is free by now.
func (b *Backup) newestVersion(id block.ID) (Block, error) {
	s := b.s
	r, err := s.get(id, view{newest, b.live})
	switch {
	case err == nil && r.v.LSN > s.log.Durable():
		s.awaitAppended(r.v.LSN)
		if err := s.log.Sync(r.v.LSN); err != nil {
			r.Release()
			return Block{}, err
		}
	case err != nil && b.live.Err() == nil && b.s.isFree(id):
		err = fmt.Errorf("read block %v: %w", id, ErrNotInUse)
	}
	return r, err
}

// isFree reports whether a block that could not be read is free as of the newest
// commit that readers see: then its place may hold anything. While they do not see
// yet that it was freed it has a head, which says so.
func (s *Store) isFree(id block.ID) bool {
	t, err := s.readNow()
	if err != nil {
		return false
	}
	defer t.Close()
	used, err := t.inUse(id)
	return err == nil && !used
}

// isNewest reports whether a version of a block that was just read is the newest one
// that readers see, of a block in use.
func (b *Backup) isNewest(id block.ID, lsn block.LSN) (bool, error) {
	t, err := b.s.readNow()
	if err != nil {
		return false, err
	}
	defer t.Close()
	if used, err := t.inUse(id); err != nil || !used {
		return false, err
	}
	r, err := t.Block(id)
	if err != nil {
		return false, err
	}
	defer r.Release()
	return r.v.LSN == lsn, nil
}

// endForward fixes E behind all that was seen, and is io.EOF.
func (b *Backup) endForward() error {
	f, s := &b.fwd, b.s
	f.mu.Lock()
	ended := f.ended
	f.mu.Unlock()
	if ended {
		return io.EOF
	}
	if err := s.log.Sync(s.seen()); err != nil {
		return fmt.Errorf("backup at LSN %v: %w", b.info.LSN, err)
	}
	t, err := s.BeginRead()
	if err != nil {
		return b.explain(err)
	}
	defer t.Close()
	if err := s.log.Sync(t.lsn); err != nil { // in the weaker modes readers are ahead
		return fmt.Errorf("backup at LSN %v: %w", b.info.LSN, err)
	}
	if err := s.state.failure(); err != nil { // what was read of file and map since may be old (L8)
		return fmt.Errorf("backup at LSN %v: %w", b.info.LSN, err)
	}
	end := b.info
	end.LSN, end.Time, end.RecordSum = t.lsn, s.lastCommitTime(), s.recordSum(t.lsn)
	end.HighWater, end.Blocks = t.meta.highWater, s.inUseAt(t.meta)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end, f.ended = end, true
	return io.EOF
}

// seen is the newest commit that may have been seen, in part or whole. One that is being
// published has no number for others yet, but its blocks, and what it frees, can be
// found: it is waited for.
func (s *Store) seen() block.LSN {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	return s.newestLSN()
}

// inUseAt is how many blocks a state consists of, with bitmaps and meta block.
func (s *Store) inUseAt(m *meta) uint64 { return m.inUse + s.geo.groups(m.highWater) + 1 }

// Final says what the backup is of in the end, when Next has returned io.EOF: of a
// backup that fell forward LSN is E, and the rest is as of E.
func (b *Backup) Final() BackupInfo {
	f := &b.fwd
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return f.end
	}
	return b.info
}

// errBehindEnd ends a reading of redo at E.
var errBehindEnd = errors.New("behind the end of the backup")

// Redo calls fn for records of the durable commits behind those that it has handed
// out so far, first those behind F: whole commits, up to the one with which bytesMax
// bytes are reached. It returns the last commit that was handed out, and does not
// wait for more. io.EOF when that is E, which is fixed by the io.EOF of Next. To
// call it again says that what it has handed out is safe: that log may go. Bodies are
// valid during the call. Only of a backup that has told that it fell forward; by one
// goroutine at a time, fn may call Next. A *snapshot.BrokenError says that the log was
// let go because of Options.LogHoldMax.
func (b *Backup) Redo(bytesMax int64, fn func(LogRecord) error) (block.LSN, error) {
	f := &b.fwd
	f.mu.Lock()
	tail, end, ended := f.tail, f.end.LSN, f.ended
	f.mu.Unlock()
	if tail == nil {
		return 0, fmt.Errorf("redo of a backup at LSN %v: it did not fall forward", b.info.LSN)
	}
	last := tail.cursor.Next() - 1
	tail.Done(last)
	if ended && last >= end {
		return last, io.EOF
	}
	// An end that fn fixes is not below what is durable now, and no more is read.
	last, err := tail.Read(bytesMax, func(r LogRecord) error {
		if ended && r.LSN > end {
			return errBehindEnd
		}
		return fn(r)
	})
	switch {
	case errors.Is(err, errBehindEnd):
		return last, nil
	case errors.Is(err, ErrLogGone):
		b.live.Break(snapshot.ReasonLogHeld, ErrLogGone)
	}
	if broken := b.live.Err(); broken != nil {
		return last, broken
	}
	return last, err
}
