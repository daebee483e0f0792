package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// serverLog is a log that a client follows. A reading of it stands still while the
// client has not asked for more: a client that takes its time costs the store
// the log that is held, no lock.
type serverLog struct {
	session LogSession // nil: it is the redo of a snapshot that fell forward
	read    func(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error)
	frame   logFrame

	// Of a reading that is under way:
	next func() (mvcc.LogRecord, error, bool)
	stop func()
	left *mvcc.LogRecord // did not fit into the frame before; shares memory with the reading
	lsn  block.LSN       // what the reading returned
}

func (c *serverConn) openLog(ctx context.Context, payload []byte) error {
	var req logOpenRequest
	if err := errors.Join(c.begin(), decodeRequest(payload, &req)); err != nil {
		return err
	}
	session, err := c.s.src.OpenLog(ctx, LogOptions(req))
	if err != nil {
		return err
	}
	c.log = &serverLog{session: session, read: session.Read}
	return c.reply(frameReply, logOpenReply{Info: session.Info()})
}

// logSession is the open log.
func (c *serverConn) logSession() (LogSession, error) {
	if c.log == nil {
		return nil, fmt.Errorf("%w: no log is open", ErrProtocol)
	}
	return c.log.session, nil
}

// nextLog hands out one frame.
func (c *serverConn) nextLog(ctx context.Context, payload []byte) error {
	var req logNextRequest
	_, err := c.logSession()
	if err = errors.Join(err, decodeRequest(payload, &req)); err != nil {
		return err
	}
	payload, err = c.log.fill(ctx, req.BytesMax)
	if err != nil {
		return err
	}
	return c.write(frameLog, payload)
}

// fill goes on with the reading that is under way, or begins one, and returns a
// frame's payload.
func (l *serverLog) fill(ctx context.Context, bytesMax int64) ([]byte, error) {
	if l.next == nil {
		l.begin(ctx, bytesMax)
	}
	l.frame.reset()
	for {
		r, err, more := l.take()
		switch {
		case err != nil:
			l.end()
			return nil, err
		case !more:
			l.end()
			return l.frame.seal(true, l.lsn), nil
		case !l.frame.add(r):
			l.left = &r
			return l.frame.seal(false, 0), nil
		}
	}
}

// take is the next record of the reading.
func (l *serverLog) take() (mvcc.LogRecord, error, bool) {
	if r := l.left; r != nil {
		l.left = nil
		return *r, nil, true
	}
	return l.next()
}

func (l *serverLog) begin(ctx context.Context, bytesMax int64) {
	l.next, l.stop = iter.Pull2(func(yield func(mvcc.LogRecord, error) bool) {
		lsn, err := l.read(ctx, bytesMax, func(r mvcc.LogRecord) error {
			if !yield(r, nil) {
				return errStopped
			}
			return nil
		})
		if l.lsn = lsn; err != nil && !errors.Is(err, errStopped) {
			yield(mvcc.LogRecord{}, err)
		}
	})
}

// end ends the reading that is under way, if one is.
func (l *serverLog) end() {
	if l.stop != nil {
		l.stop()
	}
	l.next, l.stop, l.left = nil, nil, nil
}

func (l *serverLog) close() error {
	l.end()
	return l.session.Close()
}

// nextRedo hands out one frame of the redo of the session.
func (c *serverConn) nextRedo(ctx context.Context, payload []byte) error {
	var req logNextRequest
	if err := decodeRequest(payload, &req); err != nil {
		return err
	}
	if c.redo == nil {
		return fmt.Errorf("%w: no session that fell forward is open", ErrProtocol)
	}
	payload, err := c.redo.fill(ctx, req.BytesMax)
	if err != nil {
		return err
	}
	return c.write(frameLog, payload)
}

// redoOf is the redo of a session that has just said that it fell forward.
func redoOf(s Session) *serverLog {
	return &serverLog{read: func(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
		lsn, err := s.Redo(ctx, bytesMax, fn)
		if errors.Is(err, io.EOF) {
			err = nil // the client knows where the end is
		}
		return lsn, err
	}}
}

// waitLog waits until there is more, or there is something else to do.
func (c *serverConn) waitLog(ctx context.Context) error {
	session, err := c.logSession()
	if err != nil {
		return err
	}
	if c.log.next != nil {
		return fmt.Errorf("%w: there is more already", ErrProtocol)
	}
	waiting, cancel := context.WithTimeout(ctx, logWaitMax)
	defer cancel()
	c.setInterrupt(cancel)
	defer c.setInterrupt(nil)
	if len(c.requests) > 0 {
		cancel()
	}
	err = session.Wait(waiting)
	if err != nil && waiting.Err() == nil {
		return err
	}
	return c.reply(frameReply, waitReply{More: err == nil})
}

// setInterrupt says what a request that comes is to end. One that came just before
// is in the queue already.
func (c *serverConn) setInterrupt(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupt = fn
}

func (c *serverConn) interruptWait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interrupt != nil {
		c.interrupt()
	}
}

// logAt handles the requests about one LSN.
func (c *serverConn) logAt(ctx context.Context, r request) error {
	var req lsnMessage
	session, err := c.logSession()
	if err = errors.Join(err, decodeRequest(r.payload, &req)); err != nil {
		return err
	}
	if r.kind == frameLogDone {
		if err := session.Done(ctx, req.LSN); err != nil {
			return err
		}
		return c.reply(frameReply, struct{}{})
	}
	sum, err := session.Sum(ctx, req.LSN)
	if err != nil {
		return err
	}
	return c.reply(frameReply, sumReply{Sum: sum})
}

// head handles the requests about a repository's head.
func (c *serverConn) head(ctx context.Context, r request) error {
	var req headRequest
	if err := decodeRequest(r.payload, &req); err != nil {
		return err
	}
	ask := c.s.src.CheckHead
	if r.kind == frameRemember {
		ask = c.s.src.RememberHead
	}
	if err := ask(ctx, RepositoryID(req.Repository), mvcc.Head{LSN: req.LSN, Sum: req.Sum}); err != nil {
		return err
	}
	return c.reply(frameReply, struct{}{})
}

func (c *serverConn) mark(ctx context.Context, payload []byte) error {
	var req markRequest
	if err := decodeRequest(payload, &req); err != nil {
		return err
	}
	lsn, err := c.s.src.Mark(ctx, req.Name)
	if err != nil {
		return err
	}
	return c.reply(frameReply, lsnMessage{LSN: lsn})
}

func (c *serverConn) quiesce(ctx context.Context, payload []byte) error {
	var req quiesceRequest
	if err := errors.Join(c.begin(), decodeRequest(payload, &req)); err != nil {
		return err
	}
	if req.TimeoutMillis < 1 || req.TimeoutMillis > quietMax.Milliseconds() {
		return fmt.Errorf("%w: quiet of %d ms", ErrProtocol, req.TimeoutMillis)
	}
	quiet, err := c.s.src.Quiesce(ctx, time.Duration(req.TimeoutMillis)*time.Millisecond)
	if err != nil {
		return err
	}
	c.quiet = quiet
	return c.reply(frameReply, lsnMessage{LSN: quiet.LSN()})
}

// resume ends the quiet. Whether it lasted until now is what the reply says.
func (c *serverConn) resume() error {
	if c.quiet == nil {
		return fmt.Errorf("%w: there is no quiet", ErrProtocol)
	}
	quiet := c.quiet
	c.quiet = nil
	if err := quiet.Release(); err != nil {
		return err
	}
	return c.reply(frameReply, struct{}{})
}
