package livebackup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/mvcc"
)

// forLogs runs a test on a source with a log, and on the same over a socket.
func forLogs(t *testing.T, h func() *fakeHistory, test func(t *testing.T, fake *fakeSource, src Source)) {
	for name, reach := range map[string]func(t *testing.T, fake *fakeSource) Source{"itself": sources["itself"], "socket": sources["socket"]} {
		t.Run(name, func(t *testing.T) {
			fake := newLogSource(h())
			test(t, fake, reach(t, fake))
			if n, q := fake.log.open(), fake.log.quiet(); n != 0 || q != 0 {
				t.Errorf("%d logs and %d quiets left open", n, q)
			}
		})
	}
}

func mustOpenLog(t testing.TB, src Source, after block.LSN) LogSession {
	t.Helper()
	s, err := src.OpenLog(t.Context(), LogOptions{Name: "test", After: after})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// R6, R15: a log that is followed hands out the durable commits, whole and in order,
// whatever their size, and goes on where it stopped.
func TestR6_LogIsFollowed(t *testing.T) {
	history := func() *fakeHistory {
		h := newFakeHistory(1).grow(300)
		h.commit(5, 1<<20-64, "") // each record fills a frame
		return h.grow(5)
	}
	forLogs(t, history, func(t *testing.T, fake *fakeSource, src Source) {
		h := fake.log.h
		s := mustOpenLog(t, src, 7)
		defer s.Close()
		if i := s.Info(); i.Database != fakeDatabase || i.Timeline != fakeTimeline || i.Durable != h.newest() {
			t.Fatalf("%+v", i)
		}
		var got recordText
		for lsn := block.LSN(7); lsn < h.newest(); {
			before, size := lsn, 0
			var err error
			lsn, err = s.Read(t.Context(), 20_000, func(r mvcc.LogRecord) error {
				size += len(r.Body)
				return got.see(r)
			})
			if err != nil || lsn <= before {
				t.Fatalf("read up to %v: %v", lsn, err)
			}
			if last := h.commits[lsn-1].records; size-sizeOf(last) >= 20_000 {
				t.Fatalf("%d bytes at once", size)
			}
		}
		fake.log.commit(func(h *fakeHistory) { h.grow(3) })
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lsn, err := s.Read(t.Context(), 1<<30, got.see); err != nil || lsn != h.newest() {
			t.Fatal(lsn, err)
		}
		if got.String() != h.text(LogRange{7, h.newest()}) {
			t.Fatal("what was handed out is not the log")
		}
		if lsn, err := s.Read(t.Context(), 1<<30, got.see); err != nil || lsn != h.newest() {
			t.Fatal("nothing is left:", lsn, err)
		}
	})
}

func sizeOf(records [][]byte) (n int) {
	for _, r := range records {
		n += len(r)
	}
	return n
}

// A wait that is given up takes nothing with it.
func TestLogWaitIsGivenUp(t *testing.T) {
	forLogs(t, func() *fakeHistory { return newFakeHistory(2).grow(10) }, func(t *testing.T, fake *fakeSource, src Source) {
		s := mustOpenLog(t, src, 10)
		defer s.Close()
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			waited := make(chan error)
			go func() { waited <- s.Wait(ctx) }()
			cancel()
			if err := <-waited; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if lsn, err := s.Read(t.Context(), 1<<20, nil); err != nil || lsn != 10 {
				t.Fatal(lsn, err)
			}
		}
		fake.log.commit(func(h *fakeHistory) { h.grow(1) })
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got recordText
		if _, err := s.Read(t.Context(), 1<<20, got.see); err != nil || got.String() != fake.log.h.text(LogRange{10, 11}) {
			t.Fatal(err)
		}
	})
}

// A wait that is given up is over at once, also for the server.
func TestLogWaitIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, conn := piped(t, newLogSource(newFakeHistory(2).grow(3)), ServeOptions{})
		defer endPiped(server)
		x := startExchange(conn)
		s := &remoteLog{x: x, read: logOrder{last: 3}}
		defer s.Close()
		if err := x.call(t.Context(), frameLogOpen, logOpenRequest{"n", 3}, &logOpenReply{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := s.Read(t.Context(), 1<<20, nil); err != nil || time.Since(began) != time.Second {
			t.Fatalf("%v, after %v", err, time.Since(began))
		}
	})
}

// What is asked while a reading stands still is answered, and the reading goes on.
func TestLogQuestionsWithinAReading(t *testing.T) {
	history := func() *fakeHistory {
		h := newFakeHistory(3)
		for range 6 {
			h.commit(2, 700_000, "")
		}
		return h
	}
	forLogs(t, history, func(t *testing.T, fake *fakeSource, src Source) {
		s := mustOpenLog(t, src, 0)
		defer s.Close()
		var got recordText
		if _, err := s.Read(t.Context(), 1<<30, func(r mvcc.LogRecord) error {
			text := checksum(r.Body)
			if sum, err := s.Sum(t.Context(), r.LSN); err != nil || sum != fake.log.h.sum(r.LSN) {
				t.Fatal(sum, err)
			}
			if err := s.Done(t.Context(), r.LSN-1); err != nil || fake.log.held() != r.LSN {
				t.Fatal(fake.log.held(), err)
			}
			if checksum(r.Body) != text {
				t.Fatal("the record changed meanwhile")
			}
			return got.see(r)
		}); err != nil || got.String() != fake.log.h.text(LogRange{0, 6}) {
			t.Fatal(err)
		}
		if sum, err := s.Sum(t.Context(), 0); err != nil || sum != 0 {
			t.Fatal(sum, err)
		}
	})
}

// Errors of the log, of heads and of marks keep their identity on the way.
func TestLogErrorsKeepTheirIdentity(t *testing.T) {
	forLogs(t, func() *fakeHistory { return newFakeHistory(4).grow(10) }, func(t *testing.T, fake *fakeSource, src Source) {
		fake.log.recycle(4)
		if _, err := src.OpenLog(t.Context(), LogOptions{After: 2}); !errors.Is(err, mvcc.ErrLogGone) {
			t.Fatal(err)
		}
		if _, err := src.OpenLog(t.Context(), LogOptions{After: 11}); !errors.Is(err, mvcc.ErrBehind) {
			t.Fatal(err)
		}
		s := mustOpenLog(t, src, 3)
		defer s.Close()
		fake.log.recycle(6)
		if _, err := s.Read(t.Context(), 1<<20, func(mvcc.LogRecord) error { return nil }); !errors.Is(err, mvcc.ErrLogGone) {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context()); !errors.Is(err, mvcc.ErrLogGone) {
			t.Fatal(err)
		}
		repo := RepositoryID{1}
		if err := src.CheckHead(t.Context(), repo, mvcc.Head{LSN: 5, Sum: 1}); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatal(err)
		}
		if err := src.CheckHead(t.Context(), repo, mvcc.Head{LSN: 5, Sum: fake.log.h.sum(5)}); err != nil {
			t.Fatal(err)
		}
		if err := src.RememberHead(t.Context(), repo, mvcc.Head{LSN: 99, Sum: 3}); err != nil {
			t.Fatal(err)
		}
		if err := src.CheckHead(t.Context(), repo, mvcc.Head{LSN: 99, Sum: 3}); err != nil {
			t.Fatal(err)
		}
		if lsn, err := src.Mark(t.Context(), "before"); err != nil || lsn != 11 || fake.log.h.commits[10].mark != "before" {
			t.Fatal(lsn, err)
		}
		for _, name := range []string{"", "\xff", strings.Repeat("x", markBytesMax+1)} {
			if _, err := src.Mark(t.Context(), name); !errors.Is(err, ErrOptions) {
				t.Fatalf("%q: %v", name, err)
			}
		}
	})
}

// R14: who follows the log and dies, or is stopped for longer than its lease, holds
// none of it back.
func TestR14_DeadFollowerHoldsNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newLogSource(newFakeHistory(5).grow(10))
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		conn.send(frameLogOpen, []byte(`{"name":"a","after":3}`))
		if err := conn.expect(frameReply, &logOpenReply{}, nil); err != nil {
			t.Fatal(err)
		}
		if fake.log.held() != 4 {
			t.Fatal("nothing is held")
		}
		conn.nc.Close()
		synctest.Wait()
		if fake.log.open() != 0 {
			t.Fatal("a dead client's log is held")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		fake := newLogSource(newFakeHistory(5).grow(10))
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		conn.send(frameLogOpen, []byte(`{"name":"a","after":10}`))
		if err := conn.expect(frameReply, &logOpenReply{}, nil); err != nil {
			t.Fatal(err)
		}
		conn.send(frameLogWait, nil) // and then not a word
		go io.Copy(io.Discard, conn.nc)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if fake.log.open() != 0 {
			t.Fatal("a silent client's log is held")
		}
		conn.nc.Close()
	})
}

// A follower that takes its time, in a reading or between, keeps its lease.
func TestSlowFollowerKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHistory(6)
		h.commit(4, 1<<20-64, "")
		fake := newLogSource(h.grow(4))
		server, conn := piped(t, fake, ServeOptions{})
		defer endPiped(server)
		x := startExchange(conn)
		var reply logOpenReply
		if err := x.call(t.Context(), frameLogOpen, logOpenRequest{"slow", 0}, &reply); err != nil {
			t.Fatal(err)
		}
		s := &remoteLog{x: x, info: reply.Info}
		var got recordText
		if _, err := s.Read(t.Context(), 1<<30, func(r mvcc.LogRecord) error {
			time.Sleep(time.Hour)
			return got.see(r)
		}); err != nil || got.String() != h.text(LogRange{0, 5}) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil || fake.log.open() != 0 {
			t.Fatal(err)
		}
	})
}

// T51: a quiet ends when it is released, when its time runs out, when its owner
// dies and when its owner is stopped; and who releases it learns if it had ended.
func TestT51_QuietEndsByItself(t *testing.T) {
	history := func() *fakeHistory { return newFakeHistory(7).grow(3) }
	forLogs(t, history, func(t *testing.T, fake *fakeSource, src Source) {
		q, err := src.Quiesce(t.Context(), time.Minute)
		if err != nil || q.LSN() != 3 || fake.log.quiet() != 1 {
			t.Fatal(err)
		}
		if err := q.Release(); err != nil || fake.log.quiet() != 0 {
			t.Fatal(err)
		}
		if err := q.Release(); err != nil {
			t.Fatal(err)
		}
		if q, err = src.Quiesce(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		<-q.Over()
		if err := q.Release(); !errors.Is(err, ErrQuietOver) || fake.log.quiet() != 0 {
			t.Fatal(err)
		}
		for _, d := range []time.Duration{0, -1, 2 * quietMax} {
			if _, err := src.Quiesce(t.Context(), d); !errors.Is(err, ErrOptions) {
				t.Fatalf("%v: %v", d, err)
			}
		}
	})
	ends := map[string]func(conn *clientConn){
		"dies":    func(conn *clientConn) { conn.nc.Close() },
		"stopped": func(conn *clientConn) { go io.Copy(io.Discard, conn.nc); time.Sleep(31 * time.Second) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newLogSource(history())
				server, conn := piped(t, fake, ServeOptions{})
				defer endPiped(server)
				conn.send(frameQuiesce, []byte(`{"timeout_ms":3600000}`))
				if err := conn.expect(frameReply, &lsnMessage{}, nil); err != nil || fake.log.quiet() != 1 {
					t.Fatal(err)
				}
				end(conn)
				synctest.Wait()
				if fake.log.quiet() != 0 {
					t.Fatal("writers still wait")
				}
				conn.nc.Close()
			})
		})
	}
}

// R21: closing the server ends logs and quiets with a typed error.
func TestR21_ServerCloseEndsLogsAndQuiets(t *testing.T) {
	fake, dir := newLogSource(newFakeHistory(8).grow(3)), t.TempDir()
	server, err := serve(fake, ServeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpenLog(t, client, 3)
	q, err := client.Quiesce(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil || fake.log.open() != 0 || fake.log.quiet() != 0 {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context()); !errors.Is(err, ErrServerClosed) {
		t.Fatal(err)
	}
	<-q.Over()
	if err := q.Release(); !errors.Is(err, ErrServerClosed) {
		t.Fatal(err)
	}
	s.Close()
}

// The base of an incremental reaches the store.
func TestBaseReachesTheSource(t *testing.T) {
	fake := newFake(1, 5, 4<<10)
	asked := &optionsSource{fakeSource: fake}
	s, err := served(t, asked, ServeOptions{}).Open(t.Context(), SessionOptions{Owner: "o", Base: 77, AuditBlocks: 8, FullSpeed: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if want := (SessionOptions{Owner: "o", Base: 77, AuditBlocks: 8, FullSpeed: true}); asked.o != want {
		t.Fatalf("%+v", asked.o)
	}
}

// optionsSource keeps what it was asked for.
type optionsSource struct {
	*fakeSource
	o SessionOptions
}

func (s *optionsSource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	s.o = o
	return s.fakeSource.Open(ctx, o)
}

// A store's log, marks and heads, and the same over its socket.
func TestStoreAsLogSource(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	store, err := mvcc.Open(dir, mvcc.Options{MaxRAM: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	server, err := Serve(store, ServeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, src := range []Source{NewSource(store), client} {
		s := mustOpenLog(t, src, 0)
		if i == 0 {
			writeSome(t, store, 20)
		}
		lsn, err := src.Mark(t.Context(), "m")
		if err != nil || s.Info().Database != store.Database() || s.Info().Timeline != store.Timeline() {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got recordText
		last, err := s.Read(t.Context(), 1<<30, func(r mvcc.LogRecord) error {
			if r.LSN == lsn {
				info, err := mvcc.ScanRecord(r.Body)
				if err != nil || len(info.Marks) != 1 || info.Marks[0] != "m" {
					t.Errorf("%+v, %v", info, err)
				}
				if i == 1 {
					return nil
				}
			}
			return got.see(r)
		})
		if err != nil || last != lsn {
			t.Fatal(last, err)
		}
		if sum, err := s.Sum(t.Context(), lsn); err != nil || sum == 0 {
			t.Fatal(sum, err)
		}
		texts = append(texts, got.String())
		if err := errors.Join(s.Done(t.Context(), last), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if texts[0] != texts[1] || len(texts[0]) == 0 {
		t.Fatal("the socket has another log")
	}
}

// writeSome commits n times.
func writeSome(t testing.TB, store *mvcc.Store, n int) {
	t.Helper()
	for i := range n {
		tx, err := store.BeginWrite()
		if err != nil {
			t.Fatal(err)
		}
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			t.Fatal(err)
		}
		copy(b.Payload(), bytes.Repeat([]byte{byte(i)}, 100))
		b.Release()
		if _, err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogProtocolViolations(t *testing.T) {
	cases := map[string][]byte{
		"next without open":  appendFrame(nil, frameLogNext, []byte(`{"bytes_max":1}`)),
		"wait without open":  appendFrame(nil, frameLogWait, nil),
		"sum without open":   appendFrame(nil, frameLogSum, []byte(`{"lsn":1}`)),
		"resume of no quiet": appendFrame(nil, frameResume, nil),
		"payload of resume":  appendFrame(nil, frameResume, []byte(`{}`)),
		"open is no JSON":    appendFrame(nil, frameLogOpen, []byte("{")),
		"open unknown field": appendFrame(nil, frameLogOpen, []byte(`{"name":"a","after":1,"path":"/"}`)),
		"quiet without time": appendFrame(nil, frameQuiesce, []byte(`{}`)),
		"quiet for ever":     appendFrame(nil, frameQuiesce, []byte(`{"timeout_ms":9223372036854775807}`)),
		"head of nothing":    appendFrame(nil, frameHead, nil),
		"head of no id":      appendFrame(nil, frameHead, []byte(`{"repository":"12","lsn":1,"sum":1}`)),
		"mark is no JSON":    appendFrame(nil, frameMark, []byte(`"m"`)),
		"log open and a quiet": appendFrame(appendFrame(nil, frameQuiesce, []byte(`{"timeout_ms":1000}`)), frameLogOpen,
			[]byte(`{"name":"a","after":1}`)),
	}
	for name, input := range cases {
		t.Run(name, func(t *testing.T) {
			fake := newLogSource(newFakeHistory(1).grow(3))
			server, conn := piped(t, fake, ServeOptions{})
			defer endPiped(server)
			go conn.nc.Write(input)
			err := conn.expect(frameReply, &lsnMessage{}, nil)
			if err == nil {
				err = conn.expect(frameReply, &struct{}{}, nil)
			}
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			conn.nc.Close()
		})
	}
}

// FuzzLogFrame: what is accepted is what we would write.
func FuzzLogFrame(f *testing.F) {
	var frame logFrame
	frame.reset()
	frame.add(mvcc.LogRecord{LSN: 5, Body: []byte("a")})
	frame.add(mvcc.LogRecord{LSN: 5, Last: true, Body: []byte("b")})
	f.Add(bytes.Clone(frame.seal(true, 5)))
	f.Add(bytes.Clone(frame.seal(false, 0)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, payload []byte) {
		var again logFrame
		again.reset()
		end, lsn, err := decodeLogFrame(payload, func(r mvcc.LogRecord) error {
			if len(payload) <= logFrameMax && !again.add(r) {
				t.Fatal("more than fits")
			}
			return nil
		})
		if err == nil && end && len(payload) <= logFrameMax && !bytes.Equal(again.seal(end, lsn), payload) {
			t.Fatalf("accepted what it would not write: %x", payload)
		}
	}))
}

// FuzzLogClient answers a follower with anything: it reports an error, or records
// in order, and ends.
func FuzzLogClient(f *testing.F) {
	welcome := appendFrame(encodePreamble(1, 1), frameWelcome, []byte(`{"lease_ms":60000}`))
	opened := appendFrame(welcome, frameReply, []byte(`{"info":{}}`))
	var frame logFrame
	frame.reset()
	frame.add(mvcc.LogRecord{LSN: 1, Last: true, Body: []byte("a")})
	f.Add(appendFrame(bytes.Clone(opened), frameLog, frame.seal(true, 1)))
	var late logFrame
	late.reset()
	late.add(mvcc.LogRecord{LSN: 2, Last: true, Body: []byte("b")})
	f.Add(appendFrame(bytes.Clone(opened), frameLog, late.seal(true, 2)))
	f.Add(appendFrame(bytes.Clone(opened), frameError, encodeError(mvcc.ErrLogGone, nil)))
	f.Add(append(bytes.Clone(opened), 0xff, 0xff, 0xff, 0xff, byte(frameLog), 0, 0, 0))
	f.Fuzz(func(t *testing.T, input []byte) {
		ours, theirs := net.Pipe()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			go io.Copy(io.Discard, theirs)
			theirs.Write(input)
			theirs.Close()
		}()
		if conn, err := greet(ours); err == nil {
			followLog(t, conn)
		}
		ours.Close()
		<-answered
	})
}

func followLog(t *testing.T, conn *clientConn) {
	x := startExchange(conn)
	s := &remoteLog{x: x}
	defer s.Close()
	if err := x.call(t.Context(), frameLogOpen, logOpenRequest{"f", 0}, &logOpenReply{}); err != nil {
		return
	}
	last := block.LSN(0)
	for range 100 {
		lsn, err := s.Read(t.Context(), 1<<20, func(r mvcc.LogRecord) error {
			if r.LSN != last+1 {
				t.Fatalf("commit %v behind %v", r.LSN, last)
			}
			if r.Last {
				last = r.LSN
			}
			return nil
		})
		if err != nil || lsn != last {
			return
		}
	}
}
