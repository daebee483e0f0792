package livebackup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// LogObject is an archived stretch of log, as its name tells.
type LogObject struct {
	LogRange
	Size int64 // bytes

	timeline uint32 // start of its id
}

// LogRange is the commits (From, To], From itself is not among them: what leads from the
// state as of From to the one as of To.
type LogRange struct {
	From block.LSN `json:"from"`
	To   block.LSN `json:"to"`
}

func (r LogRange) String() string { return fmt.Sprintf("(%v, %v]", r.From, r.To) }

// Commits names the first and the last commit of the range, for people; there is at least
// one.
func (r LogRange) Commits() string { return StateRange{r.From + 1, r.To}.String() }

// overlaps reports whether a commit is in both.
func (r LogRange) overlaps(o LogRange) bool { return r.From < o.To && o.From < r.To }

// timelineStart is what the name of a log object says of its timeline.
func timelineStart(t block.TimelineID) uint32 {
	return uint32(t[0])<<24 | uint32(t[1])<<16 | uint32(t[2])<<8 | uint32(t[3])
}

// object is what the name of the object of id says of it.
func (id logIdentity) object(size int64) LogObject {
	return LogObject{LogRange{id.from, id.to}, size, timelineStart(id.timeline)}
}

// Name is the object's name in the repository.
func (o LogObject) Name() string {
	return fmt.Sprintf("log-%020d-%020d-%08x", uint64(o.From), uint64(o.To), o.timeline)
}

// parseLogName reads what Name wrote, and nothing else.
func parseLogName(info ObjectInfo) (o LogObject, ok bool) {
	if !strings.HasPrefix(info.Name, "log-") {
		return o, false
	}
	n, err := fmt.Sscanf(info.Name, "log-%d-%d-%x", &o.From, &o.To, &o.timeline)
	o.Size = info.Size
	return o, n == 3 && err == nil && o.From < o.To && o.Name() == info.Name
}

// logs lists the log objects, by timeline, then by LSN.
func (r *Repository) logs(ctx context.Context) ([]LogObject, error) {
	c, err := r.catalog(ctx)
	if err != nil {
		return nil, err
	}
	return c.logs, nil
}

// byPlace orders log objects by timeline, then by LSN.
func byPlace(a, b LogObject) int {
	return cmp.Or(cmp.Compare(a.timeline, b.timeline), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
}

// LogSummary is what a log object says of itself.
type LogSummary struct {
	LogRange
	Database block.DatabaseID
	Timeline block.TimelineID
	Records  uint64
	RawBytes uint64 // of the records
	// FromSum and ToSum are the checksums of the log records that end From and
	// To: with them the names of states in a history (R18). 0: not known.
	FromSum, ToSum uint32
	First, Last    time.Time // of the first and the last commit
	Marks          []LogMark
}

// logReader reads a log object whose header, footer and tail are sound. Not safe
// for concurrent use.
type logReader struct {
	name   string
	in     ObjectReader
	id     logIdentity
	footer logFooter
	end    int64 // of the chunks: the footer stands here
	digest Digest
}

// openLog opens a log object and reads what it says of itself.
func openLog(ctx context.Context, objects Objects, o LogObject) (*logReader, error) {
	name := o.Name()
	in, err := objects.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(name, -1, "object is missing", err)
	}
	if err != nil {
		return nil, err
	}
	r := &logReader{name: name, in: in}
	if err := r.readSelf(); err != nil {
		in.Close()
		return nil, err
	}
	return r, nil
}

// readSelf reads header, tail and footer.
func (r *logReader) readSelf() error {
	size := r.in.Size()
	if size < logObjectBytesMin {
		return damaged(r.name, -1, fmt.Sprintf("%d bytes are too few for a log object", size), nil)
	}
	var header [logHeaderSize]byte
	var tail [logTailSize]byte
	if err := errors.Join(r.fill(header[:], 0), r.fill(tail[:], size-logTailSize)); err != nil {
		return err
	}
	var err error
	if r.id, err = decodeLogHeader(r.name, header[:]); err != nil {
		return err
	}
	length, crc, err := decodeLogTail(r.name, size-logTailSize, tail[:])
	if err != nil {
		return err
	}
	copy(r.digest[:], tail[16:])
	r.end = size - logTailSize - int64(length)
	if r.end < logHeaderSize+chunkHeadSize {
		return damaged(r.name, -1, "footer leaves no room for chunks", nil)
	}
	footer := make([]byte, length)
	if err := r.fill(footer, r.end); err != nil {
		return err
	}
	if checksum(footer) != crc {
		return damaged(r.name, r.end, "footer's checksum does not agree", nil)
	}
	r.footer, err = decodeLogFooter(r.name, r.end, footer, r.id)
	return err
}

func (r *logReader) fill(p []byte, off int64) error {
	if err := readFull(r.in, p, off); err != nil {
		return fmt.Errorf("read %s at offset %d: %w", r.name, off, err)
	}
	return nil
}

func (r *logReader) close() { r.in.Close() }

func (r *logReader) summary() LogSummary {
	f := &r.footer
	return LogSummary{
		LogRange: LogRange{r.id.from, r.id.to}, Database: r.id.database, Timeline: r.id.timeline,
		Records: f.records, RawBytes: f.bytes, FromSum: f.fromSum, ToSum: f.toSum, First: f.first, Last: f.last, Marks: f.marks,
	}
}

// prove reads the whole object and compares its SHA-256: what records yields
// from then on is what was written.
func (r *logReader) prove(ctx context.Context) error {
	sum, end := sha256.New(), r.in.Size()-sha256.Size
	buf := make([]byte, min(256<<10, max(end, 0)))
	for off := int64(0); off < end; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if err := r.fill(p, off); err != nil {
			return err
		}
		sum.Write(p)
		off += int64(len(p))
	}
	if Digest(sum.Sum(nil)) != r.digest {
		return damaged(r.name, -1, "SHA-256 does not agree", nil)
	}
	return nil
}

// errEnough ends a reading of records that has found what it wants.
var errEnough = errors.New("enough was read")

// records calls fn for every record in order. Bodies are valid during the call. An
// error of fn ends it and is returned as it is. It proves all but the SHA-256.
func (r *logReader) records(ctx context.Context, d *decoder, fn func(mvcc.LogRecord) error) error {
	p := logPass{r: r, d: d, due: r.id.from + 1, off: logHeaderSize}
	for p.off < r.end {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := p.chunk(fn); err != nil {
			return err
		}
	}
	f := &r.footer
	if p.due != r.id.to+1 || p.open || p.number != f.chunks || p.records != f.records || p.bytes != f.bytes {
		return damaged(r.name, p.off, "it ends before or behind what its footer says", nil)
	}
	return nil
}

// soundUntil looks into an object whose SHA-256 does not agree: it returns the
// last commit before the first damage that the checksums of chunks find, and that.
// No error: they find none, and nobody knows what is wrong.
func (r *logReader) soundUntil(ctx context.Context, d *decoder) (block.LSN, error) {
	sound := r.id.from
	err := r.records(ctx, d, func(rec mvcc.LogRecord) error {
		if rec.Last {
			sound = rec.LSN
		}
		return nil
	})
	return sound, err
}

// logPass is one pass over the chunks of an object.
type logPass struct {
	r           *logReader
	d           *decoder
	off         int64
	due         block.LSN // commit whose record comes next
	open        bool      // a part of it came
	number      uint32
	records     uint64
	bytes       uint64
	stored, raw []byte
}

func (p *logPass) chunk(fn func(mvcc.LogRecord) error) error {
	r, at := p.r, p.off
	var head [chunkHeadSize]byte
	if r.end-at < chunkHeadSize {
		return damaged(r.name, at, "chunks end within a header", nil)
	}
	if err := r.fill(head[:], at); err != nil {
		return err
	}
	h, err := decodeChunkHead(r.name, at, head[:], p.number)
	if err != nil {
		return err
	}
	if int64(h.stored) > r.end-at-chunkHeadSize {
		return damaged(r.name, at, "chunk is longer than what is left", nil)
	}
	p.stored = slices.Grow(p.stored[:0], int(h.stored))[:h.stored] // capped by decodeChunkHead, as raw is
	if err := r.fill(p.stored, at+chunkHeadSize); err != nil {
		return err
	}
	if checksum(p.stored) != h.crc {
		return damaged(r.name, at, "chunk's checksum does not agree", nil)
	}
	p.raw = slices.Grow(p.raw[:0], int(h.raw))[:h.raw]
	raw, err := p.d.decode(h.codec, p.stored, p.raw)
	if err != nil {
		return damaged(r.name, at, "chunk does not decode", err)
	}
	p.number++
	p.off += chunkHeadSize + int64(h.stored)
	return p.decoded(at, raw, fn)
}

// decoded hands out the records of a chunk.
func (p *logPass) decoded(at int64, raw []byte, fn func(mvcc.LogRecord) error) error {
	for len(raw) > 0 {
		rec, rest, ok := cutRecord(raw)
		if !ok {
			return damaged(p.r.name, at, "chunk holds something that is no record", nil)
		}
		if rec.LSN != p.due || p.due > p.r.id.to {
			return damaged(p.r.name, at, fmt.Sprintf("a record of commit %v where %v was due", rec.LSN, p.due), nil)
		}
		if err := fn(rec); err != nil {
			return err
		}
		p.records++
		p.bytes += uint64(len(rec.Body))
		if p.open = !rec.Last; rec.Last {
			p.due++
		}
		raw = rest
	}
	return nil
}

// logWriter writes one log object. After an error only abort may be called. Not
// safe for concurrent use.
type logWriter struct {
	w      ObjectWriter
	sum    hash.Hash
	object LogObject
	number uint32
}

// createLog begins the object of id.
func createLog(ctx context.Context, objects Objects, id logIdentity) (*logWriter, error) {
	o := id.object(0)
	w, err := objects.Create(ctx, o.Name())
	if err != nil {
		return nil, writeError("start "+o.Name(), err)
	}
	l := &logWriter{w: w, sum: sha256.New(), object: o}
	if err := l.write(id.encode()); err != nil {
		l.abort()
		return nil, err
	}
	return l, nil
}

func (l *logWriter) write(p []byte) error {
	if _, err := l.w.Write(p); err != nil {
		return writeError("write "+l.object.Name(), err)
	}
	l.sum.Write(p)
	l.object.Size += int64(len(p))
	return nil
}

func (l *logWriter) chunk(c logChunk) error {
	head := chunkHead{number: l.number, raw: c.raw, stored: uint32(len(c.stored)), codec: c.codec, crc: c.crc}.encode()
	if err := l.write(head[:]); err != nil {
		return err
	}
	l.number++
	return l.write(c.stored)
}

// publish ends the object, makes it durable and lets it appear.
func (l *logWriter) publish(f logFooter) (LogObject, Digest, error) {
	f.chunks = l.number
	footer := f.encode()
	if err := errors.Join(l.write(footer), l.write(encodeLogTail(footer))); err != nil {
		return l.object, Digest{}, err
	}
	digest := Digest(l.sum.Sum(nil))
	if err := l.write(digest[:]); err != nil {
		return l.object, digest, err
	}
	if err := l.w.Commit(); err != nil {
		return l.object, digest, writeError("publish "+l.object.Name(), err)
	}
	return l.object, digest, nil
}

func (l *logWriter) abort() { l.w.Abort() }

// readBack proves that a log object is what was written a moment ago: that it
// decodes, and that it is the one with that digest.
func (r *Repository) readBack(ctx context.Context, o LogObject, digest Digest) error {
	in, err := openLog(ctx, r.objects, o)
	if err != nil {
		return err
	}
	defer in.close()
	if in.digest != digest || in.in.Size() != o.Size {
		return damaged(in.name, -1, "it reads back other than it was written", nil)
	}
	d, err := newDecoder()
	if err != nil {
		return err
	}
	defer d.close()
	if err := in.prove(ctx); err != nil {
		return err
	}
	return in.records(ctx, d, func(mvcc.LogRecord) error { return nil })
}
