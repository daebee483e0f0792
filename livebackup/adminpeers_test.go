package livebackup

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// A server that confirms the end of a session that nobody ended breaks the protocol: the
// taker is told so, and goes no further.
func TestClient_EndThatNobodyAskedFor(t *testing.T) {
	ours, theirs := net.Pipe()
	input := appendFrame(encodePreamble(1, 1), frameWelcome, []byte(`{"lease_ms":60000}`))
	input = appendFrame(input, frameReply, []byte(`{"info":{"BlockSize":4096,"Blocks":1},"batch_blocks":1}`))
	input = appendFrame(input, frameReply, []byte(`{}`))
	go theirs.Write(input)
	go func() {
		var b [512]byte
		for err := error(nil); err == nil; {
			_, err = theirs.Read(b[:])
		}
	}()
	conn, err := greet(ours)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openRemote(conn, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Next(t.Context(), make([]byte, 4096), make([]block.ID, 1)); n != 0 || !errors.Is(err, ErrProtocol) {
		t.Fatalf("%d blocks, %v", n, err)
	}
	if _, err := s.Redo(t.Context(), 1, nil); !errors.Is(err, ErrProtocol) {
		t.Fatal(err)
	}
	s.Close()
	theirs.Close()
}

// A serving process that stands still, so that it does not even read, is given up after
// its lease, however short that is, by a single request, by a session and by who follows.
func TestClient_GivesUpAServerThatStandsStill(t *testing.T) {
	for _, lease := range []time.Duration{10 * time.Millisecond, time.Second, time.Minute} {
		uses := map[string]func(t *testing.T, conn *clientConn) error{
			"request": func(t *testing.T, conn *clientConn) error {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { conn.keep(ctx); close(done) }()
				conn.send(frameStatus, nil)
				err := conn.expect(frameReply, &statusReply{}, nil)
				cancel()
				conn.nc.Close()
				<-done
				return err
			},
			"session": func(t *testing.T, conn *clientConn) error {
				s := startRemote(conn, openReply{Info: mvcc.BackupInfo{BlockSize: 4096}, BatchBlocks: 1})
				_, err := s.Next(t.Context(), make([]byte, 4096), make([]block.ID, 1))
				return errors.Join(err, s.Close())
			},
			"follower": func(t *testing.T, conn *clientConn) error {
				x := startExchange(conn)
				err := x.call(t.Context(), frameLogOpen, logOpenRequest{"n", 0}, &logOpenReply{})
				return errors.Join(err, x.close(frameClose))
			},
		}
		for name, use := range uses {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ours, theirs := net.Pipe()
					defer theirs.Close()
					conn := newClientConn(ours, lease)
					ended := make(chan error)
					go func() { ended <- use(t, conn) }()
					select {
					case err := <-ended:
						if !errors.Is(err, ErrDisconnected) {
							t.Error(err)
						}
					case <-time.After(2*lease + 2*closeMax):
						t.Errorf("lease %v: still waiting", lease)
						theirs.Close()
						ours.Close()
						<-ended
					}
				})
			})
		}
	}
}

// Closing a server once more does nothing; and it removes no socket but its own, though a
// file system may give the next one the same number.
func TestServer_ClosedTwice(t *testing.T) {
	dir := t.TempDir()
	first, err := serve(newFake(1, 5, 4<<10), ServeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	served(t, newFake(1, 5, 4<<10), ServeOptions{Dir: dir})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(dir); err != nil {
		t.Fatal(err)
	}
}

// A server that goes while another one comes leaves it its socket: its own is gone by
// then, while no other could have the number.
func TestServer_ClosesBesideTheNextOne(t *testing.T) {
	dir := t.TempDir()
	o, err := ServeOptions{Dir: dir}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	first := newServer(newFake(1, 5, 4<<10), o)
	first.path = filepath.Join(dir, SocketName)
	if err := first.listen(); err != nil {
		t.Fatal(err)
	}
	first.ln = &closeHook{first.ln, func() {
		if _, err := os.Lstat(first.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket is there when it is closed: %v", err)
		}
	}, func() { served(t, newFake(1, 5, 4<<10), ServeOptions{Dir: dir}) }}
	first.wg.Go(first.accept)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(dir); err != nil {
		t.Fatal(err)
	}
}

// closeHook is a listener before and behind whose closing something happens.
type closeHook struct {
	net.Listener
	before, behind func()
}

func (l *closeHook) Close() error {
	l.before()
	err := l.Listener.Close()
	l.behind()
	return err
}

// A check whose client does not read how far it is ends: nobody will hear of it, and it
// holds a snapshot.
func TestServer_CheckThatNobodyHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(1, 5, 4<<10)
		ended := make(chan struct{})
		fake.check = func(ctx context.Context, progress func(done, total uint64)) (res mvcc.CheckResult, err error) {
			defer close(ended)
			for n := uint64(0); ctx.Err() == nil; n++ { // a large database
				progress(n, 1<<40)
				sleepUntil(ctx, time.Now().Add(time.Second))
			}
			return res, context.Cause(ctx)
		}
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		conn.send(frameCheck, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { conn.keep(ctx); close(done) }() // alive, but does not read
		select {
		case <-ended:
		case <-time.After(time.Hour):
			t.Error("it goes on")
		}
		conn.nc.Close()
		cancel()
		<-done
	})
}

// What goes wrong is told whatever its text is: a frame has room for it.
func TestServer_AnyErrorFitsAFrame(t *testing.T) {
	long := strings.Repeat("<\xff", 4<<10)
	cost := &mvcc.Cost{}
	for range 64 {
		cost.Crossings = append(cost.Crossings, mvcc.Crossing{Time: time.Now(), Level: "temporary storage", Was: "high", State: "critical"})
	}
	for _, err := range []error{
		errors.New(long),
		&block.CorruptError{Path: long, Reason: long, Block: 7},
	} {
		if n := len(encodeError(err, cost)); n > controlBytesMax {
			t.Errorf("%T has %d bytes", err, n)
		}
	}
}

// statusHook is a standby that is asked how it is, and something happens.
type statusHook struct {
	*fakeSource
	asked func()
}

func (s statusHook) Status(context.Context) (mvcc.Status, error) {
	s.asked()
	return mvcc.Status{Mode: "standby"}, nil
}

// L14: of two that ask at once for the promotion of a standby one does it, and the other
// learns that it is none any more.
func TestL14_PromoteByTwoAtOnce(t *testing.T) {
	asked, promotions := make(chan struct{}, 2), 0
	src := statusHook{newFake(1, 5, 4<<10), func() { asked <- struct{}{} }}
	client := served(t, src, ServeOptions{Promote: func(context.Context) (Promoted, error) {
		for range 2 { // the other one saw a standby, too
			<-asked
		}
		promotions++
		asked <- struct{}{} // of a promotion that is not to be
		asked <- struct{}{}
		return Promoted{Timeline: "t"}, nil
	}})
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := client.Promote(t.Context()); errs <- err }()
	}
	first, second := <-errs, <-errs
	if first != nil {
		first, second = second, first
	}
	if first != nil || !errors.Is(second, mvcc.ErrNotStandby) || promotions != 1 {
		t.Fatalf("%v, %v, %d promotions", first, second, promotions)
	}
}

// R21: who asks for a promotion when the server has begun to close is refused: a
// promotion that he is told has failed must not be one.
func TestR21_NoPromotionByAServerThatCloses(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	src := statusHook{newFake(1, 5, 4<<10), func() { close(asked); <-answer }}
	dir, promoted := t.TempDir(), false
	server, err := serve(src, ServeOptions{Dir: dir, Promote: func(context.Context) (Promoted, error) {
		promoted = true
		return Promoted{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	told, closed := make(chan error), make(chan error)
	go func() { _, err := client.Promote(t.Context()); told <- err }()
	<-asked
	go func() { closed <- server.Close() }()
	<-server.ctx.Done()
	close(answer)
	if err := <-told; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
	if err := <-closed; err != nil || promoted {
		t.Fatalf("promoted: %v, %v", promoted, err)
	}
}
