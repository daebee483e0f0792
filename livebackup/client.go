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
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Client is a database that another process holds open and serves. It holds
// nothing open: each operation connects. Safe for concurrent use.
type Client struct{ dir string }

// Dial makes sure that the database in directory dbDir is served, and returns
// it as a Source. Where nobody answers, the error is ErrNotServed.
func Dial(dbDir string) (*Client, error) {
	c := &Client{dir: dbDir}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	conn.nc.Close()
	return c, nil
}

// connect opens a connection and greets.
func (c *Client) connect() (*clientConn, error) {
	nc, err := dialSocket(c.dir)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", c.dir, err)
	}
	if err = checkServer(nc, c.dir); err == nil {
		var conn *clientConn
		if conn, err = greet(nc); err == nil {
			return conn, nil
		}
	}
	nc.Close()
	return nil, fmt.Errorf("database %s: admin socket: %w", c.dir, err)
}

// notServed tells "nobody is there" from what may pass.
func notServed(err error) error {
	if errors.Is(err, os.ErrNotExist) || nobodyListens(err) {
		return fmt.Errorf("%w (%w)", ErrNotServed, err)
	}
	return err
}

// clientConn is a connection that was greeted.
type clientConn struct {
	nc    net.Conn
	lease time.Duration

	closing atomic.Bool   // see hurry
	turn    chan struct{} // holds one while somebody writes a frame
	mute    bool          // a frame was not written, or half; of who has the turn
}

func newClientConn(nc net.Conn, lease time.Duration) *clientConn {
	return &clientConn{nc: nc, lease: lease, turn: make(chan struct{}, 1)}
}

func greet(nc net.Conn) (*clientConn, error) {
	c := newClientConn(nc, 0)
	nc.SetDeadline(time.Now().Add(handshakeMax))
	// One who refuses us may have closed already: what he said can still be read.
	_, writeErr := nc.Write(encodePreamble(protocolVersion, protocolVersion))
	lowest, highest, err := readPreamble(nc)
	if err != nil {
		return nil, errors.Join(c.lost(err), writeErr)
	}
	if lowest > protocolVersion || highest < protocolVersion {
		return nil, fmt.Errorf("%w: the serving process speaks protocol versions %d to %d, this program %d", ErrVersion, lowest, highest, protocolVersion)
	}
	var w welcome
	if err := c.expect(frameWelcome, &w, nil); err != nil {
		return nil, err
	}
	c.lease = time.Duration(w.LeaseMillis) * time.Millisecond
	if w.LeaseMillis < 1 || c.lease <= 0 {
		return nil, fmt.Errorf("%w: lease of %d ms", ErrProtocol, w.LeaseMillis)
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

// send sends a frame, which also renews the lease. It has no error: what the
// server said before it closed can still be read, and tells more. So a failure
// only sees to it that whoever reads does not wait for long.
func (c *clientConn) send(k frameKind, payload []byte) {
	c.turn <- struct{}{}
	c.write(k, payload)
}

// renew renews the lease, unless a frame is just being written: that does it, too.
func (c *clientConn) renew() {
	select {
	case c.turn <- struct{}{}:
		c.write(frameRenew, nil)
	default:
	}
}

// write writes a frame and gives the turn back. Behind one that failed nothing more is
// written: it may have gone in half, and who reads waits from the first failure on.
func (c *clientConn) write(k frameKind, payload []byte) {
	defer func() { <-c.turn }()
	if c.mute {
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.lease))
	if c.closing.Load() {
		c.nc.SetWriteDeadline(time.Now().Add(min(c.lease, closeMax)))
	}
	if _, err := c.nc.Write(appendFrame(nil, k, payload)); err != nil {
		c.mute = true
		c.nc.SetReadDeadline(time.Now().Add(closeMax))
	}
}

// hurry is for who is about to say goodbye: what is being written and what follows waits
// no longer than that.
func (c *clientConn) hurry() {
	c.closing.Store(true)
	c.nc.SetWriteDeadline(time.Now().Add(closeMax))
}

// renewMax is how long a client waits at most before it renews its lease: so it
// hears soon of what was asked of it.
const renewMax = time.Second

// keep renews the lease until the connection ends.
func (c *clientConn) keep(ctx context.Context) {
	tick := time.NewTicker(min(max(c.lease/3, time.Millisecond), renewMax))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.renew()
		case <-ctx.Done():
			return
		}
	}
}

// expect reads frames until one of kind k, whose payload goes to v. Progress
// frames on the way go to progress.
func (c *clientConn) expect(k frameKind, v any, progress func(done, total uint64)) error {
	for {
		kind, length, err := readFrameHeader(c.nc)
		if err != nil {
			return c.lost(err)
		}
		payload, err := readControl(c.nc, length)
		if err != nil {
			return c.lost(err)
		}
		switch {
		case kind == k:
			return decodeReply(payload, v)
		case kind == frameError:
			return decodeError(payload)
		case kind == frameProgress && progress != nil:
			var p checkProgress
			if err := decodeReply(payload, &p); err != nil {
				return err
			}
			progress(p.Done, p.Total)
		default:
			return fmt.Errorf("%w: frame %d where %d was due", ErrProtocol, kind, k)
		}
	}
}

// encodeRequest is the payload of a request.
func encodeRequest(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

func decodeReply(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: reply does not decode: %w", ErrProtocol, err)
	}
	return nil
}

// lost explains the end of a connection that gave no reason itself.
func (c *clientConn) lost(err error) error {
	if errors.Is(err, ErrProtocol) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the serving process closed it or ended")
	}
	return fmt.Errorf("%w: %w", ErrDisconnected, err)
}

// call does one request on a connection of its own: its payload is the JSON of
// what is asked, unless that is nil.
func (c *Client) call(ctx context.Context, k frameKind, asked, v any, progress func(done, total uint64)) error {
	payload, err := encodeRequest(asked)
	if err != nil {
		return err
	}
	return c.send(ctx, k, payload, v, progress)
}

// send is call with the payload as it goes over the socket.
func (c *Client) send(ctx context.Context, k frameKind, payload []byte, v any, progress func(done, total uint64)) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	keeping, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.nc.Close()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.nc.Close() })
	defer stop()
	wg.Go(func() { conn.keep(keeping) })
	conn.send(k, payload)
	err = conn.expect(frameReply, v, progress)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Status is the status of the database in the serving process. Of very many
// snapshots only the oldest are there.
func (c *Client) Status(ctx context.Context) (mvcc.Status, error) {
	var reply statusReply
	if err := c.call(ctx, frameStatus, nil, &reply, nil); err != nil {
		return mvcc.Status{}, fmt.Errorf("status: %w", err)
	}
	return reply.Status, nil
}

// Release ends a snapshot in the serving process.
func (c *Client) Release(ctx context.Context, id uint64) error {
	if err := c.call(ctx, frameRelease, releaseRequest{id}, &struct{}{}, nil); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// Events are those of the database in the serving process.
func (c *Client) Events(ctx context.Context, after uint64) ([]mvcc.Event, error) {
	var reply eventsReply
	if err := c.call(ctx, frameEvents, eventsRequest{after}, &reply, nil); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return reply.Events, nil
}

// Check runs in the serving process. It ends there when ctx does.
func (c *Client) Check(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error) {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	var res mvcc.CheckResult
	if err := c.call(ctx, frameCheck, nil, &res, progress); err != nil {
		return mvcc.CheckResult{}, fmt.Errorf("check: %w", err)
	}
	return res, nil
}

// Mark makes a commit with a name in the serving process.
func (c *Client) Mark(ctx context.Context, name string) (block.LSN, error) {
	if err := checkMarkName(name); err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	var reply lsnMessage
	if err := c.call(ctx, frameMark, markRequest{Name: name}, &reply, nil); err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	return reply.LSN, nil
}

// Pace asks the serving process, which tells who takes the backup.
func (c *Client) Pace(ctx context.Context, id uint64, bytesPerSecond int64) error {
	if err := c.call(ctx, framePace, paceMessage{id, bytesPerSecond}, &struct{}{}, nil); err != nil {
		return fmt.Errorf("pace: %w", err)
	}
	return nil
}

// CheckHead asks the serving process.
func (c *Client) CheckHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error {
	return c.call(ctx, frameHead, headRequest{hexID(repo), h.LSN, h.Sum}, &struct{}{}, nil)
}

// RememberHead returns when the serving process has made it durable.
func (c *Client) RememberHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error {
	return c.call(ctx, frameRemember, headRequest{hexID(repo), h.LSN, h.Sum}, &struct{}{}, nil)
}
