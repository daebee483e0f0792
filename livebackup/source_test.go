package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sources are the ways to the fake database that every Source must be like.
var sources = map[string]func(t *testing.T, fake *fakeSource) Source{
	"itself": func(t *testing.T, fake *fakeSource) Source { return fake },
	"socket": func(t *testing.T, fake *fakeSource) Source { return served(t, fake, ServeOptions{}) },
	"socket, small batches": func(t *testing.T, fake *fakeSource) Source {
		return served(t, fake, ServeOptions{BatchBytes: 1})
	},
	"socket on a long path": func(t *testing.T, fake *fakeSource) Source {
		return served(t, fake, ServeOptions{Dir: longDir(t)})
	},
}

// served serves src on a real socket and dials it.
func served(t *testing.T, src Source, o ServeOptions) *Client {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	server, err := serve(src, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := Dial(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func longDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for range 4 {
		dir = filepath.Join(dir, strings.Repeat("d", 60))
		mkdir(t, dir)
	}
	return dir
}

func forSources(t *testing.T, test func(t *testing.T, fake *fakeSource, src Source)) {
	for name, reach := range sources {
		t.Run(name, func(t *testing.T) {
			fake := newFake(5, 700, 4<<10)
			test(t, fake, reach(t, fake))
			if n := fake.openSessions(); n != 0 {
				t.Errorf("%d sessions left open", n)
			}
		})
	}
}

func TestSourceHandsOutEachBlockOnce(t *testing.T) {
	forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
		s, err := src.Open(t.Context(), SessionOptions{Owner: "o", Label: "l"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, want := s.Info(), fake.info; got.Database != want.Database || got.LSN != want.LSN ||
			!got.Time.Equal(want.Time) || got.HighWater != want.HighWater || got.Blocks != want.Blocks {
			t.Fatalf("info is %+v, want %+v", got, want)
		}
		images := map[block.ID][]byte{}
		buf, ids := make([]byte, 5*4096), make([]block.ID, 7)
		for {
			n, err := s.Next(t.Context(), buf, ids)
			if err == io.EOF {
				break
			}
			if err != nil || n < 1 || n > 5 {
				t.Fatalf("Next: %d, %v", n, err)
			}
			for i, id := range ids[:n] {
				if images[id] != nil {
					t.Fatalf("block %v came twice", id)
				}
				images[id] = append([]byte(nil), buf[i*4096:(i+1)*4096]...)
			}
		}
		sameImages(t, images, fake.images)
		if _, err := s.Next(t.Context(), buf, ids); err != io.EOF {
			t.Fatalf("after the last: %v", err)
		}
		if c := s.Cost(); c.OriginalsMade == 0 || c.RAMPeakBytes != 42 {
			t.Fatalf("cost is %+v", c)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if c := s.Cost(); c.RAMPeakBytes != 42 {
			t.Fatalf("cost after Close is %+v", c)
		}
	})
}

func TestSourceFailureIsFinal(t *testing.T) {
	broken := &block.CorruptError{Path: "data", Offset: 8192, Block: 2, Reason: "checksum does not agree"}
	forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
		fake.batch = 1
		fake.onNext = func(n int) error {
			if n >= 4 {
				return fmt.Errorf("read: %w", broken)
			}
			return nil
		}
		s, err := src.Open(t.Context(), SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		buf, ids, got := make([]byte, 4096), make([]block.ID, 1), 0
		for err == nil {
			if _, err = s.Next(t.Context(), buf, ids); err == nil {
				got++
			}
		}
		for range 2 {
			var c *block.CorruptError
			if !errors.As(err, &c) || *c != *broken || got != 3 {
				t.Fatalf("after %d blocks: %v", got, err)
			}
			_, err = s.Next(t.Context(), buf, ids)
		}
	})
}

func TestSourceKeepsErrorIdentity(t *testing.T) {
	for _, want := range []error{mvcc.ErrClosed, mvcc.ErrPoisoned} {
		forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
			fake.onNext = func(int) error { return fmt.Errorf("no way: %w", want) }
			_, err := Backup(t.Context(), src, newRepo(t), BackupOptions{})
			if !errors.Is(err, want) || !strings.Contains(err.Error(), "no way") {
				t.Fatal(err)
			}
		})
	}
}

func TestSourceNextEndsWithItsContext(t *testing.T) {
	forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
		ctx, cancel := context.WithCancel(t.Context())
		fake.batch = 1
		fake.onNext = func(n int) error {
			if n == 300 {
				cancel()
			}
			return nil
		}
		repo := newRepo(t)
		if _, err := Backup(ctx, src, repo, BackupOptions{GroupBytes: 1}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		wantOnly(t, repo, headerName, bindingName, timelineName(1), pruneName)
	})
}

func TestSourceBackup(t *testing.T) {
	forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
		repo := newRepo(t)
		m := mustBackup(t, src, repo, BackupOptions{GroupBytes: 64 << 10, ObjectBytes: 512 << 10})
		if m.Cost.RAMPeakBytes != 42 {
			t.Errorf("cost is %+v", m.Cost)
		}
		sameImages(t, contents(t, repo, m.ID), fake.images)
	})
}

func TestSourceStatusAndCheck(t *testing.T) {
	forSources(t, func(t *testing.T, fake *fakeSource, src Source) {
		fake.status = mvcc.Status{Dir: "d", NewestLSN: 7, Levels: []mvcc.Level{{Name: "ram", Used: 1, Limit: 2}}}
		st, err := src.Status(t.Context())
		if err != nil || st.NewestLSN != 7 || len(st.Levels) != 1 {
			t.Fatalf("%+v, %v", st, err)
		}
		fake.check = func(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error) {
			progress(1, 2)
			return mvcc.CheckResult{LSN: 9, Problems: []string{"a"}}, nil
		}
		var total uint64
		res, err := src.Check(t.Context(), func(_, n uint64) { total = n })
		if err != nil || res.LSN != 9 || len(res.Problems) != 1 || total != 2 {
			t.Fatalf("%+v, %v, total %d", res, err, total)
		}
		if _, err := src.Check(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	})
}

// Replies that are too large for a frame are cut, and say so.
func TestLargeRepliesAreCut(t *testing.T) {
	fake := newFake(5, 10, 4<<10)
	client := served(t, fake, ServeOptions{})
	fake.status.Snapshots = make([]mvcc.SnapshotStatus, 5000)
	st, err := client.Status(t.Context())
	if n := len(st.Snapshots); err != nil || n == 0 || n == 5000 {
		t.Fatalf("%d snapshots, %v", n, err)
	}
	fake.check = func(context.Context, func(done, total uint64)) (mvcc.CheckResult, error) {
		return mvcc.CheckResult{Problems: make([]string, 90_000)}, nil
	}
	res, err := client.Check(t.Context(), nil)
	if n := len(res.Problems); err != nil || !strings.Contains(res.Problems[n-1], "more") {
		t.Fatalf("%d problems, %v", n, err)
	}
}

// The store that this process has open, and the same over its socket.
func TestStoreAsSource(t *testing.T) {
	dir := t.TempDir()
	store, err := mvcc.Open(filepath.Join(dir, "db"), mvcc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	tx, err := store.BeginWrite()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			t.Fatal(err)
		}
		b.Payload()[0] = byte(i)
		b.Release()
	}
	if _, err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	server, err := Serve(store, ServeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	repo := newRepo(t)
	a := mustBackup(t, NewSource(store), repo, BackupOptions{})
	b := mustBackup(t, client, repo, BackupOptions{})
	if a.Blocks < 100 || a.LSN != b.LSN || a.Database != b.Database {
		t.Fatalf("%+v\n%+v", a, b)
	}
	sameImages(t, contents(t, repo, b.ID), contents(t, repo, a.ID))
}

// lateContext ends at the moment in which nobody waits for its end any more.
type lateContext struct {
	context.Context
	end context.CancelFunc
}

// Value hides what it is made of.
func (c lateContext) Value(any) any { return nil }

// AfterFunc is how package context waits for a context that is not its own.
func (c lateContext) AfterFunc(func()) (stop func() bool) {
	return func() bool {
		c.end()
		return true
	}
}

// Open is cancelled when the session is there already: it is closed, and nothing goes on
// that it had begun.
func TestR21_OpenCancelledAtTheLastMoment(t *testing.T) {
	src := newFake(1, 10, 4096)
	client := served(t, src, ServeOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	if s, err := client.Open(lateContext{ctx, cancel}, SessionOptions{}); s != nil || !errors.Is(err, context.Canceled) {
		t.Fatal(s, err)
	}
	if n := src.openSessions(); n != 0 {
		t.Fatalf("%d sessions are open", n)
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "clientConn).keep") {
		t.Fatal("somebody renews the lease of a session that is closed")
	}
}
