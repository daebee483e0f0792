package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Log is an open redo log; see the package comment for its protocol. Made by
// [Create] or [Open], ended by [Log.Close]. Safe for concurrent use, except
// that Reserve and Append belong to one writer at a time.
type Log struct {
	// Set at Create or Open, then constant.
	o     Options
	clean bool

	// V. announced follows durable once OnDurable has returned; Sync waits for
	// announced. Both are moved by the owner of the syncing role only.
	durable   atomic.Uint64
	announced atomic.Uint64

	mu sync.Mutex
	// changed is broadcast when a run was synced, the syncing role became free,
	// a preparation ended or the log failed.
	changed sync.Cond

	// The place of the next record. Guarded by mu.
	cur     *segment  // nil until the first record after Open
	pos     int64     // in cur
	lsn     block.LSN // of the record before it
	sum     uint32    // of the record before it
	open    bool      // the commit lsn is not complete
	end     block.LSN // last complete commit
	endSum  uint32    // checksum of the record that ends it; 0: not known
	claimed block.LSN // highest "synced" in the log
	ended   bool      // the last record is an end mark

	// Guarded by mu; flushing belongs to the owner of the syncing role.
	active, flushing *group
	syncing          bool // someone owns the syncing role
	waiters          []*waiter
	waiterPool       sync.Pool // of *waiter; not guarded

	// Guarded by mu. A slot is in exactly one of the lists, or in preparation.
	live      []*segment // that someone still needs, oldest first, cur last
	ready     []*segment // spares, open for their use
	idle      []*segment // free for use, closed
	slots     map[int]bool
	number    uint64 // of the last segment
	preparing bool
	refused   bool // the last preparation failed, and nothing was released since
	reserved  int  // ready spares that the commit being prepared counts on

	// Guarded by mu.
	floor   block.LSN // first commit that recovery needs
	holders []*Holder
	failed  error
	closed  bool
	stats   Stats
	perSync int64 // bytes, on the average of the last syncs
}

func newLog(o Options) *Log {
	l := &Log{o: o, active: &group{}, flushing: &group{}, slots: map[int]bool{}}
	l.changed.L = &l.mu
	l.waiterPool.New = func() any { return &waiter{wake: make(chan bool, 1)} }
	return l
}

// Create starts a log in an empty directory; its first commit will be base+1.
// What an interrupted Create left there is removed; a log that holds records is
// refused with fs.ErrExist.
func Create(o Options, base block.LSN) (*Log, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := removeEmptyLog(&o); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	l := newLog(o)
	l.lsn, l.end, l.claimed, l.floor = base, base, base, base+1
	l.durable.Store(uint64(base))
	l.announced.Store(uint64(base))
	if err := l.begin(); err != nil {
		l.abandon()
		return nil, fmt.Errorf("create log: %w", err)
	}
	return l, nil
}

// begin puts the first segment on disk, so that an Open before the first commit
// finds where the log begins.
func (l *Log) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.turn(); err != nil {
		return err
	}
	return l.flushAll()
}

// removeEmptyLog clears a directory in which no record was ever written. It does
// not mind whose the slots are: the interrupted Create drew other ids.
func removeEmptyLog(o *Options) error {
	slots, err := listSlots(o)
	if err != nil {
		return err
	}
	var empty []*segment
	for _, slot := range slots {
		s, err := readSlot(o, slot)
		if err != nil {
			return err
		}
		if holds, err := s.holdsRecords(o); err != nil {
			return err
		} else if holds {
			return &fs.PathError{Op: "create", Path: s.path(o.Dir), Err: fs.ErrExist}
		}
		empty = append(empty, s)
	}
	for _, s := range empty {
		if err := o.FS.Remove(s.path(o.Dir)); err != nil {
			return err
		}
	}
	return nil
}

// Committed reports whether a log directory has a commit, or had one that was
// recycled: of whatever database. It changes nothing. A directory that is not there
// has none.
func Committed(fsys vfs.FS, dir string) (bool, error) {
	o := Options{FS: fsys, Dir: dir, readOnly: true}
	slots, err := listSlots(&o)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	for _, slot := range slots {
		s, slotErr := readSlot(&o, slot)
		if slotErr == nil && s.header.prevLSN > 0 {
			return true, nil
		}
		var holds bool
		if err = slotErr; err == nil {
			holds, err = s.holdsCommits(&o)
		}
		if holds || err != nil {
			return holds, err
		}
	}
	return false, err
}

// holdsCommits reports a sound record of a commit anywhere in the segment.
func (s *segment) holdsCommits(o *Options) (bool, error) {
	in, err := openSegment(o, s)
	if err != nil {
		return false, err
	}
	defer in.close()
	for off := int64(recordsOffset); ; off += recordAlign {
		at, rec, err := in.sound(off)
		if at < 0 || err != nil || rec.lsn > 0 { // of marks only a log without commits has LSN 0
			return at >= 0 && err == nil, err
		}
		off = at
	}
}

// holdsRecords reports a sound record anywhere in the segment: the first one may
// be damaged.
func (s *segment) holdsRecords(o *Options) (bool, error) {
	in, err := openSegment(o, s)
	if err != nil {
		return false, err
	}
	defer in.close()
	off, _, err := in.sound(recordsOffset)
	return off >= 0, err
}

// listSlots returns the slots of a log directory in order, after removing files
// that never were complete, unless nothing may be written.
func listSlots(o *Options) ([]int, error) {
	entries, err := o.FS.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	var slots []int
	for _, e := range entries {
		name := e.Name()
		if slot, ok := parseSlot(name); ok {
			slots = append(slots, slot)
		} else if whole, ok := strings.CutSuffix(name, unborn); ok {
			if _, ok := parseSlot(whole); ok && !o.readOnly {
				if err := o.FS.Remove(filepath.Join(o.Dir, name)); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.Sort(slots)
	return slots, nil
}

// End is the last complete commit that was accepted or appended.
func (l *Log) End() block.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// Durable is the horizon V: no power cut takes back a commit at or below it.
func (l *Log) Durable() block.LSN { return block.LSN(l.durable.Load()) }

// Clean reports whether Open found the log closed in good order.
func (l *Log) Clean() bool { return l.clean }

// usable reports why nothing may be appended any more. mu is held.
func (l *Log) usable() error {
	if l.failed != nil {
		return l.failed
	}
	if l.closed {
		return ErrClosed
	}
	if l.o.readOnly {
		return ErrReadOnly
	}
	return nil
}

// fail makes cause the reason why the log is poisoned, if it is the first (L8).
// mu is held.
func (l *Log) fail(cause error) {
	if l.failed != nil {
		return
	}
	l.failed = fmt.Errorf("%w: %w", ErrFailed, cause)
	l.o.Logger.Error("redo log has failed", "dir", l.o.Dir, "cause", cause)
	l.changed.Broadcast()
}

// Close makes everything appended durable, writes the end mark, and lets the
// files go. A log that has failed is only let go, and Close returns why it
// failed. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.settle()
	err := l.failed
	if err == nil && !l.o.readOnly {
		err = l.finish()
	}
	l.letGo()
	return err
}

// abandon lets go a log that was never handed out.
func (l *Log) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	l.letGo()
}

// settle closes the log to new work and waits for what already runs. mu is
// held, and released while waiting.
func (l *Log) settle() {
	l.closed = true
	for l.syncing || l.preparing {
		l.changed.Wait()
	}
}

// finish syncs what is left and writes the end mark. mu is held, and the
// syncing role is free.
func (l *Log) finish() error {
	if err := l.flushAll(); err != nil {
		return err
	}
	if l.ended || l.open {
		return nil // nothing new; or a commit that its writer gave up: the next Open cuts it off
	}
	if l.cur == nil { // recovered, and never appended behind the cut (R5)
		if err := l.turn(); err != nil {
			l.o.Logger.Warn("redo log is closed without an end mark", "dir", l.o.Dir, "cause", err)
			return l.failed
		}
	}
	l.put(flagMark|flagEnd, l.lsn, nil)
	return l.flushAll()
}

func (l *Log) letGo() {
	for _, s := range slices.Concat(l.live, l.ready) {
		if s.file != nil {
			s.file.Close() // all that counts was synced, or the log has failed
			s.file = nil
		}
	}
	l.changed.Broadcast()
}
