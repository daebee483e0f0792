package livebackup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// SocketName is the admin socket's name in the database's directory.
const SocketName = "admin.sock"

// ServeOptions of Serve. The zero value is good.
type ServeOptions struct {
	// Lease is how long a client may be silent before its snapshot is closed;
	// 0: 30 seconds.
	Lease time.Duration
	// MaxConns is how many clients may be connected; 0: 16.
	MaxConns int
	// BatchBytes is how much is handed out at a time; 0: 1 MiB, 4 MiB at most.
	// A backup takes twice that much memory here.
	BatchBytes int
	Dir        string       // of the socket; "": the database's
	Logger     *slog.Logger // nil: nothing is logged
	// Promote makes the standby that is served a database that can be written: it ends
	// whatever rolls it forward, closes it, calls mvcc.Promote, and says what came of it.
	// [Client.Promote] asks for it. The server is closed by its owner, as ever, after
	// Promote has returned. Nil: such requests are refused.
	Promote func(ctx context.Context) (Promoted, error)
}

// Promoted says what a standby has become.
type Promoted struct {
	Timeline string    `json:"timeline"` // the new one
	LSN      block.LSN `json:"lsn"`      // where it begins
}

func (o ServeOptions) withDefaults() (ServeOptions, error) {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = batchBytesWanted
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Lease < 10*time.Millisecond || o.Lease > 24*time.Hour:
		return o, errors.New("lease must be 10 ms to 24 h")
	case o.MaxConns < 1 || o.MaxConns > 1024:
		return o, errors.New("connections must be 1 to 1024")
	case o.BatchBytes < 1 || o.BatchBytes > batchBytesMax:
		return o, errors.New("batch bytes must be at most 4 MiB")
	}
	return o, nil
}

// Server lets other processes of the same user back up a database that this
// process has open, through a socket in the database's directory.
type Server struct {
	src  Source
	o    ServeOptions
	path string
	info os.FileInfo // of our socket
	ln   net.Listener

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	promoting sync.Mutex // held while a standby is promoted, until the answer is sent
	promoted  bool       // guarded by promoting

	closing  sync.Once
	closeErr error // of closing

	mu    sync.Mutex
	conns int // guarded by mu
}

// Serve starts to serve store on its admin socket. The caller has the store
// open, and so holds its lock: a socket that nobody answers on is a leftover
// and is replaced. Close the server before the store.
func Serve(store *mvcc.Store, o ServeOptions) (*Server, error) {
	if o.Dir == "" {
		o.Dir = store.Status().Dir
	}
	return serve(NewSource(store), o)
}

func serve(src Source, o ServeOptions) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	s := newServer(src, o)
	s.path = filepath.Join(o.Dir, SocketName)
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("serve on %s: %w", s.path, err)
	}
	s.wg.Go(s.accept)
	return s, nil
}

func newServer(src Source, o ServeOptions) *Server {
	s := &Server{src: src, o: o}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

func (s *Server) listen() error {
	if err := removeStale(s.o.Dir, s.path); err != nil {
		return err
	}
	ln, err := listenPrivate(s.o.Dir, s.path)
	if err != nil {
		return err
	}
	if s.info, err = os.Lstat(s.path); err != nil {
		ln.Close()
		return err
	}
	s.ln = ln
	return nil
}

// removeStale removes the socket of a process that died. What is no socket is
// not ours to remove.
func removeStale(dir, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return errors.New("something that is no socket has its name")
	}
	conn, err := dialSocket(dir)
	if err == nil {
		conn.Close()
		return ErrAlreadyServed
	}
	if !errors.Is(err, ErrNotServed) { // he may live, and be busy; or we have no descriptors
		return fmt.Errorf("find out who has the socket: %w", err)
	}
	return os.Remove(path)
}

// Close ends all sessions and connections with a typed error, waits until they
// have let go of the store, and removes the socket. A promotion under way ends first.
// The second call does nothing, and returns what the first one did.
func (s *Server) Close() error {
	s.closing.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

// close removes the socket while it is open: then no other has its number.
func (s *Server) close() (err error) {
	s.promoting.Lock() // who comes behind is not promoted, see promote
	s.cancel(ErrServerClosed)
	s.promoting.Unlock()
	if info, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(info, s.info) {
		err = os.Remove(s.path)
	}
	err = errors.Join(err, s.ln.Close())
	s.wg.Wait()
	return err
}

func (s *Server) accept() {
	for {
		nc, err := s.ln.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil { // out of descriptors, most likely
			s.o.Logger.Warn("accept on admin socket", "error", err)
			sleepUntil(s.ctx, time.Now().Add(100*time.Millisecond))
			continue
		}
		s.admit(nc)
	}
}

// admit starts a connection, if the peer is allowed and there is room.
func (s *Server) admit(nc net.Conn) {
	err := checkClient(nc)
	if err == nil && !s.enter() {
		err = ErrBusy
	}
	if err != nil {
		s.o.Logger.Warn("admin connection refused", "error", err)
		nc.SetDeadline(time.Now().Add(100 * time.Millisecond)) // its buffers are empty: this does not wait
		nc.Write(appendFrame(encodePreamble(protocolVersion, protocolVersion), frameError, encodeError(err, nil)))
		nc.Close()
		return
	}
	s.wg.Go(func() {
		defer s.leave()
		s.serveConn(nc)
	})
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.o.MaxConns {
		return false
	}
	s.conns++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
}
