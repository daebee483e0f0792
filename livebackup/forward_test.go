package livebackup

import (
	"context"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// busySource is a source whose database changes while a backup is made of it.
type busySource struct {
	Source
	on func(call int) // before each Next
}

func (s *busySource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	session, err := s.Source.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &busySession{Session: session, s: s}, nil
}

type busySession struct {
	Session
	s     *busySource
	calls int
}

func (s *busySession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	s.calls++
	s.s.on(s.calls)
	return s.Session.Next(ctx, buf, ids[:min(len(ids), 64)])
}

// forwardRAM is so little that a few hundred originals are too many.
const forwardRAM = 2 << 20

// smallHistory is a database that has next to no memory.
func smallHistory(t *testing.T, rng *rand.Rand, fs vfs.FS, dir string) *history {
	h := &history{t: t, rng: rng, fs: fs, dir: dir, ram: forwardRAM, model: map[block.ID]string{}, kept: map[block.LSN]map[block.ID]string{}}
	h.open()
	t.Cleanup(func() { h.store.Close() })
	for range 16 {
		h.commit(60, 0, 0)
	}
	return h
}

// keep commits, and keeps the model as of then.
func (h *history) keep(alloc, edit, free int) {
	h.kept[h.commit(alloc, edit, free)] = maps.Clone(h.model)
}

// churn changes about n blocks, in commits of their own.
func (h *history) churn(n int) {
	for ; n > 0; n -= 20 {
		h.keep(h.rng.IntN(4), 16, h.rng.IntN(4))
	}
}

// forwardBackup makes a backup that falls forward at Next number at.
func (h *history) forwardBackup(src Source, repo *Repository, at int, o BackupOptions) Manifest {
	h.t.Helper()
	busy := &busySource{Source: src, on: func(call int) {
		if call == at {
			h.churn(1500)
		} else if call < at+6 {
			h.churn(h.rng.IntN(60))
		}
	}}
	m := mustBackup(h.t, busy, repo, o)
	return m
}

// TestR12_BackupFallsForward falls forward at several moments, and compares what is
// restored, read in place and proven with the database at E. An incremental may fall
// forward, too, and be laid over a backup that has.
func TestR12_BackupFallsForward(t *testing.T) {
	seed := chance.Seed(t)
	for _, at := range []int{1, 3, 9} {
		fs := simfs.New()
		h := smallHistory(t, rand.New(rand.NewPCG(seed, uint64(at))), fs, "/db")
		repo := openRepo(t, fs, "/repo")
		o := BackupOptions{ObjectBytes: 128 << 10, GroupBytes: 64 << 10}
		m := h.forwardBackup(NewSource(h.store), repo, at, o)
		if m.FallForward == nil || m.LSN >= m.EndLSN || m.FallForward.LSN < m.LSN || m.FallForward.LSN > m.EndLSN {
			t.Fatalf("at %d: S = %v, E = %v, forward: %+v", at, m.LSN, m.EndLSN, m.FallForward)
		}
		h.wantState(repo, m, "/restored")
		mustProve(t, repo, m.ID)
		h.keep(3, 40, 5)
		o.Type = TypeIncremental
		inc := mustBackup(t, NewSource(h.store), repo, o)
		if inc.FallForward != nil || inc.BaseLSN != m.EndLSN {
			t.Fatalf("incremental on LSN %v, forward: %+v", inc.BaseLSN, inc.FallForward)
		}
		h.wantState(repo, inc, "/restored2")
		mustProve(t, repo, inc.ID)
		h.churn(2500)
		again := h.forwardBackup(NewSource(h.store), repo, 1, o)
		if again.FallForward == nil || again.Kind != KindIncremental {
			t.Fatalf("%s backup, forward: %+v", again.Kind, again.FallForward)
		}
		h.wantState(repo, again, "/restored3")
		mustProve(t, repo, again.ID)
		h.keep(3, 40, 5)
		last := mustBackup(t, NewSource(h.store), repo, o)
		h.wantState(repo, last, "/restored4")
		mustProve(t, repo, last.ID)
	}
}

func mustProve(t *testing.T, repo *Repository, id BackupID) {
	t.Helper()
	if p, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil || !p.OK {
		t.Fatal(err)
	}
}

// TestR12_RemoteBackupFallsForward does the same over the socket.
func TestR12_RemoteBackupFallsForward(t *testing.T) {
	dir := t.TempDir()
	h := smallHistory(t, rand.New(rand.NewPCG(1, 2)), vfs.OS, filepath.Join(dir, "db"))
	server, err := Serve(h.store, ServeOptions{BatchBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := Dial(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	repo := openRepo(t, vfs.OS, filepath.Join(dir, "repo"))
	m := h.forwardBackup(client, repo, 3, BackupOptions{OnExhaustion: mvcc.ExhaustionForward, GroupBytes: 64 << 10})
	if m.FallForward == nil {
		t.Fatal("it did not fall forward")
	}
	h.wantState(repo, m, filepath.Join(dir, "restored"))
	mustProve(t, repo, m.ID)
}
