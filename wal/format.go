package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

// A segment file, little-endian:
//
//	offset  size  field
//	0       4096  header, copy A
//	4096    4096  header, copy B
//	8192    ...   records, one behind the other, each at a multiple of 8
//
// A header, in the first 128 bytes of its 4096; the rest is written as zeros
// and never looked at:
//
//	offset  size  field
//	0       8     magic      "SPILLWAL"
//	8       4     version    1
//	12      4     checksum   CRC-32C of bytes 0-11 and 16-127
//	16      4     kind       1: spare, 2: segment
//	20      4     flags      bit 0: the previous record's commit goes on here
//	24      8     size       of the file in bytes
//	32      16    database   id
//	48      16    timeline   id
//	64      8     number     of the segment, from 1 on, never used twice; spare: 0
//	72      16    salt       random for each use of the file; spare: 0
//	88      8     prev LSN   of the record that this segment follows
//	96      8     synced     all commits up to this LSN were durable
//	104     4     prev sum   checksum of the record that this segment follows
//	108     20    zero
//
// Magic, version and checksum stay where they are in every version. A header
// is sound if all of that holds. Of two sound copies the one with the higher
// number counts.
//
// A record:
//
//	offset  size  field
//	0       4     checksum   CRC-32C of the rest, body and padding included
//	4       4     tag        first 4 bytes of the salt XOR (offset in the file / 8)
//	8       4     length     of the body in bytes, at most 1 MiB
//	12      1     flags      below
//	13      3     zero
//	16      8     LSN        of the commit; a mark repeats the LSN before it
//	24      8     synced     all commits up to this LSN were durable when this was written
//	32      4     prev sum   checksum of the record before this one
//	36      4     zero
//	40      ...   body, padded with zeros to a multiple of 8
//
// The checksum starts from the segment's seed: CRC-32C of salt, database id,
// timeline id and segment number. Flags:
//
//	bit 0  last   the commit ends with this record
//	bit 1  part   the body goes on in the next record; never with last
//	bit 2  mark   no body: only carries the claim "synced"
//	bit 3  end    with mark: the log was closed here
//
// A record is sound if tag, checksum, zeros and flags are right for the place
// where it was read. It follows record p if its prev sum is p's checksum and
// its LSN is the one that is due: p's own if it is a mark or if p's commit is
// not complete, else p's LSN + 1.
//
// Torn writes. A file gets its name NNNN.wal only when it is complete and
// synced with two spare headers, so every such file has a sound header at any
// power cut: a use of the file rewrites and syncs copy A, then copy B, then
// writes the first record. Records need no protection: one that is not sound
// ends the log, or proves damage, by the rule of R5 (recover.go).

const (
	magic         = "SPILLWAL"
	formatVersion = 1

	headerBlockBytes  = 4096 // one header copy
	headerBytes       = 128  // what is used of it
	recordsOffset     = 2 * headerBlockBytes
	recordHeaderBytes = 40
	recordAlign       = 8
)

// The header's fields fill it up to its zeros.
const (
	_ = uint(headerBytes - (8 + 4 + 4 + 4 + 4 + 8 + 16 + 16 + 8 + 16 + 8 + 8 + 4 + 20))
	_ = uint((8 + 4 + 4 + 4 + 4 + 8 + 16 + 16 + 8 + 16 + 8 + 8 + 4 + 20) - headerBytes)
)

type headerKind uint32

const (
	kindSpare   headerKind = 1
	kindSegment headerKind = 2
)

const headerFlagOpen = 1 // bit 0 of a header's flags

type salt [16]byte

func newSalt() (s salt) {
	rand.Read(s[:]) // never fails, see crypto/rand
	return s
}

// header is what a segment file says about itself.
type header struct {
	kind     headerKind
	open     bool // the commit prevLSN is not complete before this segment
	size     int64
	database block.DatabaseID
	timeline block.TimelineID
	number   uint64
	salt     salt
	prevLSN  block.LSN
	synced   block.LSN
	prevSum  uint32
}

// encode writes h to the first headerBytes of b.
func (h *header) encode(b []byte) {
	b = b[:headerBytes]
	clear(b)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[16:], uint32(h.kind))
	if h.open {
		b[20] = headerFlagOpen
	}
	binary.LittleEndian.PutUint64(b[24:], uint64(h.size))
	copy(b[32:], h.database[:])
	copy(b[48:], h.timeline[:])
	binary.LittleEndian.PutUint64(b[64:], h.number)
	copy(b[72:], h.salt[:])
	binary.LittleEndian.PutUint64(b[88:], uint64(h.prevLSN))
	binary.LittleEndian.PutUint64(b[96:], uint64(h.synced))
	binary.LittleEndian.PutUint32(b[104:], h.prevSum)
	binary.LittleEndian.PutUint32(b[12:], headerChecksum(b))
}

func headerChecksum(b []byte) uint32 {
	return block.Checksum(0, b[:12], b[16:headerBytes])
}

var (
	errHeaderMagic    = errors.New("magic is wrong")
	errHeaderChecksum = errors.New("checksum does not agree")
	errHeaderFields   = errors.New("a field has no meaning")
)

// decodeHeader reads one header copy from the first headerBytes of b.
func decodeHeader(b []byte) (h header, err error) {
	b = b[:headerBytes]
	if string(b[:8]) != magic {
		return h, errHeaderMagic
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return h, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	if binary.LittleEndian.Uint32(b[12:]) != headerChecksum(b) {
		return h, errHeaderChecksum
	}
	h = header{
		kind:    headerKind(binary.LittleEndian.Uint32(b[16:])),
		open:    b[20] == headerFlagOpen,
		size:    int64(binary.LittleEndian.Uint64(b[24:])),
		number:  binary.LittleEndian.Uint64(b[64:]),
		prevLSN: block.LSN(binary.LittleEndian.Uint64(b[88:])),
		synced:  block.LSN(binary.LittleEndian.Uint64(b[96:])),
		prevSum: binary.LittleEndian.Uint32(b[104:]),
	}
	copy(h.database[:], b[32:])
	copy(h.timeline[:], b[48:])
	copy(h.salt[:], b[72:])
	if !h.meaningful() || binary.LittleEndian.Uint32(b[20:]) > headerFlagOpen || !allZero(b[108:]) {
		return header{}, errHeaderFields
	}
	return h, nil
}

func (h *header) meaningful() bool {
	if h.size < SegmentBytesMin || h.size > SegmentBytesMax || h.size%headerBlockBytes != 0 {
		return false
	}
	switch h.kind {
	case kindSpare:
		return h.number == 0
	case kindSegment:
		return h.number != 0 && h.number != ^uint64(0) && h.prevLSN != ^block.LSN(0) &&
			(h.prevLSN != 0 || !h.open) // LSN 0 is no commit
	}
	return false
}

// pickHeader chooses between the two copies at the start of a segment file.
// One sound copy is enough; a copy of a newer version that is whole decides.
func pickHeader(b []byte) (header, error) {
	copyA, copyB := b[:headerBytes], b[headerBlockBytes:][:headerBytes]
	a, errA := decodeHeader(copyA)
	z, errZ := decodeHeader(copyB)
	newerA := errors.Is(errA, ErrVersion)
	newerZ := errors.Is(errZ, ErrVersion)
	switch {
	case newerA && wholeHeader(copyA):
		return header{}, errA
	case newerZ && wholeHeader(copyB):
		return header{}, errZ
	case errA == nil && errZ == nil:
		if z.number > a.number {
			return z, nil
		}
		return a, nil
	case errA == nil:
		return a, nil
	case errZ == nil:
		return z, nil
	}
	return header{}, fmt.Errorf("copy A: %w; copy B: %w", errA, errZ)
}

// wholeHeader reports a good checksum, whatever the version.
func wholeHeader(b []byte) bool {
	return binary.LittleEndian.Uint32(b[12:]) == headerChecksum(b)
}

type recordFlags uint8

const (
	flagLast recordFlags = 1 << 0
	flagPart recordFlags = 1 << 1
	flagMark recordFlags = 1 << 2
	flagEnd  recordFlags = 1 << 3
)

// valid reports whether a record of n body bytes may have these flags.
func (f recordFlags) valid(n int) bool {
	switch f {
	case 0, flagLast, flagPart:
		return true
	case flagMark, flagMark | flagEnd:
		return n == 0
	}
	return false
}

// record is one decoded record.
type record struct {
	flags   recordFlags
	lsn     block.LSN
	synced  block.LSN
	prevSum uint32
	sum     uint32
	body    []byte // aliases what it was decoded from
}

func (r *record) is(f recordFlags) bool { return r.flags&f != 0 }

// recordBytes is the space that a body of n bytes takes in a segment.
func recordBytes(n int) int {
	return recordHeaderBytes + (n+recordAlign-1)&^(recordAlign-1)
}

// seal binds records to one use of one segment file.
type seal struct {
	seed block.Seed
	tag  uint32
}

func (h *header) seal() seal {
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], h.number)
	return seal{
		seed: block.Seed(block.Checksum(0, h.salt[:], h.database[:], h.timeline[:], number[:])),
		tag:  binary.LittleEndian.Uint32(h.salt[:]),
	}
}

func (s seal) tagAt(off int64) uint32 { return s.tag ^ uint32(off/recordAlign) }

// encodeRecord writes the header of r to b, which is recordBytes(len(body))
// long, belongs at offset off and holds the body and its padding already. It
// returns the checksum.
func (s seal) encodeRecord(b []byte, off int64, r record, bodyBytes int) uint32 {
	binary.LittleEndian.PutUint32(b[4:], s.tagAt(off))
	binary.LittleEndian.PutUint32(b[8:], uint32(bodyBytes))
	binary.LittleEndian.PutUint32(b[12:], uint32(r.flags))
	binary.LittleEndian.PutUint64(b[16:], uint64(r.lsn))
	binary.LittleEndian.PutUint64(b[24:], uint64(r.synced))
	binary.LittleEndian.PutUint32(b[32:], r.prevSum)
	binary.LittleEndian.PutUint32(b[36:], 0)
	sum := block.Checksum(s.seed, b[4:])
	binary.LittleEndian.PutUint32(b, sum)
	return sum
}

// peekRecord reports whether b could start with the record at offset off of
// the segment, and how many bytes that record takes. It is cheap and rejects
// nearly everything that is not such a record: another use's bytes have
// another tag.
func (s seal) peekRecord(b []byte, off int64) (n int, ok bool) {
	if len(b) < recordHeaderBytes || binary.LittleEndian.Uint32(b[4:]) != s.tagAt(off) {
		return 0, false
	}
	length := binary.LittleEndian.Uint32(b[8:])
	if length > RecordBytesMax {
		return 0, false
	}
	return recordBytes(int(length)), true
}

// decodeRecord reads the record at offset off of the segment from b, which is
// as long as peekRecord said. ok is false if it is not sound.
func (s seal) decodeRecord(b []byte, off int64) (r record, ok bool) {
	n, ok := s.peekRecord(b, off)
	if !ok || n > len(b) {
		return r, false
	}
	b = b[:n]
	sum := binary.LittleEndian.Uint32(b)
	if sum != block.Checksum(s.seed, b[4:]) {
		return r, false
	}
	length := int(binary.LittleEndian.Uint32(b[8:]))
	r = record{
		flags:   recordFlags(b[12]),
		lsn:     block.LSN(binary.LittleEndian.Uint64(b[16:])),
		synced:  block.LSN(binary.LittleEndian.Uint64(b[24:])),
		prevSum: binary.LittleEndian.Uint32(b[32:]),
		sum:     sum,
		body:    b[recordHeaderBytes : recordHeaderBytes+length],
	}
	ok = r.flags.valid(length) && allZero(b[13:16]) && allZero(b[36:40]) && allZero(b[recordHeaderBytes+length:])
	return r, ok
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
