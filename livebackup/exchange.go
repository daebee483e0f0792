package livebackup

import (
	"context"
	"fmt"
	"sync"
)

// frame is a frame from the server.
type frame struct {
	kind    frameKind
	payload []byte
}

// exchange asks a server that it stays connected with, one question at a time. A
// goroutine receives, so that the end of the connection is seen at once, and that
// a question can be given up; another renews the lease. Not safe for
// concurrent use.
type exchange struct {
	conn    *clientConn
	replies chan frame    // in order; room for all
	idle    chan []byte   // the buffer of a frame of log, when nobody uses it
	done    chan struct{} // closed when the receiver has ended
	err     error         // why; set before done is closed
	stop    context.CancelFunc
	wg      sync.WaitGroup

	owed   int // replies to questions that were given up
	closed bool
}

func startExchange(conn *clientConn) *exchange {
	ctx, stop := context.WithCancel(context.Background())
	x := &exchange{
		conn: conn, stop: stop, done: make(chan struct{}),
		replies: make(chan frame, pipelineMax), idle: make(chan []byte, 1),
	}
	x.wg.Go(func() { conn.keep(ctx) })
	x.wg.Go(func() {
		defer close(x.done)
		x.err = x.receive()
	})
	return x
}

// receive takes frames until the connection ends, and says why it did.
func (x *exchange) receive() error {
	for {
		kind, length, err := readFrameHeader(x.conn.nc)
		if err != nil {
			return x.conn.lost(err)
		}
		var payload []byte
		if kind == frameLog {
			payload, err = x.readLog(length)
		} else {
			payload, err = readControl(x.conn.nc, length)
		}
		if err != nil {
			return x.conn.lost(err)
		}
		if kind == frameError {
			return decodeError(payload)
		}
		select {
		case x.replies <- frame{kind, payload}:
		default:
			return fmt.Errorf("%w: frame %d that nobody asked for", ErrProtocol, kind)
		}
	}
}

// readLog reads the payload of a frame of log, into the buffer of the one before
// if that is free.
func (x *exchange) readLog(length uint32) ([]byte, error) {
	var buf []byte
	select {
	case buf = <-x.idle:
	default:
	}
	return readPayload(x.conn.nc, length, logFrameMax, buf)
}

// free gives the buffer of a frame of log back.
func (x *exchange) free(f frame) {
	select {
	case x.idle <- f.payload:
	default:
	}
}

// ask sends a request and returns the reply, which is of kind want. When ctx ends
// before it comes, it is skipped later.
func (x *exchange) ask(ctx context.Context, k frameKind, asked any, want frameKind) (frame, error) {
	payload, err := encodeRequest(asked)
	if err != nil {
		return frame{}, err
	}
	for x.owed >= nextInFlight { // else the server might take offence
		if _, err := x.reply(ctx); err != nil {
			return frame{}, err
		}
	}
	x.conn.send(k, payload)
	x.owed++
	for {
		f, err := x.reply(ctx)
		if err != nil {
			return f, err
		}
		if x.owed > 0 {
			continue
		}
		if f.kind != want {
			return f, fmt.Errorf("%w: frame %d where %d was due", ErrProtocol, f.kind, want)
		}
		return f, nil
	}
}

// call asks for a reply in JSON.
func (x *exchange) call(ctx context.Context, k frameKind, asked, v any) error {
	f, err := x.ask(ctx, k, asked, frameReply)
	if err != nil {
		return err
	}
	return decodeReply(f.payload, v)
}

// reply is the next one that is owed.
func (x *exchange) reply(ctx context.Context) (frame, error) {
	select { // what was received counts, also after the end
	case f := <-x.replies:
		x.owed--
		return f, nil
	default:
	}
	select {
	case f := <-x.replies:
		x.owed--
		return f, nil
	case <-x.done:
		return frame{}, x.err
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	}
}

// close ends the connection, after a last question that says that this is the end.
// k 0: none.
func (x *exchange) close(k frameKind) error {
	if x.closed {
		return nil
	}
	x.closed = true
	x.conn.hurry()
	var err error
	if k != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeMax)
		err = x.call(ctx, k, nil, &struct{}{})
		cancel()
	}
	x.stop()
	x.conn.nc.Close()
	x.wg.Wait()
	return err
}
