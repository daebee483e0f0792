package livebackup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var ourLineage = lineageOf(fakeTimeline, nil)

// R15: whatever way a history is cut into objects, what they hold is the history.
func TestR15_ObjectsHoldWholeCommits(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 8 {
		h := newFakeHistory(rng.Uint64()).grow(100)
		if rng.IntN(4) == 0 {
			h.commit(3, 1<<20-40, "")
			h.grow(3)
		}
		repo := boundRepo(t, simfs.New(), "/repo")
		for at := block.LSN(0); at < h.newest(); {
			to := min(h.newest(), at+1+block.LSN(rng.IntN(40)))
			putLog(t, repo, h, fakeTimeline, LogRange{at, to})
			at = to
		}
		wantLog(t, repo, ourLineage, h, LogRange{0, h.newest()})
		for range 10 {
			from := block.LSN(rng.IntN(int(h.newest())))
			wantLog(t, repo, ourLineage, h, LogRange{from, from + 1 + block.LSN(rng.IntN(int(h.newest()-from)))})
		}
	}
}

// What an object says of itself is what is in it.
func TestLogSummary(t *testing.T) {
	h := newFakeHistory(3)
	h.commit(1, 100, "")
	h.commit(1, 0, "before the migration")
	h.commit(2, 5000, "")
	repo := boundRepo(t, simfs.New(), "/repo")
	o := putLog(t, repo, h, fakeTimeline, LogRange{1, 3})
	r, err := openLog(t.Context(), repo.objects, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	s := r.summary()
	if s.LogRange != (LogRange{1, 3}) || s.Records != 3 || s.FromSum != h.sum(1) || s.ToSum != h.sum(3) ||
		s.Database != fakeDatabase || s.Timeline != fakeTimeline || !s.First.Equal(h.commits[1].at) || !s.Last.Equal(h.commits[2].at) {
		t.Fatalf("%+v", s)
	}
	if len(s.Marks) != 1 || s.Marks[0] != (LogMark{"before the migration", 2, h.commits[1].at}) {
		t.Fatalf("%+v", s.Marks)
	}
}

// A commit that is larger than may be kept in memory is split off and streamed;
// what stands before it makes an object of its own.
func TestR15_LargeCommitIsStreamed(t *testing.T) {
	h := newFakeHistory(4)
	h.commit(1, 300, "")
	h.commit(1, 300, "")
	h.commit(6, 900_000, "")
	h.commit(1, 300, "")
	repo := boundRepo(t, simfs.New(), "/repo")
	b, err := newLogBuilder(logIdentity{database: fakeDatabase, timeline: fakeTimeline}, 0, CompressionNone)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	var w *logWriter
	err = h.each(LogRange{0, 4}, func(r mvcc.LogRecord) error {
		if err := b.add(r); err != nil {
			return err
		}
		if b.open && b.stored > 2<<20 {
			if b.commits() > 0 {
				if _, _, err := writeBatch(t, repo, b.split(), h.sum(0), h.sum(2)); err != nil {
					return err
				}
			}
			id, chunks := b.takeOpen()
			if w == nil {
				if w, err = createLog(t.Context(), repo.objects, id); err != nil {
					return err
				}
			}
			for _, c := range chunks {
				if err := w.chunk(c); err != nil {
					return err
				}
			}
			if b.bytes() > 4<<20 {
				t.Errorf("%d bytes in memory", b.bytes())
			}
		}
		if r.LSN == 3 && r.Last {
			batch := b.cut()
			for _, c := range batch.chunks {
				if err := w.chunk(c); err != nil {
					return err
				}
			}
			batch.footer.fromSum, batch.footer.toSum = h.sum(2), h.sum(3)
			_, _, err := w.publish(batch.footer)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := writeBatch(t, repo, b.cut(), h.sum(3), h.sum(4)); err != nil {
		t.Fatal(err)
	}
	if logs := mustLogs(t, repo); len(logs) != 3 || logs[1].LogRange != (LogRange{2, 3}) {
		t.Fatalf("%+v", logs)
	}
	wantLog(t, repo, ourLineage, h, LogRange{0, 4})
}

// A builder refuses what is no log.
func TestBuilderRefusesWhatIsNoLog(t *testing.T) {
	h := newFakeHistory(1).grow(3)
	body := h.commits[0].records[0]
	early := newFakeHistory(2)
	early.clock = early.clock.Add(-time.Hour)
	early.commit(1, 10, "")
	cases := map[string]mvcc.LogRecord{
		"a gap":       {LSN: 2, Last: true, Body: body},
		"again":       {LSN: 0, Last: true, Body: body},
		"no time":     {LSN: 1, Last: true, Body: h.image(nil, 10)},
		"no entries":  {LSN: 1, Last: true, Body: []byte("what")},
		"too long":    {LSN: 1, Last: true, Body: make([]byte, logBodyBytesMax+1)},
		"time before": {LSN: 2, Last: true, Body: early.commits[0].records[0]},
	}
	for name, r := range cases {
		b, err := newLogBuilder(logIdentity{}, 0, CompressionNone)
		if err != nil {
			t.Fatal(err)
		}
		if name == "time before" {
			if err := b.add(mvcc.LogRecord{LSN: 1, Last: true, Body: body}); err != nil {
				t.Fatal(err)
			}
		}
		if b.add(r) == nil {
			t.Errorf("%s: accepted", name)
		}
		b.close()
	}
}

// Every byte of a log object counts.
func TestEveryFlippedByteOfLogIsFound(t *testing.T) {
	h := newFakeHistory(5)
	h.commit(1, 40, "")
	h.commit(1, 0, "m")
	h.commit(2, 60, "")
	repo := boundRepo(t, simfs.New(), "/repo")
	o := putLog(t, repo, h, fakeTimeline, LogRange{0, 3})
	data := objectsOf(t, repo)[o.Name()]
	for i := range data {
		for bit := range 8 {
			if testing.Short() && bit != i%8 {
				continue
			}
			data[i] ^= 1 << bit
			rewrite(t, repo, o.Name(), data)
			got, err := readText(t, repo, ourLineage, LogRange{0, 3}, 0)
			if !errors.Is(err, block.ErrCorrupt) && !(errors.Is(err, ErrVersion) && i >= 8 && i < 12) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
			if got != h.text(LogRange{0, lostFrom(t, err) - 1}) {
				t.Fatalf("byte %d, bit %d: handed out\n%s", i, bit, got)
			}
			data[i] ^= 1 << bit
		}
	}
	for n := range len(data) {
		rewrite(t, repo, o.Name(), data[:n])
		if _, err := readText(t, repo, ourLineage, LogRange{0, 3}, 0); !errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	rewrite(t, repo, o.Name(), append(bytes.Clone(data), 0))
	if _, err := readText(t, repo, ourLineage, LogRange{0, 3}, 0); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("a byte more: %v", err)
	}
	rewrite(t, repo, o.Name(), data)
	wantLog(t, repo, ourLineage, h, LogRange{0, 3})
}

// Of a damaged object the commits before the damage are handed out, whole, and
// the error says where the loss begins and which object is to blame (T45).
func TestT45_DamageLosesOnlyWhatIsBehindIt(t *testing.T) {
	h := newFakeHistory(6)
	for range 9 {
		h.commit(1, 400_000, "")
	}
	repo := boundRepo(t, simfs.New(), "/repo")
	o := putLog(t, repo, h, fakeTimeline, LogRange{0, 6})
	putLog(t, repo, h, fakeTimeline, LogRange{6, 9})
	data := objectsOf(t, repo)[o.Name()]
	spoiled := bytes.Clone(data)
	spoiled[len(data)/2] ^= 1 // in the second chunk of three
	rewrite(t, repo, o.Name(), spoiled)
	got, err := readText(t, repo, ourLineage, LogRange{0, 9}, 0)
	var lost *LogLostError
	if !errors.As(err, &lost) || lost.Lost != (LogRange{2, 6}) || lost.Object != o.Name() || !errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrLogGap) {
		t.Fatal(err)
	}
	if got != h.text(LogRange{0, 2}) {
		t.Fatalf("handed out:\n%s", got)
	}
	wantLog(t, repo, ourLineage, h, LogRange{0, 2}) // which needs nothing that is damaged
	wantLog(t, repo, ourLineage, h, LogRange{6, 9})

	remove(t, repo, o.Name())
	_, err = readText(t, repo, ourLineage, LogRange{3, 8}, 0)
	if !errors.As(err, &lost) || lost.Lost != (LogRange{3, 6}) || !errors.Is(err, ErrLogGap) {
		t.Fatal(err)
	}
	_, err = readText(t, repo, ourLineage, LogRange{7, 12}, 0)
	if !errors.As(err, &lost) || lost.Lost != (LogRange{9, 0}) || !errors.Is(err, ErrLogGap) {
		t.Fatal(err)
	}
}

// R18: two objects that meet at an LSN but not in the same commit are no history,
// nor is a base that ends in another commit than the log goes on behind.
func TestR18_LogOfAnotherHistoryIsRefused(t *testing.T) {
	h := newFakeHistory(7).grow(10)
	other := h.fork(4, 8).grow(6)
	repo := boundRepo(t, simfs.New(), "/repo")
	putLog(t, repo, h, fakeTimeline, LogRange{0, 6})
	o := putLog(t, repo, other, fakeTimeline, LogRange{6, 10})
	got, err := readText(t, repo, ourLineage, LogRange{0, 10}, 0)
	if lostFrom(t, err) != 7 || !strings.Contains(err.Error(), o.Name()) || got != h.text(LogRange{0, 6}) {
		t.Fatal(err)
	}
	if _, err := readText(t, repo, ourLineage, LogRange{6, 10}, h.sum(6)); lostFrom(t, err) != 7 {
		t.Fatal(err)
	}
	if _, err := readText(t, repo, ourLineage, LogRange{6, 10}, other.sum(6)); err != nil {
		t.Fatal(err)
	}
}

// The log of another database or timeline under a name of ours is refused.
func TestForeignLogIsRefused(t *testing.T) {
	h := newFakeHistory(9).grow(4)
	twin := fakeTimeline
	twin[15]++ // has the same name
	repo := boundRepo(t, simfs.New(), "/repo")
	putLog(t, repo, h, twin, LogRange{0, 4})
	if _, err := readText(t, repo, ourLineage, LogRange{0, 4}, 0); lostFrom(t, err) != 1 || !errors.Is(err, ErrLogForeign) {
		t.Fatal(err)
	}
	other := openRepo(t, simfs.New(), "/repo")
	if err := other.bind(t.Context(), block.DatabaseID{7}); err != nil {
		t.Fatal(err)
	}
	putLog(t, other, h, fakeTimeline, LogRange{0, 4})
	if _, err := readText(t, other, ourLineage, LogRange{0, 4}, 0); lostFrom(t, err) != 1 || !errors.Is(err, ErrLogForeign) {
		t.Fatal(err)
	}
}

// sealed gives an object a right tail: what a hostile hand would do.
func sealed(header []byte, chunks [][]byte, footer []byte) []byte {
	data := append(bytes.Clone(header), bytes.Join(chunks, nil)...)
	data = append(append(data, footer...), encodeLogTail(footer)...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// craftChunk is a chunk with right checksums.
func craftChunk(number uint32, raw uint32, how codec, stored []byte) []byte {
	head := chunkHead{number, raw, uint32(len(stored)), how, checksum(stored)}.encode()
	return append(head[:], stored...)
}

// hostileLog has what it takes to make objects of two commits with right checksums
// and wrong contents.
type hostileLog struct {
	id      logIdentity
	records []byte // of the chunk
	footer  logFooter
}

func newHostile(h *fakeHistory) *hostileLog {
	x := &hostileLog{id: logIdentity{fakeDatabase, fakeTimeline, 0, 2}}
	h.each(LogRange{0, 2}, func(r mvcc.LogRecord) error { x.records = appendRecord(x.records, r); return nil })
	x.footer = logFooter{chunks: 1, first: h.commits[0].at, last: h.commits[1].at}
	for _, c := range h.commits {
		x.footer.records += uint64(len(c.records))
		for _, r := range c.records {
			x.footer.bytes += uint64(len(r))
		}
	}
	return x
}

// with is the footer, changed.
func (x *hostileLog) with(change func(f *logFooter)) []byte {
	f := x.footer
	change(&f)
	return f.encode()
}

// changed is a number in a copy of data, changed.
func changed(data []byte, off int, to uint32) []byte {
	data = bytes.Clone(data)
	le.PutUint32(data[off:], to)
	return data
}

// chunks are objects whose chunks lie, and one that does not.
func (x *hostileLog) chunks(t *testing.T) map[string][]byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	id, records, footer := x.id, x.records, x.footer
	hugeRecord, oddFlags := changed(records, 8, math.MaxUint32), changed(records, 12, 3)
	plain := [][]byte{craftChunk(0, uint32(len(records)), codecNone, records)}
	return map[string][]byte{
		"":               sealed(id.encode(), plain, footer.encode()),
		"bomb":           sealed(id.encode(), [][]byte{craftChunk(0, groupBytesMax, codecZstd, enc.EncodeAll(make([]byte, 64<<20), nil))}, footer.encode()),
		"raw size":       sealed(id.encode(), [][]byte{craftChunk(0, math.MaxUint32, codecZstd, enc.EncodeAll(records, nil))}, footer.encode()),
		"raw of nothing": sealed(id.encode(), [][]byte{craftChunk(0, 0, codecNone, nil)}, footer.encode()),
		"codec":          sealed(id.encode(), [][]byte{craftChunk(0, uint32(len(records)), 7, records)}, footer.encode()),
		"chunk number":   sealed(id.encode(), [][]byte{craftChunk(1, uint32(len(records)), codecNone, records)}, footer.encode()),
		"half a record":  sealed(id.encode(), [][]byte{craftChunk(0, uint32(len(records)-1), codecNone, records[:len(records)-1])}, footer.encode()),
		"twice":          sealed(id.encode(), append(plain, craftChunk(1, uint32(len(records)), codecNone, records)), x.with(func(f *logFooter) { f.chunks = 2 })),
		"no chunks":      sealed(id.encode(), nil, footer.encode()),
		"record size":    sealed(id.encode(), [][]byte{craftChunk(0, uint32(len(records)), codecNone, hugeRecord)}, footer.encode()),
		"record flags":   sealed(id.encode(), [][]byte{craftChunk(0, uint32(len(records)), codecNone, oddFlags)}, footer.encode()),
		"commit beyond":  sealed(logIdentity{fakeDatabase, fakeTimeline, 0, 1}.encode(), plain, footer.encode()),
		"commit missing": sealed(logIdentity{fakeDatabase, fakeTimeline, 0, 3}.encode(), plain, x.with(func(f *logFooter) { f.records = 3 })),
		"another start":  sealed(logIdentity{fakeDatabase, fakeTimeline, 1, 3}.encode(), plain, footer.encode()),
		"nothing":        {},
		"only a tail":    sealed(nil, nil, nil),
	}
}

// footers are objects whose footers lie.
func (x *hostileLog) footers() map[string][]byte {
	id, records, footer, with, at := x.id, x.records, x.footer, x.with, x.footer.first
	longName := changed(with(func(f *logFooter) { f.marks = []LogMark{{"m", 1, at}} }), logFooterSize+16, math.MaxUint32)
	manyMarks := changed(footer.encode(), 28, math.MaxUint32)
	plain := [][]byte{craftChunk(0, uint32(len(records)), codecNone, records)}
	return map[string][]byte{
		"count of records":  sealed(id.encode(), plain, with(func(f *logFooter) { f.records++ })),
		"too few records":   sealed(id.encode(), plain, with(func(f *logFooter) { f.records = 1 })),
		"count of bytes":    sealed(id.encode(), plain, with(func(f *logFooter) { f.bytes++ })),
		"count of chunks":   sealed(id.encode(), plain, with(func(f *logFooter) { f.chunks = 2 })),
		"no chunk at all":   sealed(id.encode(), plain, with(func(f *logFooter) { f.chunks = 0 })),
		"time steps back":   sealed(id.encode(), plain, with(func(f *logFooter) { f.last = at.Add(-1) })),
		"mark beyond":       sealed(id.encode(), plain, with(func(f *logFooter) { f.marks = []LogMark{{"m", 3, at}} })),
		"mark of base":      sealed(id.encode(), plain, with(func(f *logFooter) { f.marks = []LogMark{{"m", 0, at}} })),
		"marks out of turn": sealed(id.encode(), plain, with(func(f *logFooter) { f.marks = []LogMark{{"m", 2, at}, {"n", 1, at}} })),
		"mark no name":      sealed(id.encode(), plain, with(func(f *logFooter) { f.marks = []LogMark{{"", 1, at}} })),
		"mark no text":      sealed(id.encode(), plain, with(func(f *logFooter) { f.marks = []LogMark{{"\xff", 1, at}} })),
		"mark's length":     sealed(id.encode(), plain, longName),
		"how many marks":    sealed(id.encode(), plain, manyMarks),
		"footer and more":   sealed(id.encode(), plain, append(footer.encode(), 0)),
		"footer too short":  sealed(id.encode(), plain, footer.encode()[:logFooterSize-1]),
		"footer too long":   sealed(id.encode(), plain, make([]byte, logFooterBytesMax+1)),
	}
}

// Objects with right checksums and wrong contents are refused, and take no more
// memory than the caps say.
func TestHostileLogIsRefused(t *testing.T) {
	h := newFakeHistory(1).grow(2)
	x := newHostile(h)
	cases := x.chunks(t)
	maps.Copy(cases, x.footers())
	for name, data := range cases {
		repo := boundRepo(t, simfs.New(), "/repo")
		to := block.LSN(2)
		if len(data) > 64 {
			to = max(1, block.LSN(data[56]))
		}
		from := block.LSN(0)
		if name == "another start" {
			from = 1
		}
		o := logIdentity{fakeDatabase, fakeTimeline, from, to}.object(0)
		rewrite(t, repo, o.Name(), data)
		var s recordText
		err := repo.readLog(t.Context(), mustLogs(t, repo), ourLineage, o.LogRange, 0, s.see)
		if name == "" && err == nil && s.String() == h.text(LogRange{0, 2}) {
			continue
		}
		if !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLogObject: whatever stands in a chunk and in a footer with right checksums,
// what is handed out is whole commits in order, all of them or an error.
func FuzzLogObject(f *testing.F) {
	x := newHostile(newFakeHistory(1).grow(2))
	f.Add(x.records, x.footer.encode())
	f.Add(x.records[:20], x.with(func(f *logFooter) { f.marks = []LogMark{{"m", 1, f.first}} }))
	repo := boundRepo(f, simfs.New(), "/repo")
	others := repo.objects
	d, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	defer d.close()
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, raw, footer []byte) {
		data := sealed(x.id.encode(), [][]byte{craftChunk(0, uint32(len(raw)), codecNone, raw)}, footer)
		part := logPart{LogRange{0, 2}, x.id.object(int64(len(data))), fakeTimeline}
		repo.objects = inMemory{others, part.object.Name(), data}
		last := block.LSN(0)
		_, err := repo.readPart(t.Context(), d, part, 0, func(r mvcc.LogRecord) error {
			if r.LSN != last+1 {
				t.Fatalf("commit %v behind %v", r.LSN, last)
			}
			if r.Last {
				last = r.LSN
			}
			return nil
		})
		if err == nil && last != 2 || err != nil && !errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("%v: %v", last, err)
		}
	}))
}

// FuzzLogNames: what parses is a name that we make.
func FuzzLogNames(f *testing.F) {
	f.Add(logIdentity{from: 1, to: 2}.object(0).Name())
	f.Add("log-1-2-00000000")
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, name string) {
		if o, ok := parseLogName(ObjectInfo{Name: name}); ok && (o.Name() != name || !validName(name) || o.From >= o.To) {
			t.Fatalf("%q parses as %+v", name, o)
		}
	}))
}

// The bytes of a log object of format version 1, for ever.
func TestGoldenLogFormat(t *testing.T) {
	h := newFakeHistory(11)
	h.commit(1, 3, "")
	h.commit(1, 0, "mark")
	h.commit(2, 3, "")
	repo := boundRepo(t, simfs.New(), "/repo")
	b, err := newLogBuilder(logIdentity{database: fakeDatabase, timeline: fakeTimeline}, 1, CompressionNone)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := h.each(LogRange{1, 3}, b.add); err != nil {
		t.Fatal(err)
	}
	o, _, err := writeBatch(t, repo, b.cut(), 0xcafe, 0xbeef)
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := len(h.commits[1].records[0]), len(h.commits[2].records[0]), len(h.commits[2].records[1])
	got := dump(o.Name(), objectsOf(t, repo)[o.Name()], []field{
		{8, "magic"}, {4, "version"}, {4, "zero"}, {16, "database"}, {16, "timeline"}, {8, "from"}, {8, "to"}, {12, "zero"}, {4, "CRC"},
		{4, "chunk"}, {4, "raw"}, {4, "stored"}, {4, "codec"}, {4, "CRC of stored bytes"}, {4, "CRC"},
		{8, "record: LSN"}, {4, "length"}, {4, "flags"}, {first, "body"},
		{8, "record: LSN"}, {4, "length"}, {4, "flags"}, {second, "body"},
		{8, "record: LSN"}, {4, "length"}, {4, "flags"}, {third, "body"},
		{8, "footer: magic"}, {8, "records"}, {8, "bytes"}, {4, "chunks"}, {4, "marks"}, {4, "from sum"}, {4, "to sum"},
		{8, "first time"}, {8, "last time"}, {16, "zero"}, {8, "mark: LSN"}, {8, "time"}, {4, "length"}, {4, "name"},
		{4, "tail: footer"}, {4, "CRC of the footer"}, {4, "zero"}, {4, "CRC"}, {32, "SHA-256"},
	})
	golden := filepath.Join("testdata", "logformat-v1.txt")
	if *rewriteGolden {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("got:\n%swant:\n%s", got, want)
	}
}

// An archive of format version 1 is read by every later program: a timeline and
// the one that forked from it.
func TestGoldenArchive(t *testing.T) {
	dir := filepath.Join("testdata", "archive-v1")
	h := newFakeHistory(12).grow(40)
	h.commit(2, 2000, "release")
	child := h.fork(30, 13).grow(20)
	second := block.TimelineID{3, 3, 3, 3, 3}
	if *rewriteGolden {
		os.RemoveAll(dir)
		repo := boundRepo(t, vfs.OS, dir)
		putLog(t, repo, h, fakeTimeline, LogRange{0, 25})
		putLog(t, repo, h, fakeTimeline, LogRange{25, 41})
		putLog(t, repo, child, second, LogRange{30, 50})
	}
	repo, err := OpenRepository(t.Context(), dir, RepositoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, repo, ourLineage, h, LogRange{0, 41})
	wantLog(t, repo, lineageOf(second, []block.Fork{{Timeline: fakeTimeline, LSN: 30}}), child, LogRange{0, 50})
	x, err := repo.newLogIndex(mustLogs(t, repo), ourLineage)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	if m, err := x.atMark(t.Context(), "release"); err != nil || m.At.LSN != 41 || m.Before.LSN != 40 {
		t.Fatalf("%+v, %v", m, err)
	}
}
