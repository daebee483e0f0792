package livebackup

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// fakeSource is a database that is nothing but its block images.
type fakeSource struct {
	info   mvcc.BackupInfo
	images map[block.ID][]byte
	order  []block.ID

	batch  int               // blocks per Next at most; 0: as many as fit
	onNext func(n int) error // called with the number of the call, may be nil
	status mvcc.Status
	events []mvcc.Event // numbered from 1
	check  func(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error)
	log    *fakeLog

	onRepair func(mvcc.BlockRepair) (mvcc.BlockRepaired, error) // may be nil

	mu           sync.Mutex
	open, opened int
	closed       chan struct{} // gets a value for each closed session, if not nil
}

// The fixed places of mvcc's first group that a fake has, and the first block
// behind them.
const (
	fakeMeta   = block.ID(2)
	fakeBitmap = block.ID(3)
	fakeFirst  = block.ID(13)
)

// newFake makes a database of n blocks, at least 2, in a random order, with
// some gaps: a meta block, a bitmap that names what is in use, and others.
func newFake(seed uint64, n, blockSize int) *fakeSource {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &fakeSource{
		images: make(map[block.ID][]byte),
		info: mvcc.BackupInfo{
			Database: block.DatabaseID{1, byte(seed)}, Timeline: block.TimelineID{2, byte(seed)}, LSN: 100,
			Time: time.Unix(1_700_000_000, 5), Opened: time.Now(), BlockSize: blockSize, StartStall: time.Millisecond,
		},
	}
	s.order = append(s.order, fakeMeta, fakeBitmap)
	s.put(rng, fakeMeta)
	id := fakeFirst
	for len(s.order) < n {
		if rng.IntN(8) == 0 {
			id += block.ID(rng.IntN(5))
		}
		s.put(rng, id)
		s.order = append(s.order, id)
		id++
	}
	s.putBitmap()
	s.info.HighWater, s.info.Blocks = id, uint64(n)
	// Mostly in order, with hot blocks taken first.
	for range n / 10 {
		a, b := rng.IntN(n), rng.IntN(n)
		s.order[a], s.order[b] = s.order[b], s.order[a]
	}
	return s
}

func (s *fakeSource) put(rng *rand.Rand, id block.ID) {
	b := make([]byte, s.info.BlockSize)
	text := []byte("some text that compresses, ")
	for at := 0; at < len(b)/2; at += len(text) {
		copy(b[at:], text)
	}
	for i := len(b) / 2; i < len(b); i++ {
		b[i] = byte(rng.Uint32())
	}
	lsn := block.LSN(rng.IntN(int(s.info.LSN)) + 1)
	block.Seal(b, block.Trailer{Type: block.TypeLeaf, ID: id, LSN: lsn}, block.SeedOf(s.info.Database))
	s.images[id] = b
}

// putBitmap makes the bitmap that names the fixed places and all of order.
func (s *fakeSource) putBitmap() {
	b := make([]byte, s.info.BlockSize)
	for id := range fakeFirst {
		b[id/8] |= 1 << (id % 8)
	}
	for _, id := range s.order {
		b[id/8] |= 1 << (id % 8)
	}
	block.Seal(b, block.Trailer{Type: block.TypeBitmap, ID: fakeBitmap, LSN: 1}, block.SeedOf(s.info.Database))
	s.images[fakeBitmap] = b
}

func (s *fakeSource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.opened++
	return &fakeSession{s: s, left: s.order}, nil
}

func (s *fakeSource) Status(context.Context) (mvcc.Status, error) {
	st := s.status
	if s.log != nil {
		st.Database, st.Timeline, st.DurableLSN = s.log.info.Database.String(), s.log.info.Timeline.String(), s.log.durableLSN()
	}
	return st, nil
}

func (s *fakeSource) Changes(context.Context) (mvcc.Changes, error) { return mvcc.Changes{}, nil }

func (s *fakeSource) Check(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error) {
	if s.check == nil {
		return mvcc.CheckResult{LSN: s.info.LSN, Blocks: s.info.Blocks}, nil
	}
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	return s.check(ctx, progress)
}

func (s *fakeSource) openSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

type fakeSession struct {
	s      *fakeSource
	left   []block.ID
	calls  int
	closed bool
}

func (f *fakeSession) Info() mvcc.BackupInfo  { return f.s.info }
func (f *fakeSession) Final() mvcc.BackupInfo { return f.s.info }
func (f *fakeSession) Redo(context.Context, int64, func(mvcc.LogRecord) error) (block.LSN, error) {
	return 0, errors.New("Redo of a session that did not fall forward")
}
func (f *fakeSession) Total() uint64 { return f.s.info.Blocks }
func (f *fakeSession) Cost() mvcc.Cost {
	return mvcc.Cost{OriginalsMade: uint64(f.calls), RAMPeakBytes: 42}
}

func (f *fakeSession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if f.closed {
		return 0, errors.New("Next after Close")
	}
	f.calls++
	if f.s.onNext != nil {
		if err := f.s.onNext(f.calls); err != nil {
			return 0, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if len(f.left) == 0 {
		return 0, io.EOF
	}
	size := f.s.info.BlockSize
	n := min(len(f.left), len(ids), len(buf)/size)
	if f.s.batch > 0 {
		n = min(n, f.s.batch)
	}
	for i := range n {
		ids[i] = f.left[i]
		copy(buf[i*size:], f.s.images[ids[i]])
	}
	f.left = f.left[n:]
	return n, nil
}

func (f *fakeSession) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	f.s.mu.Lock()
	f.s.open--
	f.s.mu.Unlock()
	if f.s.closed != nil {
		f.s.closed <- struct{}{}
	}
	return nil
}

// recorder is where a test replays a backup to.
type recorder struct {
	size   int
	seed   block.Seed
	mu     sync.Mutex
	images map[block.ID][]byte
}

func (r *recorder) Write(first block.ID, images []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i*r.size < len(images); i++ {
		r.images[first+block.ID(i)] = append([]byte(nil), images[i*r.size:(i+1)*r.size]...)
	}
	return nil
}

func (r *recorder) Follow(*mvcc.Redo) {}

// Redo is for who records a state that is sound.
func (r *recorder) Redo(redo *mvcc.Redo, rec mvcc.LogRecord, inUse func(block.ID) bool) error {
	return redo.Changes(rec, func(c *mvcc.Change) error {
		old, there := r.images[c.ID]
		lsn := block.LSN(0)
		if there {
			t, reason := block.Verify(old, c.ID, r.seed)
			if reason != "" {
				return errors.New(reason)
			}
			lsn = t.LSN
		}
		if !inUse(c.ID) {
			return nil
		}
		due, err := c.Due(lsn, there)
		if err != nil || !due {
			return err
		}
		image := make([]byte, r.size)
		err = c.Make(image, old, r.seed)
		r.images[c.ID] = image
		return err
	})
}

// contents decodes backup id (zero: newest).
func contents(t *testing.T, repo *Repository, id BackupID) map[block.ID][]byte {
	t.Helper()
	members, err := repo.chain(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{size: members[0].Manifest.BlockSize, images: make(map[block.ID][]byte), seed: block.SeedOf(members[0].Manifest.Database)}
	if err := replayChain(t.Context(), repo, members, r, nil, newMeter(nil)); err != nil {
		t.Fatal(err)
	}
	return r.images
}

func sameImages(t *testing.T, got, want map[block.ID][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d blocks, want %d", len(got), len(want))
	}
	for id, image := range want {
		if string(got[id]) != string(image) {
			t.Fatalf("block %v is not the one that was backed up", id)
		}
	}
}

// newRepo makes a repository on a simulated disk.
func newRepo(t *testing.T) *Repository {
	t.Helper()
	return openRepo(t, simfs.New(), "/repo")
}

// realRepo makes a repository on the system's own file system.
func realRepo(t *testing.T) *Repository {
	t.Helper()
	return openRepo(t, vfs.OS, filepath.Join(t.TempDir(), "repo"))
}

func openRepo(t *testing.T, fs vfs.FS, dir string) *Repository {
	t.Helper()
	repo, err := OpenRepository(t.Context(), dir, RepositoryOptions{Create: true, FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func mustBackup(t *testing.T, src Source, repo *Repository, o BackupOptions) Manifest {
	t.Helper()
	res, err := Backup(t.Context(), src, repo, o)
	if err != nil {
		t.Fatal(err)
	}
	return res.Manifest
}

func mustList(t *testing.T, repo *Repository) []Entry {
	t.Helper()
	list, err := List(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
