package livebackup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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
