package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// redoWriter encodes the entries of one commit.
type redoWriter struct {
	buf []byte

	// Of the entry that is being made.
	runs  []run
	moves bool // one of runs is a move
}

func (w *redoWriter) commit(at, raw time.Time) {
	w.buf = append(w.buf, entryCommit)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(at.UnixNano()))
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(raw.UnixNano()))
}

func (w *redoWriter) free(ids []block.ID) {
	w.buf = append(w.buf, entryFree)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(ids)))
	for _, id := range ids {
		w.buf = binary.AppendUvarint(w.buf, uint64(id))
	}
}

func (w *redoWriter) mark(name string) {
	w.buf = append(w.buf, entryMark)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(name)))
	w.buf = append(w.buf, name...)
}

// image logs the whole payload.
func (w *redoWriter) image(id block.ID, t block.Type, payload, zeros []byte) {
	w.buf = append(w.buf, entryImage)
	w.buf = binary.AppendUvarint(w.buf, uint64(id))
	w.buf = append(w.buf, byte(t))
	w.compare(zeros[:len(payload)], payload, false)
	w.appendRuns(payload)
}

// diff logs the difference to the version that is replaced. If that turns out
// no smaller than half the payload, it logs the image, which needs no
// predecessor, and reports that.
func (w *redoWriter) diff(id block.ID, t block.Type, since block.LSN, old, payload, zeros []byte) (image bool) {
	start := len(w.buf)
	w.compare(old, payload, true)
	kind := byte(entryDiff)
	if w.moves {
		kind = entryMove
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(id))
	w.buf = append(w.buf, byte(t))
	w.buf = binary.AppendUvarint(w.buf, uint64(since))
	w.appendRuns(payload)
	size := len(w.buf) - start
	if size < len(payload)/2 {
		return false
	}
	w.image(id, t, payload, zeros)
	if n := len(w.buf) - start - size; n <= size {
		copy(w.buf[start:], w.buf[start+size:])
		w.buf = w.buf[:start+n]
		return true
	}
	w.buf = w.buf[:start+size]
	return false
}

// compareStep is how many bytes are compared at once while they are equal.
const compareStep = 128

// gapMin is how many equal bytes end a run: fewer cost more as a new run than
// as part of the old one. Runs are looked at in steps of it, so that sometimes up
// to twice as many do not end one.
const gapMin = 8

// compare finds where payload differs from old, and, if moves are looked for, what
// of that only moved.
func (w *redoWriter) compare(old, payload []byte, moves bool) {
	w.runs, w.moves = w.runs[:0], false
	for i := skipEqual(old, payload, 0); i < len(payload); {
		end := runEnd(old, payload, i)
		if moves {
			w.split(old, payload, i, end)
		} else {
			w.runs = append(w.runs, run{at: i, size: end - i})
		}
		i = skipEqual(old, payload, end)
	}
}

// appendRuns appends what compare found.
func (w *redoWriter) appendRuns(payload []byte) {
	at := 0
	for _, r := range w.runs {
		w.buf = binary.AppendUvarint(w.buf, uint64(r.at-at))
		at = r.at + r.size
		switch {
		case r.distance != 0:
			w.buf = binary.AppendUvarint(w.buf, uint64(r.size)<<1|1)
			w.buf = binary.AppendVarint(w.buf, int64(r.distance))
			continue
		case w.moves:
			w.buf = binary.AppendUvarint(w.buf, uint64(r.size)<<1)
		default:
			w.buf = binary.AppendUvarint(w.buf, uint64(r.size))
		}
		w.buf = append(w.buf, payload[r.at:at]...)
	}
	w.buf = append(w.buf, 0, 0)
}

// skipEqual is the first place from i on where the two differ.
func skipEqual(a, b []byte, i int) int {
	n := len(b)
	for i+compareStep <= n && bytes.Equal(a[i:i+compareStep], b[i:i+compareStep]) {
		i += compareStep
	}
	for i+8 <= n && binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// runEnd is the end of the run that starts at i: behind it gapMin bytes are
// equal, or the payload ends.
func runEnd(a, b []byte, i int) int {
	n := len(b)
	end := i + 1
	for j := end; j+gapMin <= n; j += gapMin {
		x := binary.LittleEndian.Uint64(a[j:]) ^ binary.LittleEndian.Uint64(b[j:])
		if x == 0 {
			return end
		}
		end = j + gapMin - bits.LeadingZeros64(x)/8
	}
	for j := max(end, n-(n-i-1)%gapMin); j < n; j++ {
		if a[j] != b[j] {
			end = j + 1
		}
	}
	return end
}

// redoEntry is one decoded entry.
type redoEntry struct {
	kind  byte
	id    block.ID
	typ   block.Type
	since block.LSN // of a diff: LSN minus predecessor's
	runs  []byte
	moves bool       // runs may be moves; its kind is that of a diff
	ids   []block.ID // of a free
	at    time.Time  // of a commit
	raw   time.Time
	name  string // of a mark
}

var errRedo = errors.New("malformed redo")

// redoReader decodes the entries of one record.
type redoReader struct{ rest []byte }

func (r *redoReader) uvarint() (uint64, error) {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return 0, fmt.Errorf("%w: number", errRedo)
	}
	r.rest = r.rest[n:]
	return v, nil
}

func (r *redoReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.rest)) {
		return nil, fmt.Errorf("%w: %d bytes wanted, %d left", errRedo, n, len(r.rest))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

// next decodes one entry; more is false at the end of the record.
func (r *redoReader) next() (e redoEntry, more bool, err error) {
	if len(r.rest) == 0 {
		return e, false, nil
	}
	e.kind = r.rest[0]
	r.rest = r.rest[1:]
	switch e.kind {
	case entryCommit:
		err = r.commit(&e)
	case entryMove:
		e.kind, e.moves = entryDiff, true
		err = r.change(&e)
	case entryImage, entryDiff:
		err = r.change(&e)
	case entryFree:
		err = r.frees(&e)
	case entryMark:
		err = r.mark(&e)
	case entryVoid:
	default:
		err = fmt.Errorf("%w: entry of kind %d", errRedo, e.kind)
	}
	return e, true, err
}

func (r *redoReader) commit(e *redoEntry) error {
	b, err := r.take(16)
	if err == nil {
		e.at = time.Unix(0, int64(binary.LittleEndian.Uint64(b)))
		e.raw = time.Unix(0, int64(binary.LittleEndian.Uint64(b[8:])))
	}
	return err
}

func (r *redoReader) mark(e *redoEntry) error {
	n, err := r.uvarint()
	if err != nil {
		return err
	}
	name, err := r.take(n)
	if err != nil {
		return err
	}
	if e.name = string(name); !validMark(e.name) {
		return fmt.Errorf("%w: name of %d bytes", errRedo, n)
	}
	return nil
}

func (r *redoReader) change(e *redoEntry) error {
	id, err := r.uvarint()
	if err != nil {
		return err
	}
	t, err := r.take(1)
	if err != nil {
		return err
	}
	e.id, e.typ = block.ID(id), block.Type(t[0])
	if e.kind == entryDiff {
		since, err := r.uvarint()
		if err != nil {
			return err
		}
		e.since = block.LSN(since)
	}
	return r.skipRuns(e)
}

// skipRuns finds the end of a list of runs.
func (r *redoReader) skipRuns(e *redoEntry) error {
	start := r.rest
	for {
		s, more, err := r.run(e.moves)
		if err != nil {
			return err
		}
		if !more {
			e.runs = start[:len(start)-len(r.rest)]
			return nil
		}
		if s.distance == 0 {
			if _, err := r.take(s.size); err != nil {
				return err
			}
		}
	}
}

// storedRun is the head of a run: the bytes of a new one follow.
type storedRun struct {
	skip, size uint64
	distance   int64 // 0: not a move
}

// run decodes the head of the next run; more is false at the end of the list.
func (r *redoReader) run(moves bool) (s storedRun, more bool, err error) {
	if s.skip, err = r.uvarint(); err != nil {
		return s, false, err
	}
	if s.size, err = r.uvarint(); err != nil || s.size == 0 {
		return s, false, err
	}
	if !moves {
		return s, true, nil
	}
	isMove := s.size&1 != 0
	if s.size >>= 1; s.size == 0 {
		return s, false, fmt.Errorf("%w: a move of nothing", errRedo)
	}
	if isMove {
		s.distance, err = r.varint()
	}
	return s, err == nil, err
}

// varint decodes the distance of a move, which is not 0.
func (r *redoReader) varint() (int64, error) {
	v, n := binary.Varint(r.rest)
	if n <= 0 || v == 0 {
		return 0, fmt.Errorf("%w: distance", errRedo)
	}
	r.rest = r.rest[n:]
	return v, nil
}

func (r *redoReader) frees(e *redoEntry) error {
	n, err := r.uvarint()
	if err != nil {
		return err
	}
	if n > uint64(len(r.rest)) {
		return fmt.Errorf("%w: %d freed blocks in %d bytes", errRedo, n, len(r.rest))
	}
	for range n {
		id, err := r.uvarint()
		if err != nil {
			return err
		}
		e.ids = append(e.ids, block.ID(id))
	}
	return nil
}

// apply writes the runs of an image or a diff into a payload, which is zeros or
// what the predecessor old has. They do not overlap in memory.
func (e *redoEntry) apply(payload, old []byte) error {
	r := redoReader{e.runs}
	at, room := uint64(0), uint64(len(payload))
	for {
		s, more, err := r.run(e.moves)
		if err != nil || !more {
			return err
		}
		if s.skip > room-at || s.size > room-at-s.skip {
			return fmt.Errorf("%w: run of %d bytes behind %d in a payload of %d", errRedo, s.size, at+s.skip, room)
		}
		at += s.skip
		b, err := r.source(s, at, old)
		if err != nil {
			return err
		}
		copy(payload[at:], b)
		at += s.size
	}
}

// source returns the bytes of a run that begins at this place.
func (r *redoReader) source(s storedRun, at uint64, old []byte) ([]byte, error) {
	if s.distance == 0 {
		return r.take(s.size)
	}
	// A distance beyond every payload wraps round to a place that is not there.
	from, room := at-uint64(s.distance), uint64(len(old))
	if from > room || s.size > room-from {
		return nil, fmt.Errorf("%w: %d bytes moved by %d to %d in a payload of %d", errRedo, s.size, s.distance, at, room)
	}
	return old[from : from+s.size], nil
}
