package livebackup

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
)

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
}

func TestSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	served(t, newFake(1, 5, 4<<10), ServeOptions{Dir: dir})
	info, err := os.Lstat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestNotServed(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(dir); !errors.Is(err, ErrNotServed) {
		t.Fatal(err)
	}
	server, err := serve(newFake(1, 5, 4<<10), ServeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serve(newFake(1, 5, 4<<10), ServeOptions{Dir: dir}); !errors.Is(err, ErrAlreadyServed) {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("socket was left: %v", err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNotServed) {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close() // as if the process had died
	if _, err := Dial(dir); !errors.Is(err, ErrNotServed) {
		t.Fatal(err)
	}
	served(t, newFake(1, 5, 4<<10), ServeOptions{Dir: dir})
}

func TestOnlySocketsAreReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := serve(newFake(1, 5, 4<<10), ServeOptions{Dir: dir}); err == nil {
		t.Fatal("no error")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestTooManyConnections(t *testing.T) {
	dir := t.TempDir()
	client := served(t, newFake(1, 5, 4<<10), ServeOptions{Dir: dir, MaxConns: 1})
	s := openSession(t, client)
	defer s.Close()
	if _, err := Dial(dir); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
}

// openSession opens a session where the connection of Dial may still hold the
// only place.
func openSession(t *testing.T, src Source) Session {
	t.Helper()
	for {
		s, err := src.Open(t.Context(), SessionOptions{})
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// A client that is killed takes its snapshot with it at once, on a real socket
// and, to the moment, on a clock that is not real.
func TestDeadClientEndsItsSnapshot(t *testing.T) {
	fake := newFake(1, 50, 4<<10)
	fake.closed = make(chan struct{}, 1)
	s, err := served(t, fake, ServeOptions{Lease: time.Hour}).Open(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.(*remoteSession).conn.nc.Close() // what the system does for a process that dies
	<-fake.closed
	s.Close()

	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 50, 4<<10)
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		s, err := openRemote(conn, SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // all is quiet: the server has nothing to answer
		began := time.Now()
		conn.nc.Close()
		synctest.Wait()
		if fake.openSessions() != 0 || time.Since(began) != 0 {
			t.Fatal("snapshot is still open")
		}
		s.Close()
	})
}

// R21: closing the server ends sessions with a typed error.
func TestR21_ServerCloseEndsSessions(t *testing.T) {
	fake := newFake(1, 50, 4<<10)
	fake.batch = 1
	dir := t.TempDir()
	server, err := serve(fake, ServeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Open(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if fake.openSessions() != 0 {
		t.Fatal("the store's session outlived the server")
	}
	for err = nil; err == nil; {
		_, err = s.Next(t.Context(), make([]byte, 4096), make([]block.ID, 1))
	}
	if !errors.Is(err, ErrServerClosed) {
		t.Fatal(err)
	}
}

// piped connects a client to a server without a socket, for tests whose clock
// is not real.
func piped(t *testing.T, fake *fakeSource, o ServeOptions) (*Server, *clientConn) {
	t.Helper()
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(fake, o)
	ours, theirs := net.Pipe()
	s.wg.Go(func() { s.serveConn(theirs) })
	conn, err := greet(ours)
	if err != nil {
		t.Fatal(err)
	}
	return s, conn
}

func endPiped(s *Server) {
	s.cancel(ErrServerClosed)
	s.wg.Wait()
}

// A client that stops without dying loses its snapshot when its lease is over,
// to the second.
func TestLeaseExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 50, 4<<10)
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		req := []byte(`{"owner":"","label":"","batch_bytes":4096}`)
		conn.send(frameOpen, req)
		var reply openReply
		if err := conn.expect(frameReply, &reply, nil); err != nil {
			t.Fatal(err)
		}
		// The pipe has no buffers: read, as the kernel would for a stopped process.
		ended := make(chan error, 1)
		go func() { ended <- conn.expect(frameReply, &reply, nil) }()
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		if fake.openSessions() != 1 {
			t.Fatal("lease ended too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if fake.openSessions() != 0 {
			t.Fatal("lease did not end")
		}
		if err := <-ended; !errors.Is(err, ErrLeaseExpired) {
			t.Fatal(err)
		}
		conn.nc.Close()
	})
}

// A client that reads nothing of what it asked for is no better than a dead one.
func TestStalledReaderLosesItsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 50, 4<<10)
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		conn.send(frameOpen, []byte(`{"owner":"","label":"","batch_bytes":4096}`))
		var reply openReply
		if err := conn.expect(frameReply, &reply, nil); err != nil {
			t.Fatal(err)
		}
		conn.send(frameNext, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { conn.keep(ctx); close(done) }() // alive, but does not read
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if fake.openSessions() != 0 {
			t.Fatal("snapshot is still open")
		}
		conn.nc.Close()
		cancel()
		<-done
	})
}

// A session that nobody pulls from for days is kept by its renewals: how slow
// the sink is, is not the lease's business.
func TestSlowSinkKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 50, 4<<10)
		server, conn := piped(t, fake, ServeOptions{BatchBytes: 4096})
		defer endPiped(server)
		s, err := openRemote(conn, SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		buf, ids, n := make([]byte, 4096), make([]block.ID, 1), 0
		for ; ; n++ {
			time.Sleep(time.Hour)
			if _, err := s.Next(t.Context(), buf, ids); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n != 50 {
			t.Fatalf("%d blocks", n)
		}
		if err := s.Close(); err != nil || fake.openSessions() != 0 {
			t.Fatal(err)
		}
	})
}

// A frame that dribbles in does not renew the lease.
func TestSlowLorisLosesItsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 50, 4<<10)
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		conn.send(frameOpen, []byte(`{"owner":"","label":"","batch_bytes":4096}`))
		var reply openReply
		if err := conn.expect(frameReply, &reply, nil); err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, conn.nc)
		frame := appendFrame(nil, frameRenew, nil)
		for _, b := range frame[:7] {
			time.Sleep(5 * time.Second)
			conn.nc.Write([]byte{b})
		}
		synctest.Wait()
		if fake.openSessions() != 0 {
			t.Fatal("snapshot is still open")
		}
		conn.nc.Close()
	})
}

func TestProtocolViolationsEndTheConnection(t *testing.T) {
	cases := map[string][]byte{
		"unknown kind":        appendFrame(nil, 77, nil),
		"next without open":   appendFrame(nil, frameNext, nil),
		"close without open":  appendFrame(nil, frameClose, nil),
		"payload of status":   appendFrame(nil, frameStatus, []byte("x")),
		"reserved bytes":      {0, 0, 0, 0, 1, 1, 0, 0},
		"frame too large":     {0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0},
		"open is no JSON":     appendFrame(nil, frameOpen, []byte("{")),
		"open unknown field":  appendFrame(nil, frameOpen, []byte(`{"batch_bytes":1,"path":"/etc"}`)),
		"open without a room": appendFrame(nil, frameOpen, []byte(`{}`)),
	}
	for name, frame := range cases {
		t.Run(name, func(t *testing.T) {
			fake := newFake(1, 5, 4<<10)
			server, conn := piped(t, fake, ServeOptions{})
			defer endPiped(server)
			if _, err := conn.nc.Write(frame); err != nil {
				t.Fatal(err)
			}
			if err := conn.expect(frameReply, nil, nil); !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			conn.nc.Close()
		})
	}
}

func TestVersionMismatchIsTold(t *testing.T) {
	s := newServer(newFake(1, 5, 4<<10), ServeOptions{Lease: time.Second, Logger: slog.New(slog.DiscardHandler)})
	ours, theirs := net.Pipe()
	s.wg.Go(func() { s.serveConn(theirs) })
	go ours.Write(encodePreamble(2, 9))
	if lowest, highest, err := readPreamble(ours); err != nil || lowest != 1 || highest != 1 {
		t.Fatalf("%d, %d, %v", lowest, highest, err)
	}
	endPiped(s)

	ours, theirs = net.Pipe()
	go func() {
		readPreamble(theirs)
		theirs.Write(encodePreamble(7, 8))
		theirs.Close()
	}()
	if _, err := greet(ours); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
	ours.Close()
}
