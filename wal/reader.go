package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

const windowBytes = 256 << 10

// windows are those of readers that were closed: an opening reads each segment several
// times, and what follows the log opens one again and again.
var windows = sync.Pool{New: func() any { return new([]byte) }}

// segmentReader decodes the records of one segment file through a bounded
// window.
type segmentReader struct {
	seg    *segment
	path   string
	file   vfs.File
	window []byte // what was read ...
	off    int64  // ... from here on
	lent   *[]byte
}

func openSegment(o *Options, seg *segment) (*segmentReader, error) {
	r := &segmentReader{seg: seg, path: seg.path(o.Dir)}
	f, err := o.FS.OpenFile(r.path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	r.file = f
	return r, nil
}

// close may be called on a nil reader. What the reader returned is not valid any more.
func (r *segmentReader) close() {
	if r == nil {
		return
	}
	r.file.Close() // opened for reading: nothing to lose
	if r.lent != nil && cap(r.window) <= windowBytes {
		*r.lent = r.window
		windows.Put(r.lent)
	}
	r.window, r.lent = nil, nil
}

// bytes returns n bytes from off on, or fewer where the segment ends. They
// stay valid until the next call.
func (r *segmentReader) bytes(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), r.seg.header.size-off)))
	if at := off - r.off; at >= 0 && at+int64(n) <= int64(len(r.window)) {
		return r.window[at : at+int64(n)], nil
	}
	want := int(min(int64(max(n, windowBytes)), r.seg.header.size-off))
	if r.lent == nil {
		r.lent = windows.Get().(*[]byte)
		r.window = *r.lent
	}
	if cap(r.window) < want {
		r.window = make([]byte, want)
	}
	r.window, r.off = r.window[:want], off
	got, err := r.file.ReadAt(r.window, off)
	r.window = r.window[:got]
	if got < n && err != nil && err != io.EOF {
		return nil, fmt.Errorf("read segment at offset %d: %w", off, err)
	}
	return r.window[:min(n, got)], nil
}

// record reads the record at off; ok is false if there is no sound one.
func (r *segmentReader) record(off int64) (rec record, ok bool, err error) {
	b, err := r.bytes(off, recordHeaderBytes)
	if err != nil {
		return rec, false, err
	}
	n, ok := r.seg.seal.peekRecord(b, off)
	if !ok {
		return rec, false, nil
	}
	if b, err = r.bytes(off, n); err != nil {
		return rec, false, err
	}
	rec, ok = r.seg.seal.decodeRecord(b, off)
	return rec, ok, nil
}

// candidate is the first offset from off on where a record's tag stands, -1 if
// there is none: what is worth a checksum.
func (r *segmentReader) candidate(off int64) (int64, error) {
	for {
		b, err := r.bytes(off, recordHeaderBytes)
		if err != nil || len(b) < recordHeaderBytes {
			return -1, err
		}
		b = r.window[off-r.off:]
		for len(b) >= recordHeaderBytes {
			if binary.LittleEndian.Uint32(b[4:]) == r.seg.seal.tagAt(off) {
				return off, nil
			}
			b = b[recordAlign:]
			off += recordAlign
		}
	}
}

// follows reports whether rec is the record due behind one of commit lsn with
// checksum sum; open says that lsn is not complete.
func (r *record) follows(lsn block.LSN, sum uint32, open bool) bool {
	due := lsn
	if !open && !r.is(flagMark) {
		due++
	}
	return r.lsn == due && r.prevSum == sum
}

// completes reports whether no commit is open behind r, given whether one was
// open before it.
func (r *record) completes(open bool) bool {
	if r.is(flagMark) {
		return !open
	}
	return r.is(flagLast)
}

// Read calls fn for every record of the durable commits from LSN from on, in
// order, up to the horizon at the time of the call: what it hands out may leave
// the process (R6). body is what Append was given, valid during the call; last
// ends a commit. An error of fn ends the reading and is returned.
//
// It is safe while others append. ErrReleased if the log does not reach back to
// from, or is released meanwhile: keep a [Holder]. Also allowed after the log
// has failed.
func (l *Log) Read(from block.LSN, fn func(lsn block.LSN, body []byte, last bool) error) error {
	return l.read(from, l.Durable(), func(r *record) error { return fn(r.lsn, r.body, r.is(flagLast)) })
}

// Replay is Read for recovery: every accepted commit from LSN from on. It may
// be called several times, but only between Open and the first Append.
func (l *Log) Replay(from block.LSN, fn func(lsn block.LSN, body []byte, last bool) error) error {
	l.mu.Lock()
	appended := l.cur != nil
	l.mu.Unlock()
	if appended {
		return fmt.Errorf("replay of a log that was appended to: %w", ErrOrder)
	}
	return l.Read(from, fn)
}

// Checksum returns the checksum of the record that ends durable commit lsn: the
// pair names this log's history (R18). Errors as of [Log.Read].
func (l *Log) Checksum(lsn block.LSN) (sum uint32, err error) {
	if lsn > l.Durable() {
		return 0, fmt.Errorf("checksum of LSN %v: above the durable horizon: %w", lsn, ErrOrder)
	}
	if sum := l.sumOfEnd(lsn); sum != 0 {
		return sum, nil
	}
	err = l.read(lsn, lsn, func(r *record) error {
		sum = r.sum
		return nil
	})
	if err == nil {
		l.keepSumOfEnd(lsn, sum)
	}
	return sum, err
}

// sumOfEnd is the checksum of the newest commit, the one that is asked for nearly always,
// or 0: to read it may take a whole segment.
func (l *Log) sumOfEnd(lsn block.LSN) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || lsn != l.end {
		return 0
	}
	return l.endSum
}

func (l *Log) keepSumOfEnd(lsn block.LSN, sum uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lsn == l.end {
		l.endSum = sum
	}
}

// read hands out the records of commits [from, to], bodies reassembled.
func (l *Log) read(from, to block.LSN, fn func(*record) error) error {
	if from > to {
		return nil
	}
	segs, err := l.segmentsFrom(from)
	if err != nil {
		return err
	}
	p := l.passFrom(segs[0], from, to)
	p.fn = fn
	return p.run(segs)
}

// segmentsFrom returns the live segments from the one that commit from begins
// in, as they stand now.
func (l *Log) segmentsFrom(from block.LSN) ([]*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	for i := len(l.live) - 1; i >= 0; i-- {
		if l.live[i].first() <= from {
			return append([]*segment(nil), l.live[i:]...), nil
		}
	}
	return nil, fmt.Errorf("read log from LSN %v: %w", from, ErrReleased)
}

// readPass is one pass over a range of commits.
type readPass struct {
	l        *Log
	from, to block.LSN
	fn       func(*record) error

	// The record before the one that is due, and where that is due.
	lsn  block.LSN
	sum  uint32
	open bool
	seg  *segment
	off  int64

	body []byte // pieces of a body so far
}

// passFrom begins at the start of a segment.
func (l *Log) passFrom(seg *segment, from, to block.LSN) *readPass {
	h := &seg.header
	return &readPass{l: l, from: from, to: to, lsn: h.prevLSN, sum: h.prevSum, open: h.open, off: recordsOffset}
}

// run hands out what of the range is in segs, of which the first is begun where
// the pass is.
func (p *readPass) run(segs []*segment) error {
	for i, seg := range segs {
		// The last one may grow, but the range ends in it. The others are
		// complete.
		end := seg.header.size
		if i < len(segs)-1 {
			end = seg.end
		}
		if done, err := p.segment(seg, end); done || err != nil {
			return err
		}
		p.off = recordsOffset
	}
	return corrupt(segs[len(segs)-1].path(p.l.o.Dir), -1, fmt.Sprintf("log ends at LSN %v, %v is durable", p.lsn, p.to), nil)
}

// segment hands out what of the range is in seg, whose records end at end; done
// once all of the range is handed out.
func (p *readPass) segment(seg *segment, end int64) (done bool, err error) {
	r, err := openSegment(&p.l.o, seg)
	if err != nil {
		return false, p.explain(seg, err)
	}
	defer r.close()
	p.seg = seg
	for p.off < end {
		off := p.off
		rec, ok, err := r.record(off)
		if err == nil && (!ok || !rec.follows(p.lsn, p.sum, p.open)) {
			err = corrupt(r.path, off, fmt.Sprintf("record behind LSN %v is damaged", p.lsn), nil)
		}
		if err != nil {
			return false, p.explain(seg, err)
		}
		p.off += int64(recordBytes(len(rec.body)))
		if done, err := p.record(&rec); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// record hands out rec if it is in the range, joined with the pieces before it.
func (p *readPass) record(rec *record) (done bool, err error) {
	p.open = !rec.completes(p.open)
	p.lsn, p.sum = rec.lsn, rec.sum
	if rec.lsn < p.from || rec.is(flagMark) {
		return false, nil
	}
	if rec.is(flagPart) || len(p.body) > 0 {
		if len(p.body)+len(rec.body) > RecordBytesMax {
			return false, fmt.Errorf("pieces of a body of LSN %v: %w", rec.lsn, errTooLong)
		}
		p.body = append(p.body, rec.body...)
		if rec.is(flagPart) {
			return false, nil
		}
		rec.body, p.body = p.body, p.body[:0]
	}
	err = p.fn(rec)
	return rec.lsn == p.to && rec.is(flagLast), err
}

var errTooLong = errors.New("longer than any that is written")

// explain turns trouble with a segment that was released under the reader into
// ErrReleased: its file may be another segment by now. So it may when the log was
// closed: then it may be of another process, or another timeline's.
func (p *readPass) explain(seg *segment, err error) error {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.l.closed {
		return fmt.Errorf("read log at LSN %v: %w", p.lsn, ErrClosed)
	}
	for _, s := range p.l.live {
		if s == seg {
			return err
		}
	}
	return fmt.Errorf("read log at LSN %v: %w", p.lsn, ErrReleased)
}
