package livebackup

import (
	"bytes"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/wal"
)

// The format of a log object, version 1: whole commits (from, to] of one
// timeline, as they stand in the database's log (R15). Numbers and CRC as in
// format.go. An object is in no manifest, so it proves itself; its name is
//
//	log-<from, 20 digits>-<to, 20 digits>-<first 8 hex digits of the timeline>
//
// It begins with a header:
//
//	offset  size  field
//	0       8     magic       "SPWYLOGS"
//	8       4     version     1
//	12      4     zero        (reserved: encryption)
//	16      16    database    DatabaseID
//	32      16    timeline    TimelineID
//	48      8     from        LSN behind which it begins
//	56      8     to          LSN of its last commit
//	64      12    zero
//	76      4     CRC         of bytes 0 to 75
//
// It goes on with chunks, one directly behind the other:
//
//	offset  size  field
//	0       4     chunk       number, from 0
//	4       4     raw         bytes when decoded, at most 4 MiB
//	8       4     stored      bytes that follow the header
//	12      4     codec       0: as they are, 1: one zstd frame
//	16      4     CRC         of the stored bytes
//	20      4     CRC         of bytes 0 to 19
//	24            stored bytes
//
// A chunk, decoded, is whole records:
//
//	offset  size  field
//	0       8     LSN         of the commit
//	8       4     length      of the body, at most 1 MiB
//	12      4     flags       bit 0: ends the commit
//	16            body        as in the database's log; described in mvcc/format.go
//
// Records have the LSNs from+1, ..., to in this order, each commit at least one
// record and the last of each flagged. Behind the chunks stands the footer:
//
//	offset  size  field
//	0       8     magic       "SPWYLOGF"
//	8       8     records     how many
//	16      8     bytes       of all bodies
//	24      4     chunks      how many
//	28      4     marks       how many, at most 1024
//	32      4     from sum    checksum of the log record that ends commit from, 0: not known (R18)
//	36      4     to sum      the same of commit to
//	40      8     first time  of commit from+1: nanoseconds since 1970, never steps back (R19)
//	48      8     last time   of commit to
//	56      16    zero
//	72            marks
//
// A mark, a commit that has a name:
//
//	0       8     LSN
//	8       8     time        of the commit, as above
//	16      4     length      of the name, 1 to 256
//	20            name        UTF-8
//
// The tail ends the object:
//
//	0       4     footer      bytes
//	4       4     CRC         of the footer
//	8       4     zero
//	12      4     CRC         of bytes 0 to 11
//	16      32    SHA-256     of all of the object before it
//
// Header, footer and tail say what is in an object without reading it all. An
// object is valid if all of the above holds, and its name says what its header
// says. Where two objects of one timeline meet, the sums that both know are equal.

// Sizes of the fixed parts, in bytes.
const (
	logHeaderSize  = 80
	chunkHeadSize  = 24
	recordHeadSize = 16
	logFooterSize  = 72
	markHeadSize   = 20
	logTailSize    = 48
)

// Caps on what a reader takes, whatever the object says.
const (
	logMarksMax       = 1 << 10
	markBytesMax      = 255
	logFooterBytesMax = logFooterSize + logMarksMax*(markHeadSize+markBytesMax)
	logBodyBytesMax   = wal.RecordBytesMax
	logObjectBytesMin = logHeaderSize + chunkHeadSize + logFooterSize + logTailSize
)

var (
	magicLog       = magic([]byte("SPWYLOGS"))
	magicLogFooter = magic([]byte("SPWYLOGF"))
)

// logIdentity is what header and name of a log object say of it.
type logIdentity struct {
	database block.DatabaseID
	timeline block.TimelineID
	from, to block.LSN
}

func (id logIdentity) encode() []byte {
	b := make([]byte, logHeaderSize)
	copy(b, magicLog[:])
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], id.database[:])
	copy(b[32:], id.timeline[:])
	le.PutUint64(b[48:], uint64(id.from))
	le.PutUint64(b[56:], uint64(id.to))
	le.PutUint32(b[76:], checksum(b[:76]))
	return b
}

// decodeLogHeader reads the header of the log object of that name.
func decodeLogHeader(name string, b []byte) (id logIdentity, err error) {
	if err := checkStart(name, b, logHeaderSize, magicLog); err != nil {
		return id, err
	}
	copy(id.database[:], b[16:])
	copy(id.timeline[:], b[32:])
	id.from, id.to = block.LSN(le.Uint64(b[48:])), block.LSN(le.Uint64(b[56:]))
	if !bytes.Equal(id.encode(), b[:logHeaderSize]) {
		return id, damaged(name, 0, "header's checksum does not agree", nil)
	}
	if id.object(0).Name() != name {
		return id, damaged(name, 0, fmt.Sprintf("its header is that of %s", id.object(0).Name()), nil)
	}
	return id, nil
}

// chunkHead stands before the stored bytes of a chunk.
type chunkHead struct {
	number, raw, stored uint32
	codec               codec
	crc                 uint32
}

func (h chunkHead) encode() [chunkHeadSize]byte {
	var b [chunkHeadSize]byte
	le.PutUint32(b[0:], h.number)
	le.PutUint32(b[4:], h.raw)
	le.PutUint32(b[8:], h.stored)
	le.PutUint32(b[12:], uint32(h.codec))
	le.PutUint32(b[16:], h.crc)
	le.PutUint32(b[20:], checksum(b[:20]))
	return b
}

// decodeChunkHead reads the header of the chunk that is due.
func decodeChunkHead(name string, off int64, b []byte, number uint32) (chunkHead, error) {
	h := chunkHead{
		number: le.Uint32(b), raw: le.Uint32(b[4:]), stored: le.Uint32(b[8:]),
		codec: codec(le.Uint32(b[12:])), crc: le.Uint32(b[16:]),
	}
	switch {
	case le.Uint32(b[20:]) != checksum(b[:20]):
		return h, damaged(name, off, "chunk header's checksum does not agree", nil)
	case h.number != number:
		return h, damaged(name, off, fmt.Sprintf("chunk %d where %d was due", h.number, number), nil)
	case h.raw < recordHeadSize || h.raw > groupBytesMax || h.stored > groupBytesMax:
		return h, damaged(name, off, "chunk has an impossible size", nil)
	}
	return h, nil
}

// appendRecord appends a record as it stands in a decoded chunk, and in frames
// of the admin socket.
func appendRecord(b []byte, r mvcc.LogRecord) []byte {
	b = le.AppendUint64(b, uint64(r.LSN))
	b = le.AppendUint32(b, uint32(len(r.Body)))
	flags := uint32(0)
	if r.Last {
		flags = 1
	}
	return append(le.AppendUint32(b, flags), r.Body...)
}

// cutRecord takes the first record off b, which its body shares; ok is false if
// there is no whole one.
func cutRecord(b []byte) (r mvcc.LogRecord, rest []byte, ok bool) {
	if len(b) < recordHeadSize {
		return r, b, false
	}
	n, flags := le.Uint32(b[8:]), le.Uint32(b[12:])
	if n > logBodyBytesMax || int(n) > len(b)-recordHeadSize || flags > 1 {
		return r, b, false
	}
	end := recordHeadSize + int(n)
	return mvcc.LogRecord{LSN: block.LSN(le.Uint64(b)), Last: flags == 1, Body: b[recordHeadSize:end:end]}, b[end:], true
}

// LogMark is a commit that was given a name.
type LogMark struct {
	Name string    `json:"name"`
	LSN  block.LSN `json:"lsn"`
	Time time.Time `json:"time"` // of the commit, monotonic (R19)
}

// checkMarkName refuses what cannot be the name of a mark.
func checkMarkName(name string) error {
	if name == "" || len(name) > markBytesMax || !utf8.ValidString(name) {
		return optionError("the name of a mark must be text of 1 to %d bytes", markBytesMax)
	}
	return nil
}

// logFooter is what is known of a log object once all of it was written.
type logFooter struct {
	records        uint64
	bytes          uint64 // of bodies
	chunks         uint32
	fromSum, toSum uint32
	first, last    time.Time
	marks          []LogMark
}

func (f *logFooter) encode() []byte {
	b := make([]byte, logFooterSize)
	copy(b, magicLogFooter[:])
	le.PutUint64(b[8:], f.records)
	le.PutUint64(b[16:], f.bytes)
	le.PutUint32(b[24:], f.chunks)
	le.PutUint32(b[28:], uint32(len(f.marks)))
	le.PutUint32(b[32:], f.fromSum)
	le.PutUint32(b[36:], f.toSum)
	le.PutUint64(b[40:], uint64(f.first.UnixNano()))
	le.PutUint64(b[48:], uint64(f.last.UnixNano()))
	for _, m := range f.marks {
		b = le.AppendUint64(b, uint64(m.LSN))
		b = le.AppendUint64(b, uint64(m.Time.UnixNano()))
		b = le.AppendUint32(b, uint32(len(m.Name)))
		b = append(b, m.Name...)
	}
	return b
}

func nanoTime(b []byte) time.Time { return time.Unix(0, int64(le.Uint64(b))).UTC() }

// decodeLogFooter reads a footer that stands at off in the object of id.
func decodeLogFooter(name string, off int64, b []byte, id logIdentity) (f logFooter, err error) {
	bad := func(reason string) (logFooter, error) { return logFooter{}, damaged(name, off, "footer: "+reason, nil) }
	if len(b) < logFooterSize || magic(b[:8]) != magicLogFooter {
		return bad("it has no magic")
	}
	f = logFooter{
		records: le.Uint64(b[8:]), bytes: le.Uint64(b[16:]), chunks: le.Uint32(b[24:]),
		fromSum: le.Uint32(b[32:]), toSum: le.Uint32(b[36:]), first: nanoTime(b[40:]), last: nanoTime(b[48:]),
	}
	n := le.Uint32(b[28:])
	if n > logMarksMax {
		return bad(fmt.Sprintf("%d marks", n))
	}
	for rest := b[logFooterSize:]; n > 0; n-- {
		if len(rest) < markHeadSize {
			return bad("it ends within a mark")
		}
		m, size := LogMark{LSN: block.LSN(le.Uint64(rest)), Time: nanoTime(rest[8:])}, le.Uint32(rest[16:])
		rest = rest[markHeadSize:]
		if uint64(size) > uint64(len(rest)) {
			return bad("it ends within a mark")
		}
		m.Name, rest = string(rest[:size]), rest[size:]
		f.marks = append(f.marks, m)
	}
	if reason := f.invalid(id); reason != "" {
		return bad(reason)
	}
	if !bytes.Equal(f.encode(), b) { // the zeros, and nothing behind the marks
		return bad("it is not what we would write")
	}
	return f, nil
}

// invalid says why f cannot be the footer of the object of id, or "".
func (f *logFooter) invalid(id logIdentity) string {
	commits := uint64(id.to - id.from)
	switch {
	case f.records < commits:
		return fmt.Sprintf("%d records of %d commits", f.records, commits)
	case f.chunks == 0 || uint64(f.chunks) > f.records:
		return fmt.Sprintf("%d chunks of %d records", f.chunks, f.records)
	case f.last.Before(f.first):
		return "its time steps back"
	}
	before := id.from
	for _, m := range f.marks {
		if checkMarkName(m.Name) != nil || m.LSN < before || m.LSN <= id.from || m.LSN > id.to || m.Time.Before(f.first) || m.Time.After(f.last) {
			return fmt.Sprintf("it cannot have a mark %q at LSN %v", m.Name, m.LSN)
		}
		before = m.LSN
	}
	return ""
}

// encodeLogTail is the tail but for the SHA-256.
func encodeLogTail(footer []byte) []byte {
	b := le.AppendUint32(make([]byte, 0, logTailSize), uint32(len(footer)))
	b = le.AppendUint32(b, checksum(footer))
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, checksum(b))
}

// decodeLogTail returns the footer's length and checksum.
func decodeLogTail(name string, off int64, b []byte) (length, crc uint32, err error) {
	if le.Uint32(b[8:]) != 0 || le.Uint32(b[12:]) != checksum(b[:12]) {
		return 0, 0, damaged(name, off, "tail's checksum does not agree", nil)
	}
	if length = le.Uint32(b); length < logFooterSize || length > logFooterBytesMax {
		return 0, 0, damaged(name, off, fmt.Sprintf("footer of %d bytes", length), nil)
	}
	return length, le.Uint32(b[4:]), nil
}
