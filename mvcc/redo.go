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
type redoWriter struct{ buf []byte }

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
	w.buf = appendRuns(w.buf, zeros[:len(payload)], payload)
}

// diff logs the difference to the version that is replaced. If that turns out
// no smaller than half the payload, it logs the image, which needs no
// predecessor, and reports that.
func (w *redoWriter) diff(id block.ID, t block.Type, since block.LSN, old, payload, zeros []byte) (image bool) {
	start := len(w.buf)
	w.buf = append(w.buf, entryDiff)
	w.buf = binary.AppendUvarint(w.buf, uint64(id))
	w.buf = append(w.buf, byte(t))
	w.buf = binary.AppendUvarint(w.buf, uint64(since))
	w.buf = appendRuns(w.buf, old, payload)
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

// appendRuns appends where payload differs from old.
func appendRuns(buf, old, payload []byte) []byte {
	at, n := 0, len(payload)
	for i := 0; i < n; {
		i = skipEqual(old, payload, i)
		if i == n {
			break
		}
		end := runEnd(old, payload, i)
		buf = binary.AppendUvarint(buf, uint64(i-at))
		buf = binary.AppendUvarint(buf, uint64(end-i))
		buf = append(buf, payload[i:end]...)
		at, i = end, end
	}
	return append(buf, 0, 0)
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
		if _, err := r.uvarint(); err != nil {
			return err
		}
		n, err := r.uvarint()
		if err != nil {
			return err
		}
		if n == 0 {
			e.runs = start[:len(start)-len(r.rest)]
			return nil
		}
		if _, err := r.take(n); err != nil {
			return err
		}
	}
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

// applyRuns writes runs into a payload.
func applyRuns(payload, runs []byte) error {
	r := redoReader{runs}
	at := uint64(0)
	for {
		skip, err := r.uvarint()
		if err != nil {
			return err
		}
		n, err := r.uvarint()
		if err != nil || n == 0 {
			return err
		}
		room := uint64(len(payload))
		if skip > room-at || n > room-at-skip {
			return fmt.Errorf("%w: run of %d bytes behind %d in a payload of %d", errRedo, n, at+skip, room)
		}
		b, err := r.take(n)
		if err != nil {
			return err
		}
		copy(payload[at+skip:], b)
		at += skip + n
	}
}
