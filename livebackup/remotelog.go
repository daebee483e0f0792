package livebackup

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// dialExchange connects and asks the first question, whose reply goes to v.
func (c *Client) dialExchange(ctx context.Context, k frameKind, asked, v any) (*exchange, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	x := startExchange(conn)
	if err := x.call(ctx, k, asked, v); err != nil {
		x.close(0)
		return nil, err
	}
	return x, nil
}

// OpenLog follows the log of the database in the serving process.
func (c *Client) OpenLog(ctx context.Context, o LogOptions) (LogSession, error) {
	var reply logOpenReply
	x, err := c.dialExchange(ctx, frameLogOpen, logOpenRequest(o), &reply)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &remoteLog{x: x, info: reply.Info, read: logOrder{last: o.After}}, nil
}

// remoteLog is the log of a database in another process.
type remoteLog struct {
	x    *exchange
	info LogInfo
	read logOrder
}

// Info says whose log it is.
func (l *remoteLog) Info() LogInfo { return l.info }

// Read asks for one frame at a time: fn may take its time. Order and wholeness of
// commits are proven.
func (l *remoteLog) Read(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
	for {
		f, err := l.x.ask(ctx, frameLogNext, logNextRequest{bytesMax}, frameLog)
		if err != nil {
			return l.read.last, err
		}
		end, err := l.read.hand(f.payload, fn)
		l.x.free(f)
		if end || err != nil {
			return l.read.last, err
		}
	}
}

// Wait asks again and again: each time the server waits for a while.
func (l *remoteLog) Wait(ctx context.Context) error {
	for {
		var reply waitReply
		if err := l.x.call(ctx, frameLogWait, nil, &reply); err != nil || reply.More {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// Sum asks the serving process.
func (l *remoteLog) Sum(ctx context.Context, lsn block.LSN) (uint32, error) {
	var reply sumReply
	err := l.x.call(ctx, frameLogSum, lsnMessage{lsn}, &reply)
	return reply.Sum, err
}

// Done tells the serving process.
func (l *remoteLog) Done(ctx context.Context, lsn block.LSN) error {
	return l.x.call(ctx, frameLogDone, lsnMessage{lsn}, &struct{}{})
}

// Close returns when the server has let the log go, or is not there to say so.
func (l *remoteLog) Close() error { return l.x.close(frameClose) }

// Quiesce brings the database in the serving process to rest. The quiet ends with
// the connection, too, and with the lease of a process that is stopped.
func (c *Client) Quiesce(ctx context.Context, timeout time.Duration) (Quiet, error) {
	if err := checkQuietTimeout(timeout); err != nil {
		return nil, fmt.Errorf("quiesce: %w", err)
	}
	var reply lsnMessage
	x, err := c.dialExchange(ctx, frameQuiesce, quiesceRequest{timeout.Milliseconds()}, &reply)
	if err != nil {
		return nil, fmt.Errorf("quiesce: %w", err)
	}
	return &remoteQuiet{x: x, lsn: reply.LSN}, nil
}

// remoteQuiet is a quiet of a database in another process.
type remoteQuiet struct {
	x   *exchange
	lsn block.LSN

	mu       sync.Mutex
	released bool  // guarded by mu, as err
	err      error // of the first Release
}

// LSN is the newest commit.
func (q *remoteQuiet) LSN() block.LSN { return q.lsn }

// Over is closed when the server said that the quiet is over, or was lost.
func (q *remoteQuiet) Over() <-chan struct{} { return q.x.done }

// Release asks the server, who knows whether the quiet lasted.
func (q *remoteQuiet) Release() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.released {
		q.released, q.err = true, q.x.close(frameResume)
	}
	return q.err
}
