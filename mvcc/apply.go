package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// # A standby rolls forward (R20)
//
// A standby is a database that was built from a backup and keeps its timeline:
// it writes no history of its own. Its superblock says so; only Promote clears
// the flag. Apply takes the records of the primary's log in order and does with
// each commit what the primary did:
//
//  1. The first record lets nobody else write until the commit's last one. Each
//     record is decoded into private versions. A diff has to find exactly its
//     predecessor's LSN; whether a block existed before is what the bitmap says
//     as of the commit's base, because the commit may change the bitmap first.
//     What does not fit into the transaction's share of MaxRAM spills.
//  2. Records before the last go into the standby's own log, as they are. Until
//     the last one is there they do not count (R5): a crash cuts them off.
//  3. With the last record all is known: how far the commit goes is compared with
//     what it wrote, space in the data file is reserved as for the primary's
//     allocations (R7), and the commit is published and logged, under the
//     primary's LSN and time, as any other (commitRecord). A commit that says it
//     was given up takes its LSN and changes nothing.
//
// So the standby's log is redo that its own recovery understands, the cleaner
// works as ever, and a crash at any point resumes behind the newest commit that
// is whole. Checksums of records are bound to the log they are in: those of a
// standby are not its primary's, and name nothing to anyone else (R18).
//
// An error before a record of the commit was logged leaves the standby as it was:
// the commit may be sent again, from its first record. Afterwards the log has
// half a commit, and only opening the store again takes it out.

// applier is the commit that is being applied.
type applier struct {
	mu      sync.Mutex // held by Apply, and by Close to end what was begun
	tx      *WriteTx   // holds the writer's lock from the first record to the last; nil: between commits
	at      time.Time
	void    bool
	logged  bool  // a record of it is in the log
	records int   // that were applied
	failed  error // why nothing can be applied until the store is opened again
}

// OrderError refuses a log record whose turn it is not.
type OrderError struct{ Got, Due block.LSN }

func (e *OrderError) Error() string {
	return fmt.Sprintf("%v: it is of commit %v, %v is due", ErrOrder, e.Got, e.Due)
}

// Is matches ErrOrder.
func (e *OrderError) Is(target error) bool { return target == ErrOrder }

// Standby reports whether the store only rolls forward (R20).
func (s *Store) Standby() bool { return s.standby }

// Apply rolls a standby forward by one record of its primary's log. Records come
// in order; the commit is published with its last record, under the primary's
// LSN and time, and logged in the standby's own log (R20). In the default mode it
// is durable when the last record's Apply returns.
//
// An *OrderError says which commit is due; it changes nothing, nor does ErrNotStandby.
// After another error the commit is sent again from its first record; if that
// fails at once the store has to be closed and opened again, and goes on behind its newest
// commit. *block.CorruptError means that the record does not fit the block that
// it changes. One goroutine at a time gains nothing by others' calls, but they
// do no harm.
func (s *Store) Apply(r LogRecord) error {
	switch {
	case !s.standby:
		return fmt.Errorf("apply commit %v: %w", r.LSN, ErrNotStandby)
	case s.opts.ReadOnly:
		return fmt.Errorf("apply commit %v: %w", r.LSN, ErrReadOnly)
	}
	a := &s.applier
	a.mu.Lock()
	defer a.mu.Unlock()
	err := s.apply(r)
	if err == nil && r.Last {
		err = s.awaitCommitted(r.LSN)
	}
	if err != nil {
		return fmt.Errorf("apply commit %v: %w", r.LSN, err)
	}
	return nil
}

// Applying is the commit that Apply was given a part of, and how many of its records that
// was: the next one is due. 0 and 0 between commits.
func (s *Store) Applying() (lsn block.LSN, records int) {
	a := &s.applier
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tx == nil {
		return 0, 0
	}
	return a.tx.base + 1, a.records
}

func (s *Store) apply(r LogRecord) error {
	a := &s.applier
	if a.failed != nil {
		return a.failed
	}
	if due := s.newestLSN() + 1; r.LSN != due {
		return &OrderError{r.LSN, due}
	}
	if a.tx == nil {
		tx, err := s.beginWrite(context.Background())
		if err != nil {
			return err
		}
		a.tx, a.at, a.void, a.logged, a.records = tx, time.Time{}, false, false, 0
	}
	err := a.take(r)
	if err != nil {
		a.giveUp(err)
	}
	return err
}

// take applies one record of the open commit.
func (a *applier) take(r LogRecord) error {
	if err := eachEntry(r.LSN, r.Body, a.entry); err != nil {
		return err
	}
	a.records++
	if a.at.IsZero() {
		return fmt.Errorf("%w: the commit has no time", errRedo)
	}
	if !r.Last {
		return a.log(r)
	}
	return a.finish(r)
}

// log appends a record that is not the commit's last.
func (a *applier) log(r LogRecord) error {
	s := a.tx.s
	if err := s.reserveLog(int64(len(r.Body))); err != nil {
		return err
	}
	a.logged = true
	if err := s.log.Append(r.LSN, r.Body, false); err != nil {
		return s.fail(fmt.Errorf("log commit %v: %w", r.LSN, err))
	}
	return nil
}

// finish publishes the commit with its last record.
func (a *applier) finish(r LogRecord) error {
	t := a.tx
	s := t.s
	if a.void {
		t.undo()
	} else if err := t.settleMeta(); err != nil {
		return err
	}
	if err := s.awaitDirtyLimit(len(t.blocks)); err != nil {
		return err
	}
	if err := t.raiseMarks(); err != nil {
		return err
	}
	if err := s.reserveLog(int64(len(r.Body))); err != nil {
		return err
	}
	at := a.at
	if at.Before(s.lastTime) { // that of a backup may be later than its commit's
		at = s.lastTime
	}
	err := t.commitRecord(r.LSN, at, r.Body)
	a.tx = nil
	t.finish()
	return err
}

// giveUp undoes the open commit. What of it is in the log is cut off by the next
// opening.
func (a *applier) giveUp(cause error) {
	t := a.tx
	if t == nil { // it failed when it was published: so did the store (L8)
		return
	}
	a.tx = nil
	t.undo()
	if a.logged {
		a.failed = fmt.Errorf("half a commit is in the log, open the store again: %w", cause)
	}
	t.finish()
}

// end is for Close: what was begun will not be ended.
func (a *applier) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tx != nil {
		a.giveUp(ErrClosed)
	}
	a.failed = errors.Join(a.failed, ErrClosed)
}

func (a *applier) entry(e *redoEntry) error {
	if first := a.records == 0 && a.at.IsZero(); first != (e.kind == entryCommit) {
		return fmt.Errorf("%w: entry of kind %d in record %d", errRedo, e.kind, a.records+1)
	}
	switch e.kind {
	case entryCommit:
		a.at = e.at
	case entryImage:
		return a.tx.applyImage(e)
	case entryDiff:
		return a.tx.applyDiff(e)
	case entryFree:
		for _, id := range e.ids {
			if err := a.tx.applyFree(id); err != nil {
				return err
			}
		}
	case entryVoid:
		a.void = true
	}
	return nil
}

// applyImage gives the transaction a version that is wholly known.
func (t *WriteTx) applyImage(e *redoEntry) error {
	old, existed, err := t.predecessor(e.id)
	if err != nil {
		return err
	}
	p := private{existed: existed}
	if existed {
		p.since = old.v.LSN
		old.Release()
	}
	return t.applyRuns(e, p, nil)
}

// applyDiff gives the transaction a version that differs from the one before.
func (t *WriteTx) applyDiff(e *redoEntry) error {
	old, existed, err := t.predecessor(e.id)
	if err != nil {
		return err
	}
	lsn := t.base + 1
	want := lsn - e.since
	if !existed {
		return t.s.data.corrupt(e.id, fmt.Sprintf("commit %v changes its version %v, but it is free", lsn, want))
	}
	defer old.Release()
	if have := old.v.LSN; have != want {
		return t.s.data.corrupt(e.id, fmt.Sprintf("commit %v changes its version %v, but it holds %v", lsn, want, have))
	}
	return t.applyRuns(e, private{since: want, existed: true}, old.data)
}

// applyRuns makes the private version p: old with the entry's runs. Without old
// it is zeros with them, and the whole image is in the log.
func (t *WriteTx) applyRuns(e *redoEntry, p private, old []byte) error {
	bytes := int64(privateBytes)
	if p.existed {
		bytes += replacedBytes
	}
	if err := t.promise(bytes); err != nil {
		return err
	}
	if err := t.makeRoom(); err != nil {
		return err
	}
	v, err := t.version(e.id, e.typ)
	if err != nil {
		return err
	}
	var was []byte
	if old == nil {
		clear(v.Data())
		v.Image = v.LSN
	} else {
		copy(v.Data(), old)
		was = block.Payload(old)
	}
	if err := e.apply(block.Payload(v.Data()), was); err != nil {
		t.s.cache.Kill(v)
		return err
	}
	p.v = v
	t.add(p)
	return nil
}

// applyFree ends a block's newest version.
func (t *WriteTx) applyFree(id block.ID) error {
	old, existed, err := t.predecessor(id)
	if err != nil {
		return err
	}
	if !existed {
		return t.s.data.corrupt(id, fmt.Sprintf("commit %v frees it, but it is free", t.base+1))
	}
	old.Release()
	return t.discard(id)
}

// blocksMax is behind the highest block number that can be: its place in the
// file is still a number.
const blocksMax = block.ID(1) << (63 - 16)

// predecessor is the version of a block that the commit replaces, if there is
// one: then it must be released. A commit has one entry for each block.
func (t *WriteTx) predecessor(id block.ID) (old Block, existed bool, err error) {
	s := t.s
	if id >= blocksMax || !s.geo.isVersioned(id) || t.find(id) != nil || t.away.Find(id) != 0 {
		return Block{}, false, fmt.Errorf("%w: block %v has no versions, or two in one commit", errRedo, id)
	}
	if existed, err = s.inUse(id, t.was.highWater, s.current); err != nil || !existed {
		return Block{}, false, err
	}
	old, err = s.current(id)
	return old, err == nil, err
}

// settleMeta takes over what the commit says of the whole store, proves that it
// goes with what it wrote, and reserves its space on disk.
func (t *WriteTx) settleMeta() error {
	p, err := t.own(metaBlock)
	if err != nil {
		return err
	}
	if p != nil {
		t.meta = decodeMeta(block.Payload(p.v.Data()))
	}
	if t.meta.highWater < reserved {
		return t.s.data.corrupt(metaBlock, fmt.Sprintf("high-water mark %v is below the reserved places", t.meta.highWater))
	}
	if id := t.highest(); id >= t.meta.highWater {
		return t.s.data.corrupt(id, fmt.Sprintf("commit %v writes it behind the high-water mark %v", t.base+1, t.meta.highWater))
	}
	g := t.s.geo
	for group := g.groups(t.was.highWater); group < g.groups(t.meta.highWater); group++ {
		if !t.writes(g.bitmapOf(group)) {
			return t.s.data.corrupt(metaBlock, fmt.Sprintf("commit %v moves the high-water mark to %v, and has no bitmap of group %d", t.base+1, t.meta.highWater, group))
		}
	}
	for uint64(len(t.s.hints)) < g.groups(t.meta.highWater) {
		t.s.hints = append(t.s.hints, reserved)
	}
	return t.s.data.reserve(t.meta.highWater - 1)
}

// highest is the highest block that the transaction writes; zero if it writes none.
func (t *WriteTx) highest() (id block.ID) {
	for i := range t.blocks {
		id = max(id, t.blocks[i].v.ID)
	}
	t.away.All(func(h blockcache.Handle) {
		if e := t.s.cache.Entry(h); e.Flags&awayFreed == 0 {
			id = max(id, e.ID)
		}
	})
	return id
}

// writes reports whether the transaction has a version of a block.
func (t *WriteTx) writes(id block.ID) bool {
	h := t.away.Find(id)
	return t.find(id) != nil || h != 0 && t.s.cache.Entry(h).Flags&awayFreed == 0
}

// undo drops all that the transaction changed.
func (t *WriteTx) undo() {
	t.drop()
	clear(t.byID)
	clear(t.blocks)
	t.blocks, t.meta = t.blocks[:0], t.was
	t.unpromise(t.promised)
	t.taken = 0
}
