package mvcc

import (
	"context"
	"errors"
	"time"

	"github.com/spillwaydb/spillway/block"
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

// ScanRecord decodes what a record says about its commit.
func ScanRecord(body []byte) (RecordInfo, error) { return RecordInfo{}, errors.ErrUnsupported }

// LogTail hands out the log of durable commits as it grows (R6), and holds it
// back from being recycled (R14). For one goroutine at a time, but for Close.
type LogTail struct{}

// OpenLogTail begins behind commit after; ErrLogGone if the log does not reach
// back that far.
func (s *Store) OpenLogTail(name string, after block.LSN) (*LogTail, error) {
	return nil, errors.ErrUnsupported
}

// Read calls fn for the records of the durable commits behind the last one that was
// read, in order, whole commits only, and stops behind the commit with which
// bytesMax bytes of bodies are reached. It returns the last commit that was read
// so far; it does not wait for more. Bodies are valid during the call.
func (t *LogTail) Read(bytesMax int64, fn func(LogRecord) error) (block.LSN, error) {
	return 0, errors.ErrUnsupported
}

// Wait returns when there are durable commits that were not read, or ctx ended.
func (t *LogTail) Wait(ctx context.Context) error { return errors.ErrUnsupported }

// Done says that commits up to lsn are safe elsewhere: the log may go.
func (t *LogTail) Done(lsn block.LSN) {}

// Sum is the checksum of the record that ends commit lsn (R18).
func (t *LogTail) Sum(lsn block.LSN) (uint32, error) { return 0, errors.ErrUnsupported }

// Close lets the log go. The second call does nothing.
func (t *LogTail) Close() {}

// Mark makes a commit that changes nothing but has a name, to restore to, and
// returns its LSN when it is durable.
func (s *Store) Mark(name string) (block.LSN, error) { return 0, errors.ErrUnsupported }
