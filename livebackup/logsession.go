package livebackup

import (
	"context"
	"errors"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// LogOptions of a LogSession.
type LogOptions struct {
	Name  string    // who follows, as operators see it among those who hold log
	After block.LSN // the log begins behind this commit
}

// LogInfo says whose log it is.
type LogInfo struct {
	Database block.DatabaseID
	Timeline block.TimelineID
	History  []block.Fork // the timelines that led to Timeline, the newest first (R18)
	Durable  block.LSN    // newest durable commit when the log was opened
}

// LogSession follows the log of a database: durable commits only (R6). After an
// error, but for that of a context that ended Wait, it is only good for closing.
// Not safe for concurrent use.
type LogSession interface {
	// Info says whose log it is.
	Info() LogInfo
	// Read calls fn for the records of the durable commits behind the last one
	// that was read, in order, whole commits only, and stops behind the commit
	// with which bytesMax bytes of bodies are reached. It returns the last commit
	// that was read so far; it does not wait for more. Bodies are valid during the
	// call. fn may call Sum, and may take its time. mvcc.ErrLogGone if the log was
	// recycled because too much of it was held.
	Read(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error)
	// Wait returns when there are durable commits that were not read, or ctx ended.
	Wait(ctx context.Context) error
	// Sum is the checksum of the log record that ends commit lsn (R18), 0 if the log
	// does not have that any more.
	Sum(ctx context.Context, lsn block.LSN) (uint32, error)
	// Done says that commits up to lsn are safe elsewhere: their log may go.
	Done(ctx context.Context, lsn block.LSN) error
	// Close lets the log go. The second call does nothing.
	Close() error
}

// OpenLog follows the store's log.
func (s storeSource) OpenLog(ctx context.Context, o LogOptions) (LogSession, error) {
	if err := errors.Join(checkText("name", o.Name), context.Cause(ctx)); err != nil {
		return nil, err
	}
	info := LogInfo{Database: s.store.Database(), Timeline: s.store.Timeline(), History: s.store.History(), Durable: s.store.Status().DurableLSN}
	tail, err := s.store.OpenLogTail(o.Name, o.After)
	if err != nil {
		return nil, err
	}
	return &storeLog{tail: tail, info: info}, nil
}

// storeLog is the log of a store that this process has open.
type storeLog struct {
	tail *mvcc.LogTail
	info LogInfo
}

// Info says whose log it is.
func (l *storeLog) Info() LogInfo { return l.info }

// Read looks at ctx between records.
func (l *storeLog) Read(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
	return l.tail.Read(bytesMax, func(r mvcc.LogRecord) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return fn(r)
	})
}

// Wait waits in the store.
func (l *storeLog) Wait(ctx context.Context) error { return l.tail.Wait(ctx) }

// Sum asks the log.
func (l *storeLog) Sum(_ context.Context, lsn block.LSN) (uint32, error) {
	if lsn == 0 {
		return 0, nil
	}
	sum, err := l.tail.Sum(lsn)
	if errors.Is(err, mvcc.ErrLogGone) {
		return 0, nil
	}
	return sum, err
}

// Done moves the hold.
func (l *storeLog) Done(_ context.Context, lsn block.LSN) error { l.tail.Done(lsn); return nil }

// Close lets the log go.
func (l *storeLog) Close() error { l.tail.Close(); return nil }
