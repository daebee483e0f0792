package livebackup

import (
	"bytes"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// logChunkBytes is how much log is compressed together, but for a longer record.
const logChunkBytes = 1 << 20

// logChunk is a chunk on its way into an object.
type logChunk struct {
	stored []byte
	raw    uint32
	codec  codec
	crc    uint32
}

// logBuilder collects the commits of a log object in memory, compressed. A commit
// that grows too large for that can be split off, and its chunks be taken away
// while it grows. Not safe for concurrent use.
type logBuilder struct {
	id     logIdentity // to: the last whole commit
	footer logFooter   // of the whole commits
	scan   func(body []byte) (mvcc.RecordInfo, error)

	chunks []logChunk // what is packed and was not taken away
	stored int64      // bytes of these
	raw    []byte     // records that are not packed
	enc    *encoder
	out    []byte // room for the encoder

	// Of a commit whose last record has not come:
	open   bool
	before int // how many of chunks hold nothing of it
	part   logFooter
}

// newLogBuilder begins behind commit after of the timeline of id.
func newLogBuilder(id logIdentity, after block.LSN, c Compression) (*logBuilder, error) {
	id.from, id.to = after, after
	enc, err := newEncoder(c, logChunkBytes+recordHeadSize)
	if err != nil {
		return nil, err
	}
	b := &logBuilder{id: id, scan: mvcc.ScanRecord, enc: enc, raw: make([]byte, 0, logChunkBytes+recordHeadSize)}
	b.out = make([]byte, 0, enc.outputMax(cap(b.raw)))
	return b, nil
}

func (b *logBuilder) close() { b.enc.close() }

// commits counts the whole commits.
func (b *logBuilder) commits() uint64 { return uint64(b.id.to - b.id.from) }

// bytes is what the builder takes in memory.
func (b *logBuilder) bytes() int64 { return b.stored + int64(cap(b.raw)+cap(b.out)) }

// add takes the next record.
func (b *logBuilder) add(r mvcc.LogRecord) error {
	if r.LSN != b.id.to+1 || len(r.Body) > logBodyBytesMax {
		return fmt.Errorf("source handed out %d bytes of log of commit %v where %v was due", len(r.Body), r.LSN, b.id.to+1)
	}
	if !b.open {
		if err := b.begin(r); err != nil {
			return err
		}
	}
	if len(b.raw) > 0 && len(b.raw)+recordHeadSize+len(r.Body) > logChunkBytes {
		b.pack()
	}
	b.raw = appendRecord(b.raw, r)
	b.part.records++
	b.part.bytes += uint64(len(r.Body))
	if r.Last {
		b.end()
	}
	return nil
}

// begin looks at the first record of a commit. A commit of more than one record
// begins a chunk, so that it can be split off.
func (b *logBuilder) begin(r mvcc.LogRecord) error {
	info, err := b.scan(r.Body)
	if err != nil {
		return fmt.Errorf("look at commit %v: %w", r.LSN, err)
	}
	at := info.Time.UTC()
	if info.Time.IsZero() || at.Before(b.footer.last) {
		return fmt.Errorf("commit %v has time %v, the one before %v", r.LSN, at, b.footer.last)
	}
	if len(info.Marks) > logMarksMax/2 {
		return fmt.Errorf("commit %v has %d names", r.LSN, len(info.Marks))
	}
	b.part = logFooter{first: at}
	for _, name := range info.Marks {
		if err := checkMarkName(name); err != nil {
			return fmt.Errorf("commit %v: %w", r.LSN, err)
		}
		b.part.marks = append(b.part.marks, LogMark{name, r.LSN, at})
	}
	if !r.Last {
		b.pack()
	}
	b.open, b.before = true, len(b.chunks)
	return nil
}

// end makes the commit in hand a whole one.
func (b *logBuilder) end() {
	f := &b.footer
	if b.commits() == 0 {
		f.first = b.part.first
	}
	f.last = b.part.first
	f.records += b.part.records
	f.bytes += b.part.bytes
	f.marks = append(f.marks, b.part.marks...)
	b.open = false
	b.id.to++
}

// full reports whether the object should end here for the sake of its marks.
func (b *logBuilder) full() bool { return len(b.footer.marks) >= logMarksMax/2 }

// pack compresses what is not.
func (b *logBuilder) pack() {
	if len(b.raw) == 0 {
		return
	}
	stored, how := b.enc.encode(b.raw, b.out)
	c := logChunk{stored: bytes.Clone(stored), raw: uint32(len(b.raw)), codec: how, crc: checksum(stored)}
	b.chunks, b.stored, b.raw = append(b.chunks, c), b.stored+int64(len(c.stored)), b.raw[:0]
}

// logBatch is whole commits that make an object.
type logBatch struct {
	id     logIdentity
	footer logFooter
	chunks []logChunk
}

// whole takes the whole commits out of the builder; there is at least one.
func (b *logBuilder) whole() logBatch {
	if b.open {
		return b.split()
	}
	return b.cut()
}

// cut takes the whole commits out of the builder, which goes on behind them; there
// is at least one, and none is open.
func (b *logBuilder) cut() logBatch {
	b.pack()
	return b.take(len(b.chunks))
}

// split takes the whole commits out of the builder, which goes on with the open
// one: all in chunks by now.
func (b *logBuilder) split() logBatch {
	batch := b.take(b.before)
	b.before = 0
	return batch
}

func (b *logBuilder) take(chunks int) logBatch {
	batch := logBatch{b.id, b.footer, b.chunks[:chunks:chunks]}
	for _, c := range batch.chunks {
		b.stored -= int64(len(c.stored))
	}
	b.chunks = append([]logChunk(nil), b.chunks[chunks:]...)
	b.id.from, b.footer = b.id.to, logFooter{last: b.footer.last}
	return batch
}

// takeOpen takes away what is packed of an open commit, and says what its object
// will be.
func (b *logBuilder) takeOpen() (logIdentity, []logChunk) {
	id, chunks := b.id, b.chunks
	id.to++
	b.chunks, b.stored = nil, 0
	return id, chunks
}
