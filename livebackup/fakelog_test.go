package livebackup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// fakeCommit is one commit in the log of a fake database.
type fakeCommit struct {
	at      time.Time
	mark    string
	records [][]byte
}

// sum stands for the checksum of the record that ends a commit.
func (c fakeCommit) sum() uint32 { return checksum(c.records[len(c.records)-1]) | 1 }

// fakeHistory is the log of a database from its first commit on: commit n is
// commits[n-1].
type fakeHistory struct {
	rng     *rand.Rand
	clock   time.Time
	commits []fakeCommit
}

func newFakeHistory(seed uint64) *fakeHistory {
	return &fakeHistory{rng: rand.New(rand.NewPCG(seed, 7)), clock: time.Unix(1_700_000_000, 0).UTC()}
}

// commit adds a commit of that many records of about that many bytes each.
func (h *fakeHistory) commit(records, size int, mark string) {
	h.clock = h.clock.Add(time.Duration(h.rng.IntN(3)) * time.Second) // some share their time
	c := fakeCommit{at: h.clock, mark: mark}
	for i := range records {
		var body []byte
		if i == 0 {
			body = binary.LittleEndian.AppendUint64([]byte{1}, uint64(h.clock.UnixNano()))
			body = binary.LittleEndian.AppendUint64(body, uint64(h.clock.UnixNano()))
			if mark != "" {
				body = append(binary.AppendUvarint(append(body, 5), uint64(len(mark))), mark...)
			}
		}
		if size > 0 {
			body = h.image(body, size)
		}
		c.records = append(c.records, body)
	}
	h.commits = append(h.commits, c)
}

// image appends an entry of about size bytes, half of which compress.
func (h *fakeHistory) image(body []byte, size int) []byte {
	data := bytes.Repeat([]byte{byte(h.rng.Uint32())}, size)
	for i := range size / 2 {
		data[i] = byte(h.rng.Uint32())
	}
	body = append(body, 2, byte(13+h.rng.IntN(100)), byte(block.TypeLeaf), 0)
	body = append(binary.AppendUvarint(body, uint64(size)), data...)
	return append(body, 0, 0)
}

// grow adds n random commits, most of them small.
func (h *fakeHistory) grow(n int) *fakeHistory {
	for range n {
		switch h.rng.IntN(12) {
		case 0:
			h.commit(1, 0, fmt.Sprintf("mark-%d", h.rng.IntN(5)))
		case 1:
			h.commit(2+h.rng.IntN(3), h.rng.IntN(9000), "")
		default:
			h.commit(1, h.rng.IntN(600), "")
		}
	}
	return h
}

// fork is a history that goes its own way behind commit lsn.
func (h *fakeHistory) fork(lsn block.LSN, seed uint64) *fakeHistory {
	f := newFakeHistory(seed)
	f.commits = slices.Clone(h.commits[:lsn])
	if lsn > 0 {
		f.clock = f.commits[lsn-1].at
	}
	return f
}

func (h *fakeHistory) newest() block.LSN { return block.LSN(len(h.commits)) }

// sum of commit lsn; 0 of none.
func (h *fakeHistory) sum(lsn block.LSN) uint32 {
	if lsn == 0 {
		return 0
	}
	return h.commits[lsn-1].sum()
}

// each calls fn for the records of the commits in r.
func (h *fakeHistory) each(r LogRange, fn func(mvcc.LogRecord) error) error {
	for lsn := r.From + 1; lsn <= r.To; lsn++ {
		records := h.commits[lsn-1].records
		for i, body := range records {
			if err := fn(mvcc.LogRecord{LSN: lsn, Last: i == len(records)-1, Body: body}); err != nil {
				return err
			}
		}
	}
	return nil
}

// text is records in a form that compares.
func (h *fakeHistory) text(r LogRange) string {
	var s recordText
	h.each(r, s.see)
	return s.String()
}

type recordText struct{ bytes.Buffer }

func (s *recordText) see(r mvcc.LogRecord) error {
	fmt.Fprintf(s, "%d %t %d %08x\n", r.LSN, r.Last, len(r.Body), checksum(r.Body))
	return nil
}

// ids of the database and the timeline that most tests use.
var (
	fakeDatabase = block.DatabaseID{1, 9}
	fakeTimeline = block.TimelineID{2, 9, 9, 9, 9}
)

// putLog publishes the commits of h in r as one log object of timeline t.
func putLog(t testing.TB, repo *Repository, h *fakeHistory, tl block.TimelineID, r LogRange) LogObject {
	t.Helper()
	b, err := newLogBuilder(logIdentity{database: fakeDatabase, timeline: tl}, r.From, CompressionFastest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := h.each(r, b.add); err != nil {
		t.Fatal(err)
	}
	o, _, err := writeBatch(t, repo, b.cut(), h.sum(r.From), h.sum(r.To))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func writeBatch(t testing.TB, repo *Repository, batch logBatch, fromSum, toSum uint32) (LogObject, Digest, error) {
	t.Helper()
	w, err := createLog(t.Context(), repo.objects, batch.id)
	if err != nil {
		return LogObject{}, Digest{}, err
	}
	defer w.abort()
	for _, c := range batch.chunks {
		if err := w.chunk(c); err != nil {
			return LogObject{}, Digest{}, err
		}
	}
	batch.footer.fromSum, batch.footer.toSum = fromSum, toSum
	return w.publish(batch.footer)
}

// boundRepo is a repository of the fake database.
func boundRepo(t testing.TB, fs vfs.FS, dir string) *Repository {
	t.Helper()
	repo, err := OpenRepository(t.Context(), dir, RepositoryOptions{Create: true, FS: fs})
	if err == nil {
		err = repo.bind(t.Context(), fakeDatabase)
	}
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func mustLogs(t testing.TB, repo *Repository) []LogObject {
	t.Helper()
	logs, err := repo.logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return logs
}

// readText reads the commits in r of a lineage, as far as they can be had.
func readText(t testing.TB, repo *Repository, l lineage, r LogRange, sum uint32) (string, error) {
	t.Helper()
	var s recordText
	err := repo.readLog(t.Context(), mustLogs(t, repo), l, r, sum, s.see)
	return s.String(), err
}

// wantLog proves that the archive has the commits of h in r, and no others.
func wantLog(t testing.TB, repo *Repository, l lineage, h *fakeHistory, r LogRange) {
	t.Helper()
	got, err := readText(t, repo, l, r, h.sum(r.From))
	if err != nil {
		t.Fatal(err)
	}
	if got != h.text(r) {
		t.Fatalf("the log %v reads back other than it was written", r)
	}
}

// lostFrom is the first commit that a LogLostError names.
func lostFrom(t testing.TB, err error) block.LSN {
	t.Helper()
	var lost *LogLostError
	if !errors.As(err, &lost) {
		t.Fatalf("not a loss: %v", err)
	}
	return lost.Lost.From + 1
}

// fakeLog is the log of a fake database: its history up to durable, as far back as
// oldest.
type fakeLog struct {
	info LogInfo

	mu      sync.Mutex
	h       *fakeHistory
	durable block.LSN
	oldest  block.LSN     // first commit that is still there
	moved   chan struct{} // closed when durable moves
	tails   map[*fakeTail]bool
	let     block.LSN   // highest commit that a follower said it is done with
	heads   []mvcc.Head // remembered, in order
	quiets  int         // at the moment
	onRead  func() error
}

// newLogSource is a database with a log.
func newLogSource(h *fakeHistory) *fakeSource {
	s := newFake(1, 5, 4<<10)
	s.info.Database, s.info.Timeline = fakeDatabase, fakeTimeline
	s.log = &fakeLog{
		info: LogInfo{Database: fakeDatabase, Timeline: fakeTimeline}, h: h, durable: h.newest(), oldest: 1,
		moved: make(chan struct{}), tails: map[*fakeTail]bool{},
	}
	return s
}

func (l *fakeLog) durableLSN() block.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// commit makes what fn adds to the history durable.
func (l *fakeLog) commit(fn func(h *fakeHistory)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l.h)
	l.durable = l.h.newest()
	close(l.moved)
	l.moved = make(chan struct{})
}

// recycle lets the log before commit lsn go, whoever holds it.
func (l *fakeLog) recycle(lsn block.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oldest = max(l.oldest, lsn)
	close(l.moved)
	l.moved = make(chan struct{})
}

// held is the oldest commit that somebody wants.
func (l *fakeLog) held() block.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	lsn := l.durable + 1
	for t := range l.tails {
		lsn = min(lsn, t.done+1)
	}
	return lsn
}

func (l *fakeLog) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tails)
}

// fakeTail is a LogSession.
type fakeTail struct {
	l          *fakeLog
	last, done block.LSN
}

func (s *fakeSource) OpenLog(_ context.Context, o LogOptions) (LogSession, error) {
	l := s.log
	if l == nil {
		return nil, errors.ErrUnsupported
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case o.After > l.durable:
		return nil, fmt.Errorf("behind %v: %w", o.After, mvcc.ErrBehind)
	case o.After+1 < l.oldest:
		return nil, fmt.Errorf("behind %v: %w", o.After, mvcc.ErrLogGone)
	}
	t := &fakeTail{l, o.After, o.After}
	l.tails[t] = true
	if o.After < l.durable {
		l.let = max(l.let, o.After) // what is before it may go
	}
	return t, nil
}

func (t *fakeTail) Info() LogInfo {
	info := t.l.info
	info.Durable = t.l.durableLSN()
	return info
}

func (t *fakeTail) Read(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
	for size := int64(0); size < bytesMax; {
		t.l.mu.Lock()
		var err error
		if t.l.onRead != nil {
			err = t.l.onRead()
		}
		durable, gone, closed := t.l.durable, t.last+1 < t.l.oldest, !t.l.tails[t]
		t.l.mu.Unlock()
		switch {
		case closed:
			return t.last, mvcc.ErrClosed
		case gone:
			return t.last, mvcc.ErrLogGone
		case err != nil || ctx.Err() != nil:
			return t.last, errors.Join(err, context.Cause(ctx))
		case t.last >= durable:
			return t.last, nil
		}
		err = t.l.h.each(LogRange{t.last, t.last + 1}, func(r mvcc.LogRecord) error {
			size += int64(len(r.Body))
			body := bytes.Clone(r.Body)
			err := fn(mvcc.LogRecord{LSN: r.LSN, Last: r.Last, Body: body})
			clear(body) // it is valid during the call
			return err
		})
		if err != nil {
			return t.last, err
		}
		t.last++
	}
	return t.last, nil
}

func (t *fakeTail) Wait(ctx context.Context) error {
	for {
		t.l.mu.Lock()
		more, gone, moved := t.l.durable > t.last, t.last+1 < t.l.oldest, t.l.moved
		t.l.mu.Unlock()
		switch {
		case gone:
			return mvcc.ErrLogGone
		case more:
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (t *fakeTail) Sum(_ context.Context, lsn block.LSN) (uint32, error) {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	if lsn < t.l.oldest {
		return 0, nil
	}
	return t.l.h.sum(lsn), nil
}

func (t *fakeTail) Done(_ context.Context, lsn block.LSN) error {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	t.done = max(t.done, lsn)
	t.l.let = max(t.l.let, lsn)
	return nil
}

func (t *fakeTail) Close() error {
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	delete(t.l.tails, t)
	return nil
}

func (s *fakeSource) Mark(_ context.Context, name string) (block.LSN, error) {
	if err := checkMarkName(name); err != nil {
		return 0, err
	}
	s.log.commit(func(h *fakeHistory) { h.commit(1, 0, name) })
	return s.log.durableLSN(), nil
}

func (s *fakeSource) Release(_ context.Context, id uint64) error {
	if id != 7 {
		return mvcc.ErrNoSnapshot
	}
	return nil
}

func (s *fakeSource) Events(_ context.Context, after uint64) ([]mvcc.Event, error) {
	return s.events[min(after, uint64(len(s.events))):], nil
}

func (s *fakeSource) CheckHead(_ context.Context, _ RepositoryID, h mvcc.Head) error {
	l := s.log
	if l == nil {
		return errors.ErrUnsupported
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.heads, h) || h.LSN <= l.durable && (h.Sum == 0 || h.Sum == l.h.sum(h.LSN)) {
		return nil
	}
	return fmt.Errorf("head %v: %w", h, mvcc.ErrHistory)
}

func (s *fakeSource) Pace(context.Context, uint64, int64) error { return mvcc.ErrNoBackup }

func (s *fakeSource) RememberHead(_ context.Context, _ RepositoryID, h mvcc.Head) error {
	if s.log == nil {
		return errors.ErrUnsupported
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.heads = append(s.log.heads, h)
	return nil
}

// fakeQuiet is a Quiet.
type fakeQuiet struct {
	l     *fakeLog
	timer *time.Timer
	over  chan struct{}
	lsn   block.LSN

	mu    sync.Mutex
	ended error
}

func (s *fakeSource) RepairBlock(ctx context.Context, r mvcc.BlockRepair) (mvcc.BlockRepaired, error) {
	if s.onRepair == nil {
		return mvcc.BlockRepaired{Block: r.Block, State: mvcc.RepairSound}, context.Cause(ctx)
	}
	return s.onRepair(r)
}

func (s *fakeSource) Quiesce(ctx context.Context, timeout time.Duration) (Quiet, error) {
	if err := errors.Join(checkQuietTimeout(timeout), context.Cause(ctx)); err != nil {
		return nil, err
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.quiets++
	q := &fakeQuiet{l: s.log, over: make(chan struct{}), lsn: s.log.durable}
	q.timer = time.AfterFunc(timeout, func() {
		if q.end(ErrQuietOver) == nil {
			close(q.over)
		}
	})
	return q, nil
}

func (q *fakeQuiet) end(why error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended != nil {
		return q.ended
	}
	q.ended = why
	q.l.mu.Lock()
	defer q.l.mu.Unlock()
	q.l.quiets--
	return nil
}

func (q *fakeQuiet) LSN() block.LSN        { return q.lsn }
func (q *fakeQuiet) Over() <-chan struct{} { return q.over }
func (q *fakeQuiet) Release() error {
	q.timer.Stop()
	if err := q.end(errReleased); err != nil && !errors.Is(err, errReleased) {
		return err
	}
	return nil
}

func (l *fakeLog) quiet() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiets
}
