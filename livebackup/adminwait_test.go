package livebackup

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// arrivals tells when a request is with the store.
type arrivals struct {
	Source
	arrived chan struct{}
}

func (s arrivals) Mark(ctx context.Context, name string) (block.LSN, error) {
	s.arrived <- struct{}{}
	return s.Source.Mark(ctx, name)
}

func (s arrivals) RememberHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error {
	s.arrived <- struct{}{}
	return s.Source.RememberHead(ctx, repo, h)
}

func (s arrivals) RepairBlock(ctx context.Context, r mvcc.BlockRepair) (mvcc.BlockRepaired, error) {
	s.arrived <- struct{}{}
	return s.Source.RepairBlock(ctx, r)
}

func (s arrivals) Quiesce(ctx context.Context, timeout time.Duration) (Quiet, error) {
	s.arrived <- struct{}{}
	return s.Source.Quiesce(ctx, timeout)
}

// waiting are requests that wait for whoever writes to the database.
var waiting = map[string]func(ctx context.Context, c *Client) error{
	"mark": func(ctx context.Context, c *Client) error { _, err := c.Mark(ctx, "m"); return err },
	"remember": func(ctx context.Context, c *Client) error {
		return c.RememberHead(ctx, RepositoryID{1}, mvcc.Head{LSN: 1})
	},
	"repair": func(ctx context.Context, c *Client) error {
		_, err := c.RepairBlock(ctx, mvcc.BlockRepair{Block: fakeFirst})
		return err
	},
	"quiesce": func(ctx context.Context, c *Client) error { _, err := c.Quiesce(ctx, time.Hour); return err },
}

// R21: who waits for his turn to write keeps no server from closing, and what he asked
// for is not done when nobody waits for it any more.
func TestR21_ServerClosesOverWhoWaits(t *testing.T) {
	for name, ask := range waiting {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := newStore(t, simfs.New(), "/db", 5)
			defer store.Close()
			src := arrivals{NewSource(store), make(chan struct{})}
			server, err := serve(src, ServeOptions{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			client, err := Dial(dir)
			if err != nil {
				t.Fatal(err)
			}
			quiet, err := store.Quiesce() // and so it waits, whatever it is
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error)
			go func() { told <- ask(t.Context(), client) }()
			<-src.arrived
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-told; !errors.Is(err, ErrServerClosed) {
				t.Error(err)
			}
			lsn := quiet.LSN
			quiet.Release()
			tx, err := store.BeginWrite()
			if err != nil {
				t.Fatal(err)
			}
			if tx.Base() != lsn || store.Status().Quiet {
				t.Errorf("at LSN %v, it was %v; %+v", tx.Base(), lsn, store.Status().Quiet)
			}
			tx.Rollback()
		})
	}
}

// The place of a client that gave up waiting for its turn is free at once, for whoever
// wants to know what goes on.
func TestServer_WhoGaveUpHasNoPlace(t *testing.T) {
	dir := t.TempDir()
	store := newStore(t, simfs.New(), "/db", 5)
	defer store.Close()
	src := arrivals{NewSource(store), make(chan struct{})}
	client := served(t, src, ServeOptions{Dir: dir, MaxConns: 1})
	tx, err := store.BeginWrite()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan error)
		go func() {
			for {
				_, err := client.Mark(ctx, "m")
				if errors.Is(err, ErrBusy) { // the connection before is on its way out
					continue
				}
				told <- err
				return
			}
		}()
		<-src.arrived
		cancel()
		if err := <-told; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for {
		if _, err := client.Status(t.Context()); errors.Is(err, ErrBusy) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		break
	}
}

// T51: a quiet ends with its connection, also if that has something else on its way that
// waits for the quiet's end.
func TestT51_QuietOfADeadClientThatWaits(t *testing.T) {
	repo, err := json.Marshal(headRequest{Repository: hexID{1}, LSN: 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, frame := range map[string][]byte{
		"mark":     appendFrame(nil, frameMark, []byte(`{"name":"m"}`)),
		"remember": appendFrame(nil, frameRemember, repo),
		"repair":   appendFrame(nil, frameRepair, encodeRepair(mvcc.BlockRepair{Block: fakeFirst})),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store := newStore(t, simfs.New(), "/db", 5)
			defer store.Close()
			src := arrivals{NewSource(store), make(chan struct{}, 2)}
			client := served(t, src, ServeOptions{Dir: dir})
			conn, err := client.connect()
			if err != nil {
				t.Fatal(err)
			}
			conn.send(frameQuiesce, []byte(`{"timeout_ms":3600000}`))
			if err := conn.expect(frameReply, &lsnMessage{}, nil); err != nil {
				t.Fatal(err)
			}
			conn.nc.Write(frame)
			for range 2 {
				<-src.arrived
			}
			conn.nc.Close()
			tx, err := store.BeginWrite()
			if err != nil {
				t.Fatal(err)
			}
			tx.Rollback()
		})
	}
}

// What a client asks of the audit of its incremental has a limit: it is drawn while the
// database keeps everything.
func TestServer_AuditHasALimit(t *testing.T) {
	dir := t.TempDir()
	store := newStore(t, simfs.New(), "/db", 150)
	defer store.Close()
	client := served(t, NewSource(store), ServeOptions{Dir: dir})
	base := store.Status().DurableLSN
	writeSome(t, store, 1)
	for _, n := range []int{-1, math.MaxInt32, math.MaxInt} {
		if _, err := client.Open(t.Context(), SessionOptions{Base: base, AuditBlocks: n}); !errors.Is(err, mvcc.ErrOptions) {
			t.Errorf("%d: %v", n, err)
		}
	}
	s, err := client.Open(t.Context(), SessionOptions{Base: base, AuditBlocks: auditMax})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
