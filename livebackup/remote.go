package livebackup

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// closeMax is how long Close waits for the server to confirm.
const closeMax = 5 * time.Second

// remoteSession is a snapshot in another process. It always has two batches
// asked for or received; a goroutine receives at once, whatever the taker
// does, and another renews the lease.
type remoteSession struct {
	conn  *clientConn
	info  mvcc.BackupInfo
	ready chan *batch   // received, in order; room for all
	idle  chan *batch   // asked for; room for all
	redo  chan []byte   // frame of redo that was asked for
	done  chan struct{} // closed when the receiver has ended
	err   error         // why; set before done is closed
	stop  context.CancelFunc
	wg    sync.WaitGroup

	// Of the taker:
	now    *batch // being used up
	at     int
	ended  bool // the last block was given
	closed bool
	final  mvcc.BackupInfo
	redone logOrder // of a session that fell forward: the redo that was handed out

	pace atomic.Int64 // see Pace

	total atomic.Uint64 // see Total

	mu   sync.Mutex
	cost mvcc.Cost // guarded by mu
}

// Pace is the rate that somebody asked of this backup, as mvcc.Backup.Pace.
func (s *remoteSession) Pace() int64 { return s.pace.Load() }

// Open opens a snapshot in the serving process.
func (c *Client) Open(ctx context.Context, o SessionOptions) (Session, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.nc.Close() })
	s, err := openRemote(conn, o)
	stop()
	if ctx.Err() != nil { // also if it ended only now: nobody else will close the session
		if err == nil {
			s.Close()
		}
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.nc.Close()
		return nil, err
	}
	return s, nil
}

func openRemote(conn *clientConn, o SessionOptions) (*remoteSession, error) {
	req, err := json.Marshal(openRequest{o, batchBytesWanted})
	if err != nil {
		return nil, err
	}
	conn.send(frameOpen, req)
	var reply openReply
	if err := conn.expect(frameReply, &reply, nil); err != nil {
		return nil, err
	}
	size := reply.Info.BlockSize
	if !block.ValidSize(size) || reply.BatchBlocks < 1 || reply.BatchBlocks > max(1, batchBytesWanted/size) {
		return nil, fmt.Errorf("%w: batch of %d blocks of %d bytes", ErrProtocol, reply.BatchBlocks, size)
	}
	return startRemote(conn, reply), nil
}

func startRemote(conn *clientConn, reply openReply) *remoteSession {
	ctx, stop := context.WithCancel(context.Background())
	s := &remoteSession{
		conn: conn, info: reply.Info, final: reply.Info, stop: stop, done: make(chan struct{}), redo: make(chan []byte, 1),
		ready: make(chan *batch, nextInFlight), idle: make(chan *batch, nextInFlight),
	}
	for range nextInFlight {
		s.idle <- newBatch(reply.BatchBlocks, reply.Info.BlockSize)
		conn.send(frameNext, nil)
	}
	s.wg.Go(func() { conn.keep(ctx) })
	s.wg.Go(func() {
		defer close(s.done)
		s.err = s.receive()
	})
	return s
}

// receive takes frames until the connection or the session ends. It returns
// nil when the server has confirmed the end of the session.
func (s *remoteSession) receive() error {
	for {
		kind, length, err := readFrameHeader(s.conn.nc)
		if err != nil {
			return s.conn.lost(err)
		}
		switch kind {
		case frameData:
			err = s.receiveBatch(length)
		case frameLog:
			err = s.receiveRedo(length)
		}
		if err != nil {
			return s.conn.lost(err)
		}
		if kind == frameData || kind == frameLog {
			continue
		}
		payload, err := readControl(s.conn.nc, length)
		if err != nil {
			return s.conn.lost(err)
		}
		switch kind {
		case frameForward:
			if err := s.receiveForward(payload); err != nil {
				return err
			}
			continue
		case frameError:
			cost, err := decodeErrorCost(payload)
			if cost != nil {
				s.setCost(*cost)
			}
			return err
		case frameNotice:
			var m paceMessage
			if err := decodeReply(payload, &m); err != nil {
				return err
			}
			s.pace.Store(m.BytesPerSecond)
			continue
		case frameReply:
			if !s.conn.closing.Load() {
				break // nobody asked for the end
			}
			var cost mvcc.Cost
			err := decodeReply(payload, &cost)
			s.setCost(cost)
			return err
		}
		return fmt.Errorf("%w: frame %d in a session", ErrProtocol, kind)
	}
}

func (s *remoteSession) receiveBatch(length uint32) error {
	select {
	case b := <-s.idle:
		if err := b.read(s.conn.nc, length); err != nil {
			return err
		}
		s.setCost(b.cost)
		s.total.Store(b.total)
		s.ready <- b
		return nil
	default:
		return fmt.Errorf("%w: data that nobody asked for", ErrProtocol)
	}
}

// receiveForward takes what comes in the place of blocks.
func (s *remoteSession) receiveForward(payload []byte) error {
	f := new(forwardReply)
	if err := decodeReply(payload, f); err != nil {
		return err
	}
	select {
	case b := <-s.idle:
		b.n, b.forward = 0, f
		s.ready <- b
		return nil
	default:
		return fmt.Errorf("%w: data that nobody asked for", ErrProtocol)
	}
}

func (s *remoteSession) receiveRedo(length uint32) error {
	payload, err := readPayload(s.conn.nc, length, logFrameMax, nil)
	if err != nil {
		return err
	}
	select {
	case s.redo <- payload:
		return nil
	default:
		return fmt.Errorf("%w: redo that nobody asked for", ErrProtocol)
	}
}

// Info says what the blocks are of.
func (s *remoteSession) Info() mvcc.BackupInfo { return s.info }

// Final is what the server said with the last block.
func (s *remoteSession) Final() mvcc.BackupInfo { return s.final }

// Redo asks for one frame at a time. Order and wholeness of commits are proven.
func (s *remoteSession) Redo(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
	if s.ended && s.redone.last >= s.final.LSN {
		return s.redone.last, io.EOF
	}
	for {
		payload, err := s.askRedo(ctx, bytesMax)
		if err != nil {
			return s.redone.last, err
		}
		if end, err := s.redone.hand(payload, fn); end || err != nil {
			return s.redone.last, err
		}
	}
}

// askRedo asks for a frame of redo.
func (s *remoteSession) askRedo(ctx context.Context, bytesMax int64) ([]byte, error) {
	asked, err := encodeRequest(logNextRequest{bytesMax})
	if err != nil {
		return nil, err
	}
	s.conn.send(frameRedo, asked)
	select {
	case payload := <-s.redo:
		return payload, nil
	case <-s.done:
		select { // what was received counts, also after the end
		case payload := <-s.redo:
			return payload, nil
		default:
		}
		return nil, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Next copies blocks out of the batches received.
func (s *remoteSession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if s.closed {
		return 0, ErrSessionClosed
	}
	if s.ended {
		return 0, io.EOF
	}
	if err := s.turn(ctx); err != nil {
		return 0, err
	}
	b, size := s.now, s.info.BlockSize
	if f := b.forward; f != nil {
		b.forward = nil
		return 0, s.forward(f)
	}
	if b.n == 0 {
		s.ended = true
		return 0, io.EOF
	}
	n := min(b.n-s.at, len(ids), len(buf)/size)
	if n < 1 {
		return 0, io.ErrShortBuffer
	}
	copy(buf[:n*size], b.images(b.n)[s.at*size:])
	for i := range n {
		ids[i] = b.id(s.at + i)
	}
	s.at += n
	return n, nil
}

// forward takes what came in the place of blocks.
func (s *remoteSession) forward(f *forwardReply) error {
	if f.End == nil {
		s.redone.last = f.LSN
		return &mvcc.FellForwardError{LSN: f.LSN}
	}
	s.ended, s.final = true, *f.End
	return io.EOF
}

// turn gets the next batch if the one in use is used up, for which another is
// asked for.
func (s *remoteSession) turn(ctx context.Context) error {
	if s.now != nil && s.at < s.now.n {
		return context.Cause(ctx)
	}
	if used := s.now; used != nil {
		s.now = nil
		s.idle <- used // before it is asked for: the reply may be quick
		s.conn.send(frameNext, nil)
	}
	select { // what was received counts, also after the end
	case s.now = <-s.ready:
		s.at = 0
		return nil
	default:
	}
	select {
	case s.now = <-s.ready:
		s.at = 0
		return nil
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *remoteSession) setCost(c mvcc.Cost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cost = c
}

// Total is as of the last batch received.
func (s *remoteSession) Total() uint64 { return s.total.Load() }

// Cost is as of the last batch received.
func (s *remoteSession) Cost() mvcc.Cost {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cost
}

// Close returns when the server has let the snapshot go, or is not there to
// say so: then it has done so, or will at the end of the lease.
func (s *remoteSession) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.conn.hurry()
	s.conn.send(frameClose, nil)
	s.conn.nc.SetReadDeadline(time.Now().Add(closeMax))
	<-s.done
	s.stop()
	s.conn.nc.Close()
	s.wg.Wait()
	return s.err
}
