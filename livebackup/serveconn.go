package livebackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// handshakeMax is how long a peer may take to say which versions it speaks.
const handshakeMax = 5 * time.Second

// serverConn is one client. A goroutine reads requests, so that an end of the
// connection or of the lease is seen at once, whatever is being done; another
// answers them, and alone uses the session and writes.
type serverConn struct {
	s  *Server
	nc net.Conn

	requests chan request
	renewed  chan struct{} // holds one if a renew came since it was looked at

	session Session // of the answering goroutine, as the next seven
	batch   *batch
	ids     []block.ID
	log     *serverLog
	redo    *serverLog // nil: the session did not fall forward
	quiet   Quiet
	told    int64 // the rate that the client knows was asked of it
	out     []byte
	broken  bool // a write failed in the middle of a frame: nothing more may be written

	mu        sync.Mutex // orders deadlines of writes against the end
	ended     bool       // guarded by mu
	interrupt func()     // guarded by mu; ends what waits, if a request comes
}

// request is a frame from the client.
type request struct {
	kind    frameKind
	payload []byte
}

// serveConn serves one client until either side ends it.
func (s *Server) serveConn(nc net.Conn) {
	defer nc.Close()
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(errStopped)
	c := &serverConn{s: s, nc: nc, requests: make(chan request, pipelineMax), renewed: make(chan struct{}, 1)}
	stop := context.AfterFunc(ctx, c.end)
	defer stop()
	if err := c.handshake(); err != nil {
		s.o.Logger.Debug("admin handshake", "error", err)
		return
	}
	var reader sync.WaitGroup
	reader.Go(func() { cancel(c.read()) })
	err := c.answer(ctx)
	// The session goes first: telling the client may take a moment.
	c.endSession()
	c.farewell(err)
	cancel(err)
	nc.Close()
	reader.Wait()
}

// endSession lets go of what the client held.
func (c *serverConn) endSession() {
	if c.redo != nil {
		c.redo.end()
	}
	if c.session != nil {
		c.session.Close()
	}
	if c.log != nil {
		c.log.close()
	}
	if c.quiet != nil {
		c.quiet.Release()
	}
}

// end makes whatever waits for the client fail now.
func (c *serverConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended { // else the farewell is under way
		c.ended = true
		c.nc.SetDeadline(time.Unix(1, 0))
	}
}

func (c *serverConn) handshake() error {
	c.nc.SetDeadline(time.Now().Add(handshakeMax))
	lowest, highest, err := readPreamble(c.nc)
	if err != nil {
		return err
	}
	if lowest > protocolVersion || highest < protocolVersion {
		c.nc.Write(encodePreamble(protocolVersion, protocolVersion))
		return fmt.Errorf("client speaks versions %d to %d", lowest, highest)
	}
	hello, err := json.Marshal(welcome{LeaseMillis: c.s.o.Lease.Milliseconds()})
	if err != nil {
		return err
	}
	_, err = c.nc.Write(appendFrame(encodePreamble(protocolVersion, protocolVersion), frameWelcome, hello))
	return err
}

// read takes requests until the connection or the lease ends, and says which.
// Each whole frame renews the lease; one that dribbles in does not.
func (c *serverConn) read() error {
	for {
		if !c.setReadDeadline() {
			return ErrDisconnected
		}
		kind, length, err := readFrameHeader(c.nc)
		if err != nil {
			return lost(err)
		}
		payload, err := readRequest(c.nc, kind, length)
		if err != nil {
			return lost(err)
		}
		if kind == frameRenew {
			select {
			case c.renewed <- struct{}{}:
			default:
			}
			continue
		}
		select {
		case c.requests <- request{kind, payload}:
			c.interruptWait()
		default:
			return fmt.Errorf("%w: more than %d requests at once", ErrProtocol, pipelineMax)
		}
	}
}

func lost(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrLeaseExpired
	case errors.Is(err, ErrProtocol):
		return err
	}
	return fmt.Errorf("%w: %w", ErrDisconnected, err)
}

func (c *serverConn) setReadDeadline() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.nc.SetReadDeadline(time.Now().Add(c.s.o.Lease))
	}
	return !c.ended
}

// answer handles requests in their order and returns why it stopped.
func (c *serverConn) answer(ctx context.Context) error {
	for {
		var over <-chan struct{}
		if c.quiet != nil {
			over = c.quiet.Over()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			return ErrQuietOver
		case <-c.renewed:
			err := c.notice()
			if cause := context.Cause(ctx); cause != nil {
				return cause // as below
			}
			if err != nil {
				return err
			}
		case r := <-c.requests:
			err := c.handle(ctx, r)
			if cause := context.Cause(ctx); cause != nil {
				return cause // what went wrong then, went wrong because of this
			}
			if err != nil {
				return err
			}
		}
	}
}

func (c *serverConn) handle(ctx context.Context, r request) error {
	switch r.kind {
	case frameOpen:
		return c.open(ctx, r.payload)
	case frameQuiesce:
		return c.quiesce(ctx, r.payload)
	case frameLogOpen:
		return c.openLog(ctx, r.payload)
	case frameLogNext:
		return c.nextLog(ctx, r.payload)
	case frameRedo:
		return c.nextRedo(ctx, r.payload)
	case frameLogSum, frameLogDone:
		return c.logAt(ctx, r)
	case frameHead, frameRemember:
		return c.head(ctx, r)
	case frameMark:
		return c.mark(ctx, r.payload)
	case frameRelease:
		return c.release(ctx, r.payload)
	case frameEvents:
		return c.events(ctx, r.payload)
	case framePace:
		return c.pace(ctx, r.payload)
	case frameRepair:
		return c.repair(ctx, r.payload)
	}
	if len(r.payload) > 0 {
		return fmt.Errorf("%w: request %d has a payload", ErrProtocol, r.kind)
	}
	switch r.kind {
	case frameStatus:
		return c.status(ctx)
	case frameChanges:
		return c.changes(ctx)
	case frameCheck:
		return c.check(ctx)
	case frameNext:
		return c.next(ctx)
	case frameClose:
		return c.close()
	case frameResume:
		return c.resume()
	case frameLogWait:
		return c.waitLog(ctx)
	case framePromote:
		return c.promote(ctx)
	}
	return fmt.Errorf("%w: request %d is unknown", ErrProtocol, r.kind)
}

// begin refuses a second session on one connection.
func (c *serverConn) begin() error {
	if c.session != nil || c.log != nil || c.quiet != nil {
		return fmt.Errorf("%w: a session is open", ErrProtocol)
	}
	return nil
}

// status leaves out what does not fit. The oldest snapshots, and the oldest log that is
// held, cost most and come first: it goes from the end.
func (c *serverConn) status(ctx context.Context) error {
	st, err := c.s.src.Status(ctx)
	if err != nil {
		return err
	}
	shortenNames(&st)
	reply := statusReply{Status: st}
	for {
		payload, err := json.Marshal(reply)
		if err != nil {
			return err
		}
		now := &reply.Status
		switch {
		case len(payload) <= controlBytesMax:
			return c.write(frameReply, payload)
		case len(now.Snapshots) > 0:
			now.Snapshots = st.Snapshots[:len(now.Snapshots)/2]
			reply.SnapshotsLeftOut = len(st.Snapshots) - len(now.Snapshots)
		case len(now.Holders) > 0:
			now.Holders = st.Holders[:len(now.Holders)/2]
		default:
			return fmt.Errorf("status of %d bytes is too large for a frame", len(payload))
		}
	}
}

// nameBytesMax is how much a served status has of each name that somebody gave.
const nameBytesMax = 1 << 10

// shortenNames is for those of programs, which may be of any length.
func shortenNames(st *mvcc.Status) {
	cut := func(s *string) { *s = (*s)[:min(len(*s), nameBytesMax)] }
	for i := range st.Snapshots {
		cut(&st.Snapshots[i].Owner)
		cut(&st.Snapshots[i].Label)
	}
	for i := range st.Backups {
		cut(&st.Backups[i].Owner)
		cut(&st.Backups[i].Label)
	}
	for i := range st.Holders {
		cut(&st.Holders[i].Name)
	}
	st.Failed = clip(st.Failed)
}

func (c *serverConn) release(ctx context.Context, payload []byte) error {
	var req releaseRequest
	if err := decodeRequest(payload, &req); err != nil {
		return err
	}
	if err := c.s.src.Release(ctx, req.ID); err != nil {
		return err
	}
	return c.reply(frameReply, struct{}{})
}

// events leaves out what does not fit, from the end: the client asks again.
func (c *serverConn) events(ctx context.Context, payload []byte) error {
	var req eventsRequest
	if err := decodeRequest(payload, &req); err != nil {
		return err
	}
	list, err := c.s.src.Events(ctx, req.After)
	if err != nil {
		return err
	}
	for {
		payload, err := json.Marshal(eventsReply{Events: list})
		if err != nil || len(payload) <= controlBytesMax || len(list) < 2 {
			return errors.Join(err, c.write(frameReply, payload))
		}
		list = list[:len(list)/2]
	}
}

// checkReportEvery is how often a check tells how far it is.
const checkReportEvery = 200 * time.Millisecond

// check ends when its client can no longer be told of it: it holds a snapshot.
func (c *serverConn) check(ctx context.Context) error {
	var last time.Time
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errStopped)
	res, err := c.s.src.Check(ctx, func(done, total uint64) {
		if now := time.Now(); ctx.Err() == nil && now.Sub(last) >= checkReportEvery {
			last = now
			if err := c.reply(frameProgress, checkProgress{done, total}); err != nil {
				cancel(err)
			}
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	return c.replyCheck(res)
}

// replyCheck leaves out problems that do not fit, and says so, and damaged blocks: a
// check that follows a repair finds the others.
func (c *serverConn) replyCheck(res mvcc.CheckResult) error {
	room := controlBytesMax / 2
	for i, p := range res.Problems {
		p = clip(p)
		quoted, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if room -= len(quoted) + 1; room < 0 {
			left := fmt.Sprintf("and %d more", len(res.Problems)-i)
			res.Problems = append(res.Problems[:i:i], left)
			break
		}
		res.Problems[i] = p
	}
	room = controlBytesMax / 4
	for i, d := range res.Damaged {
		line, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if room -= len(line) + 1; room < 0 {
			res.Damaged = res.Damaged[:i]
			break
		}
	}
	return c.reply(frameReply, res)
}

func (c *serverConn) open(ctx context.Context, payload []byte) error {
	var req openRequest
	if err := errors.Join(c.begin(), decodeRequest(payload, &req)); err != nil {
		return err
	}
	if req.BatchBytes < 1 {
		return fmt.Errorf("%w: batches of %d bytes", ErrProtocol, req.BatchBytes)
	}
	if err := errors.Join(checkText("owner", req.Owner), checkText("label", req.Label)); err != nil {
		return err
	}
	session, err := c.s.src.Open(ctx, req.SessionOptions)
	if err != nil {
		return err
	}
	c.session = session
	info := session.Info()
	blocks := max(1, min(req.BatchBytes, c.s.o.BatchBytes)/info.BlockSize)
	c.batch, c.ids = newBatch(blocks, info.BlockSize), make([]block.ID, blocks)
	return c.reply(frameReply, openReply{Info: info, BatchBlocks: blocks})
}

// next hands out one batch. The store is done with it before the first byte is
// written: a slow client keeps nobody waiting.
func (c *serverConn) next(ctx context.Context) error {
	if c.session == nil {
		return fmt.Errorf("%w: no session is open", ErrProtocol)
	}
	n, err := c.session.Next(ctx, c.batch.images(len(c.ids)), c.ids)
	var fell *mvcc.FellForwardError
	switch {
	case errors.As(err, &fell):
		c.redo = redoOf(c.session)
		return c.reply(frameForward, forwardReply{LSN: fell.LSN})
	case err == io.EOF && c.redo != nil:
		end := c.session.Final()
		return c.reply(frameForward, forwardReply{End: &end})
	case err != nil && err != io.EOF:
		return err
	}
	if err := c.notice(); err != nil {
		return err
	}
	return c.write(frameData, c.batch.seal(c.ids[:n], c.session.Cost(), c.session.Total()))
}

// notice tells the client of a rate that was asked of its snapshot, if it does not
// know.
func (c *serverConn) notice() error {
	paced, ok := c.session.(pacedSession)
	if !ok {
		return nil
	}
	now := paced.Pace()
	if now == c.told {
		return nil
	}
	c.told = now
	return c.reply(frameNotice, paceMessage{BytesPerSecond: now})
}

func (c *serverConn) pace(ctx context.Context, payload []byte) error {
	var req paceMessage
	if err := decodeRequest(payload, &req); err != nil {
		return err
	}
	if err := c.s.src.Pace(ctx, req.ID, req.BytesPerSecond); err != nil {
		return err
	}
	return c.reply(frameReply, struct{}{})
}

func (c *serverConn) close() error {
	if c.log != nil {
		if err := c.log.close(); err != nil {
			return err
		}
		return c.reply(frameReply, struct{}{})
	}
	if c.session == nil {
		return fmt.Errorf("%w: no session is open", ErrProtocol)
	}
	if c.redo != nil {
		c.redo.end()
	}
	if err := c.session.Close(); err != nil {
		return err
	}
	return c.reply(frameReply, c.session.Cost())
}

func (c *serverConn) reply(k frameKind, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(payload) > controlBytesMax {
		return fmt.Errorf("reply of %d bytes is too large for a frame", len(payload))
	}
	return c.write(k, payload)
}

// write sends a frame. It waits for the client no longer than a lease, and not
// at all once the connection has ended.
func (c *serverConn) write(k frameKind, payload []byte) error {
	c.mu.Lock()
	if !c.ended {
		c.nc.SetWriteDeadline(time.Now().Add(c.s.o.Lease))
	}
	c.mu.Unlock()
	c.out = appendFrame(c.out[:0], k, payload)
	if n, err := c.nc.Write(c.out); err != nil {
		c.broken = n > 0
		return lost(err)
	}
	return nil
}

// farewell tells the client why, if it can still be told.
func (c *serverConn) farewell(err error) {
	c.s.o.Logger.Debug("admin connection ended", "reason", err)
	if c.broken || errors.Is(err, ErrDisconnected) {
		return
	}
	if errors.Is(err, ErrLeaseExpired) {
		c.s.o.Logger.Warn("admin client was silent for too long; its session was closed", "lease", c.s.o.Lease)
	}
	c.mu.Lock()
	c.ended = true
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.mu.Unlock()
	var cost *mvcc.Cost
	if c.session != nil {
		ended := c.session.Cost()
		cost = &ended
	}
	c.nc.Write(appendFrame(nil, frameError, encodeError(err, cost)))
}
