package livebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

var forwardOptions = BackupOptions{ObjectBytes: 128 << 10, GroupBytes: 64 << 10, Type: TypeFull}

// TestR12_RestoreOfAForwardBackupResumes kills the restore of a backup that fell
// forward at many moments, also while redo is applied; started again it comes to the
// same bytes.
func TestR12_RestoreOfAForwardBackupResumes(t *testing.T) {
	db, disk := simfs.New(), simfs.New()
	if err := errors.Join(disk.Mkdir("/d", 0o700), disk.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	h := smallHistory(t, rand.New(rand.NewPCG(4, 4)), db, "/db")
	m := h.forwardBackup(NewSource(h.store), openRepo(t, disk, "/d/repo"), 2, forwardOptions)
	if m.FallForward == nil || m.FallForward.Records == 0 {
		t.Fatalf("forward: %+v", m.FallForward)
	}
	base := disk.Crash(nil, simfs.DropAll)
	whole := base.Crash(nil, simfs.KeepAll)
	before := whole.Events()
	if _, err := Restore(t.Context(), openAt(t, whole, "/d/repo"), RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: whole}); err != nil {
		t.Fatal(err)
	}
	want, events := dataOf(t, whole, "/d/new"), whole.Events()-before
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	for n := range 12 {
		k := events - 1 - rng.IntN(events/(1+n%3)) // the redo comes last
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.CutAfter(k)
		Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs})
		for i, fs := range []*simfs.FS{fs.Crash(nil, simfs.DropAll), fs.Crash(rng, simfs.Random), fs.Kill()} {
			when := fmt.Sprintf("event %d of %d, state %d", k, events, i)
			if _, err := fs.Lstat("/d/new"); err != nil {
				if _, err := Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{Backup: m.ID}, "/d/new", RestoreOptions{FS: fs}); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
			}
			if !bytes.Equal(dataOf(t, fs, "/d/new"), want) {
				t.Fatalf("%s: other bytes", when)
			}
		}
	}
}

// TestR12_L12_CutWhileFallingForward cuts the repository off at random moments of a
// backup that falls forward: what is listed then is whole.
func TestR12_L12_CutWhileFallingForward(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 5 {
		disk := simfs.New()
		repo := openRepo(t, disk, "/repo")
		h := smallHistory(t, rng, simfs.New(), "/db")
		disk.CutAfter(rng.IntN(110))
		busy := &busySource{Source: NewSource(h.store), on: func(call int) { h.churn(map[bool]int{true: 1500}[call == 2] + rng.IntN(20)) }}
		res, err := Backup(t.Context(), busy, repo, forwardOptions)
		after := disk.Crash(rng, simfs.Random)
		listed, listErr := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: after})
		if listErr != nil {
			t.Fatal(listErr)
		}
		list := mustList(t, listed)
		if err == nil && len(list) != 1 {
			t.Fatal("acknowledged, and gone")
		}
		for _, e := range list {
			mustProve(t, listed, e.ID)
			if err == nil && res.Manifest.FallForward == nil {
				t.Fatal("it did not fall forward")
			}
		}
		h.store.Close()
	}
}

// TestR12_R14_TooMuchRedoBreaks has a taker that is too slow: the log that is held for
// it reaches its limit, the backup ends, typed, and writers go on.
func TestR12_R14_TooMuchRedoBreaks(t *testing.T) {
	h := &history{t: t, rng: rand.New(rand.NewPCG(7, 7)), fs: simfs.New(), dir: "/db", model: map[block.ID]string{}, kept: map[block.LSN]map[block.ID]string{}}
	var err error
	h.store, err = mvcc.Open(h.dir, mvcc.Options{FS: h.fs, MaxRAM: forwardRAM, LogBytesMax: mvcc.LogBytesMin, LogHoldMax: 1 << 20, Temp: []mvcc.TempDir{}, OverflowMax: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	for range 16 {
		h.commit(60, 0, 0)
	}
	busy := &busySource{Source: NewSource(h.store), on: func(call int) {
		if call == 2 {
			h.churn(1500)
			for range 100 {
				h.scramble(20)
			}
		}
	}}
	repo := newRepo(t)
	_, err = Backup(t.Context(), busy, repo, forwardOptions)
	var broken *snapshot.BrokenError
	if !errors.As(err, &broken) || broken.Reason != snapshot.ReasonLogHeld || !errors.Is(err, mvcc.ErrLogGone) {
		t.Fatalf("more redo than may be held: %v", err)
	}
	if list := mustList(t, repo); len(list) > 0 {
		t.Fatalf("listed: %+v", list)
	}
	h.commit(1, 1, 1)
	if holders := h.store.Status().Holders; len(holders) > 0 {
		t.Fatalf("log is held by %v", holders)
	}
}

// scramble writes noise to n blocks, so that a commit is as large as they are.
func (h *history) scramble(n int) {
	h.t.Helper()
	tx, err := h.store.BeginWrite()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, id := range slices.Sorted(maps.Keys(h.model))[:n] {
		b, err := tx.Edit(id)
		if err != nil {
			h.t.Fatal(err)
		}
		for i := range b.Payload()[64:] {
			b.Payload()[64+i] = byte(h.rng.Uint32())
		}
		b.Release()
	}
	if _, err := tx.Commit(); err != nil {
		h.t.Fatal(err)
	}
}

// TestR12_LogIsRolledForwardFromE restores a commit behind E, by archived log, and
// drills: for those who plan, the backup is of E.
func TestR12_LogIsRolledForwardFromE(t *testing.T) {
	fs := simfs.New()
	h := smallHistory(t, rand.New(rand.NewPCG(5, 5)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	src := NewSource(h.store)
	m := h.forwardBackup(src, repo, 2, forwardOptions)
	if m.FallForward == nil {
		t.Fatal("it did not fall forward")
	}
	run := startArchive(t, src, repo, ArchiveOptions{Every: 100 * time.Millisecond})
	lsn := m.EndLSN
	for range 5 {
		lsn = h.commit(3, 20, 3)
		h.kept[lsn] = maps.Clone(h.model)
	}
	if err := run.stop(); err != nil {
		t.Fatal(err)
	}
	res, err := Restore(t.Context(), repo, RestoreTarget{LSN: lsn}, "/new", RestoreOptions{FS: fs})
	if err != nil || res.LSN != lsn || res.Manifest.ID != m.ID {
		t.Fatalf("%+v, %v", res, err)
	}
	wantDatabase(t, fs, "/new", h.kept[lsn])
	var unreachable *UnreachableError
	if _, err := Restore(t.Context(), repo, RestoreTarget{LSN: m.LSN}, "/old", RestoreOptions{FS: fs}); !errors.As(err, &unreachable) || unreachable.Window[0].From != m.EndLSN {
		t.Fatalf("a commit below E: %v", err)
	}
	if err := fs.Mkdir("/scratch", 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := Drill(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/scratch", DrillOptions{FS: fs})
	if err != nil || d.Compared == 0 {
		t.Fatalf("%+v, %v", d, err)
	}
}

// TestR12_MissingBlocksAreFound: a backup is not published if it lacks what is in use
// at E, and not proven if what it has does not lead there.
func TestR12_MissingBlocksAreFound(t *testing.T) {
	for _, phase := range []int{1, 2} {
		h := smallHistory(t, rand.New(rand.NewPCG(6, 6)), simfs.New(), "/db")
		lossy := &lossySource{Source: NewSource(h.store), phase: phase}
		busy := &busySource{Source: lossy, on: func(call int) {
			if call == 2 {
				h.churn(1500)
			}
		}}
		if _, err := Backup(t.Context(), busy, newRepo(t), forwardOptions); err == nil || !strings.Contains(err.Error(), "R12") {
			t.Fatalf("a block of phase %d is missing: %v", phase, err)
		}
	}
}

// lossySource loses half of a batch of blocks: the first one, or the second one
// behind F.
type lossySource struct {
	Source
	phase int
}

func (s *lossySource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	session, err := s.Source.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &lossySession{Session: session, phase: s.phase}, nil
}

type lossySession struct {
	Session
	phase, fell, calls int
}

func (s *lossySession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	n, err := s.Session.Next(ctx, buf, ids)
	if errors.Is(err, mvcc.ErrFellForward) {
		s.fell, s.calls = 1, 0
		return n, err
	}
	if s.calls++; s.phase == 1 && s.fell == 0 && s.calls == 1 || s.phase == 2 && s.fell == 1 && s.calls == 2 {
		n /= 2
	}
	return n, err
}

// TestGoldenForward reads a backup that fell forward, as a program of version 1 made
// it, in every way.
func TestGoldenForward(t *testing.T) {
	golden := filepath.Join("testdata", "repository-v1-forward")
	if *rewriteGolden {
		writeGoldenForward(t, golden)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "repo"), os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	repo := openAt(t, vfs.OS, filepath.Join(dir, "repo"))
	said, err := os.ReadFile(golden + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	m := mustList(t, repo)[0].Manifest
	if m.FallForward == nil || len(m.Parts) != 2 || m.FallForward.Records == 0 {
		t.Fatalf("%+v", m)
	}
	h := &history{t: t, fs: vfs.OS, kept: map[block.LSN]map[block.ID]string{m.EndLSN: texts(contents(t, repo, m.ID))}}
	if found := listTexts(h.kept[m.EndLSN]); found != string(said) {
		t.Fatalf("it holds\n%swhich should be\n%s", found, said)
	}
	h.wantState(repo, m, filepath.Join(dir, "restored"))
	mustProve(t, repo, m.ID)
}

func listTexts(model map[block.ID]string) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(model)) {
		fmt.Fprintln(&b, model[id])
	}
	return b.String()
}

func writeGoldenForward(t *testing.T, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	h := smallHistory(t, rand.New(rand.NewPCG(0x600d, 1)), vfs.OS, filepath.Join(t.TempDir(), "db"))
	m := h.forwardBackup(NewSource(h.store), openRepo(t, vfs.OS, dir), 2, BackupOptions{Owner: "golden"})
	if err := os.WriteFile(dir+".txt", []byte(listTexts(h.kept[m.EndLSN])), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestManifest_PartsDoNotWrap: numbers of a manifest that was made up are added up beyond
// 32 bits. It is damage, and nothing of it is used.
func TestManifest_PartsDoNotWrap(t *testing.T) {
	part := func(n uint32) Part {
		return Part{LSN: 5, HighWater: 100, Blocks: 1, Groups: 1, BlocksObjects: n, IndexObjects: n}
	}
	m := Manifest{
		ID: BackupID{1, 1}, Kind: KindFull, LSN: 5, EndLSN: 5, BlockSize: 4096, HighWater: 100, Blocks: 2, BlocksInUse: 2,
		RawBytes: 2 * 4096, Groups: 2, Compression: CompressionNone, StoredBytes: 4000,
		Parts:   []Part{part(1), part(1)},
		Objects: []Object{{Kind: "blocks", Number: 1, Size: 1000}, {Kind: "blocks", Number: 2, Size: 1000}, {Kind: "index", Number: 1, Size: 1000}, {Kind: "index", Number: 2, Size: 1000}},
	}
	if reason := m.invalid(); reason != "" {
		t.Fatal(reason)
	}
	m.Parts = []Part{part(1<<32 - 1), part(3)}
	if m.invalid() == "" {
		t.Fatal("parts of more objects than there are")
	}
	m.Parts = []Part{part(1), part(1)}
	m.Parts[0].Groups, m.Parts[0].Blocks, m.Parts[0].HighWater = 1<<32-1, 1<<33, 1<<34
	m.Parts[1].Groups, m.Parts[1].Blocks = 3, 3
	m.Blocks = 1<<33 + 3
	m.RawBytes = int64(m.Blocks) * 4096
	if m.invalid() == "" {
		t.Fatal("parts of more groups than there are")
	}
}
