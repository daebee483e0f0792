package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/wal"
)

// LogRecord is one record of the log of a store: the body is opaque but for
// [ScanRecord] and [Store.Apply].
type LogRecord struct {
	LSN  block.LSN
	Last bool // ends the commit
	Body []byte
}

// RecordInfo is what a reader of the log may want to know of a record.
type RecordInfo struct {
	Time  time.Time // of the commit, monotonic (R19); zero unless it is the commit's first record
	Clock time.Time // raw clock
	Marks []string
	Void  bool // the commit was given up: it changes nothing
}

// ScanRecord decodes what a record says about its commit. It proves the record's
// form on the way, so it reads all of the body.
func ScanRecord(body []byte) (RecordInfo, error) {
	var info RecordInfo
	rd := redoReader{body}
	for {
		e, more, err := rd.next()
		if err != nil {
			return RecordInfo{}, fmt.Errorf("scan log record: %w", err)
		}
		if !more {
			return info, nil
		}
		switch e.kind {
		case entryCommit:
			info.Time, info.Clock = e.at, e.raw
		case entryMark:
			info.Marks = append(info.Marks, e.name)
		case entryVoid:
			info.Void = true
		}
	}
}

// LogTail hands out the log of durable commits as it grows (R6), and holds it
// back from being recycled (R14): up to Options.LogHoldMax. It does not keep
// Close of the store waiting. For one goroutine at a time, but for Close.
type LogTail struct {
	s      *Store
	cursor *wal.Cursor
	holder *wal.Holder
	closed atomic.Bool
	quit   chan struct{} // closed by Close
}

// RepairTail is the name of a LogTail that is there for a repair: nobody comes back for
// it, and it is no sign that who followed before the store was opened is back.
const RepairTail = "repair"

// OpenLogTail begins behind commit after; ErrLogGone if the log does not reach
// back that far. The name is for operators, in Status; see RepairTail.
func (s *Store) OpenLogTail(name string, after block.LSN) (*LogTail, error) {
	if err := s.state.enterUnlessClosed(); err != nil {
		return nil, err
	}
	defer s.leave()
	if v := s.log.Durable(); after > v {
		return nil, fmt.Errorf("follow log behind LSN %v: only %v is durable: %w", after, v, ErrBehind)
	}
	hold := s.log.Hold
	if name == RepairTail {
		hold = s.log.HoldBriefly
	}
	h := hold(name, after+1)
	if oldest := s.log.Oldest(); oldest > after+1 {
		h.Drop()
		return nil, fmt.Errorf("follow log behind LSN %v: it begins at %v: %w", after, oldest, ErrLogGone)
	}
	if name != RepairTail {
		s.kept.followed()
	}
	return &LogTail{s: s, cursor: s.log.Cursor(after + 1), holder: h, quit: make(chan struct{})}, nil
}

// Read calls fn for the records of the durable commits behind the last one that was
// read, in order, whole commits only, and stops behind the commit with which
// bytesMax bytes of bodies are reached. It returns the last commit that was read
// so far; it does not wait for more. Bodies are valid during the call. After an
// error the next call begins with the commit in which it occurred. ErrLogGone
// when the log was let go because of Options.LogHoldMax.
func (t *LogTail) Read(bytesMax int64, fn func(LogRecord) error) (block.LSN, error) {
	err := t.usable()
	if err == nil {
		err = t.cursor.Read(bytesMax, func(lsn block.LSN, body []byte, last bool) error {
			return fn(LogRecord{lsn, last, body})
		})
	}
	return t.cursor.Next() - 1, t.explain(err)
}

// usable says why the tail hands out nothing any more. What is held no longer
// may be there still, but not for long: better told early.
func (t *LogTail) usable() error {
	switch {
	case t.closed.Load():
		return ErrClosed
	case t.holder.Broken():
		return wal.ErrReleased
	}
	return nil
}

func (t *LogTail) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wal.ErrReleased):
		err = fmt.Errorf("%w: %w", ErrLogGone, err)
	case errors.Is(err, wal.ErrClosed):
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return fmt.Errorf("follow log at LSN %v: %w", t.cursor.Next(), err)
}

// Wait returns when there are durable commits that were not read, or ctx ended.
// It reads nothing: what it returns is ctx's error, ErrClosed or ErrLogGone.
func (t *LogTail) Wait(ctx context.Context) error {
	for {
		moved := t.s.horizon.next()
		if err := t.usable(); err != nil {
			return t.explain(err)
		}
		if t.s.log.Durable() >= t.cursor.Next() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.quit:
		case <-t.s.quit:
			return t.explain(ErrClosed)
		case <-moved:
		}
	}
}

// Done says that commits up to lsn are safe elsewhere: the log may go.
func (t *LogTail) Done(lsn block.LSN) { t.holder.Move(lsn + 1) }

// Sum is the checksum of the record that ends commit lsn (R18), 0 for a standby: the
// records of its log have others than its primary's.
func (t *LogTail) Sum(lsn block.LSN) (uint32, error) {
	if t.s.standby {
		return 0, nil
	}
	if sum := t.cursor.Sum(); lsn+1 == t.cursor.Next() && sum != 0 {
		return sum, nil
	}
	sum, err := t.s.log.Checksum(lsn)
	return sum, t.explain(err)
}

// Close lets the log go. The second call does nothing.
func (t *LogTail) Close() {
	if t.closed.CompareAndSwap(false, true) {
		close(t.quit)
		t.holder.Drop()
	}
}

// horizon tells those who wait that the durable horizon has moved.
type horizon struct {
	awaited atomic.Bool // someone waits: most commits find nobody
	mu      sync.Mutex
	moved   chan struct{} // closed at the next move; nil: nobody asked
}

// next is closed when the horizon moves after the call.
func (h *horizon) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.moved == nil {
		h.moved = make(chan struct{})
	}
	h.awaited.Store(true)
	return h.moved
}

func (h *horizon) move() {
	if !h.awaited.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.awaited.Store(false)
	if h.moved != nil {
		close(h.moved)
		h.moved = nil
	}
}
