package mvcc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// # Superblock
//
// The data file holds two copies of 512 bytes, at byte 0 and at byte 4096. They
// are written in turn: a checkpoint overwrites the older one and syncs, so a
// torn write leaves the other. The sound copy with the higher sequence counts.
//
//	offset  size  field
//	0       8     magic "SPILLWAY"
//	8       4     format version: 1
//	12      4     block size in bytes
//	16      16    database id
//	32      16    timeline id
//	48      16    parent timeline id, or zeros (L14)
//	64      8     fork LSN: the timeline has the parent's commits up to here
//	72      8     sequence: 1, 2, ... one per checkpoint
//	80      8     redo LSN: every commit below is in place and synced (R8)
//	88      8     durable LSN: the log ended no lower when this was written (R6)
//	96      8     commit time of the durable LSN, Unix nanoseconds (R19)
//	104     8     map floor: a base below it is no base for an incremental (R16)
//	112     8     time of creation, Unix nanoseconds
//	120     388   zeros
//	508     4     CRC-32C of bytes 0 to 507, seeded with the database id
//
// # Meta block (block 2, versioned)
//
//	offset  size  field
//	0       8     high-water mark: first block number never used
//	8       8     number of blocks in use, reserved places not counted
//	16      64    root of the front door
//
// # Bitmap block (place 3 of each group, versioned)
//
// Bytes 0 to blockSize-65 are bits, the lowest bit of byte 0 for the group's
// first block. 1 is "in use"; the reserved places are 1. The rest is zeros.
//
// # Double-write file
//
// Two halves, used in turn, each a header of 8192 bytes and room for block
// images, which carry their trailers. A half is overwritten only when the
// in-place writes it covers are synced.
//
//	offset  size  field
//	0       8     magic "SPILLDBW"
//	8       4     format version: 1
//	12      4     count of images, at most 256
//	16      16    database id
//	32      8     sequence of the newest checkpoint when this was written
//	40      16*n  block and LSN of each image
//	8188    4     CRC-32C of bytes 0 to 8187, seeded with the database id
//
// An image repairs a block whose checksum is bad only if header and image are
// sound, block and LSN are those of the header, and the sequence is that of the
// superblock in force: then the in-place write was begun and perhaps not synced.
//
// # Redo
//
// The body of a commit in the log is a list of entries; an entry never spans
// two records. Numbers are unsigned varints unless a size is given.
//
//	1 commit   time (8 bytes, Unix ns, never steps back), raw clock (8 bytes); first
//	2 image    block, type (1 byte), runs: the payload is zeros but for the runs
//	3 diff     block, type (1 byte), LSN minus predecessor's LSN, runs
//	4 free     count, blocks
//	5 mark     length, name (reserved)
//	6 void     the commit was given up half way: none of its entries count
//
// Runs are pairs of skip and length, the bytes behind each; a length of 0 ends
// the list. A diff applies to exactly the predecessor's LSN (R8).

const (
	formatVersion     = 1
	superblockSize    = 512
	superblockStride  = 4096
	superblockMagic   = "SPILLWAY"
	doublewriteMagic  = "SPILLDBW"
	doublewriteHeader = 8192
	doublewriteMax    = 256

	entryCommit = 1
	entryImage  = 2
	entryDiff   = 3
	entryFree   = 4
	entryMark   = 5
	entryVoid   = 6
)

// UserRootSize is the number of bytes that a front door may keep at the root.
const UserRootSize = 64

// Root is what the front door keeps at the root of the store.
type Root [UserRootSize]byte

const (
	metaHighWater = 0
	metaInUse     = 8
	metaRoot      = 16
)

// superblock is the decoded form of one.
type superblock struct {
	blockSize   int
	database    block.DatabaseID
	timeline    block.TimelineID
	parent      block.TimelineID
	forkLSN     block.LSN
	sequence    uint64
	redo        block.LSN
	durable     block.LSN
	durableTime time.Time
	mapFloor    block.LSN
	created     time.Time
}

func (s *superblock) encode() []byte {
	b := make([]byte, superblockSize)
	le := binary.LittleEndian
	copy(b, superblockMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], uint32(s.blockSize))
	copy(b[16:], s.database[:])
	copy(b[32:], s.timeline[:])
	copy(b[48:], s.parent[:])
	le.PutUint64(b[64:], uint64(s.forkLSN))
	le.PutUint64(b[72:], s.sequence)
	le.PutUint64(b[80:], uint64(s.redo))
	le.PutUint64(b[88:], uint64(s.durable))
	le.PutUint64(b[96:], uint64(s.durableTime.UnixNano()))
	le.PutUint64(b[104:], uint64(s.mapFloor))
	le.PutUint64(b[112:], uint64(s.created.UnixNano()))
	le.PutUint32(b[508:], block.Checksum(block.SeedOf(s.database), b[:508]))
	return b
}

var errNoSuperblock = errors.New("no superblock")

// decodeSuperblock checks magic, version and checksum, in this order.
func decodeSuperblock(b []byte) (s superblock, err error) {
	le := binary.LittleEndian
	if len(b) < superblockSize || string(b[:8]) != superblockMagic {
		return s, errNoSuperblock
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return s, &VersionError{Found: v, Known: formatVersion}
	}
	copy(s.database[:], b[16:])
	if le.Uint32(b[508:]) != block.Checksum(block.SeedOf(s.database), b[:508]) {
		return s, errors.New("superblock's checksum does not agree")
	}
	s.blockSize = int(le.Uint32(b[12:]))
	if !block.ValidSize(s.blockSize) {
		return s, fmt.Errorf("superblock says block size %d", s.blockSize)
	}
	copy(s.timeline[:], b[32:])
	copy(s.parent[:], b[48:])
	s.forkLSN = block.LSN(le.Uint64(b[64:]))
	s.sequence = le.Uint64(b[72:])
	s.redo = block.LSN(le.Uint64(b[80:]))
	s.durable = block.LSN(le.Uint64(b[88:]))
	s.durableTime = time.Unix(0, int64(le.Uint64(b[96:])))
	s.mapFloor = block.LSN(le.Uint64(b[104:]))
	s.created = time.Unix(0, int64(le.Uint64(b[112:])))
	return s, nil
}

// place is one image of a double-write half.
type place struct {
	id  block.ID
	lsn block.LSN
}

func encodeDoublewrite(b []byte, db block.DatabaseID, sequence uint64, places []place) {
	le := binary.LittleEndian
	clear(b[:doublewriteHeader])
	copy(b, doublewriteMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], uint32(len(places)))
	copy(b[16:], db[:])
	le.PutUint64(b[32:], sequence)
	for i, p := range places {
		le.PutUint64(b[40+16*i:], uint64(p.id))
		le.PutUint64(b[48+16*i:], uint64(p.lsn))
	}
	le.PutUint32(b[8188:], block.Checksum(block.SeedOf(db), b[:8188]))
}

// decodeDoublewrite returns nothing for a half that was never, or not wholly,
// written, or not by this database.
func decodeDoublewrite(b []byte, db block.DatabaseID) (sequence uint64, places []place) {
	le := binary.LittleEndian
	if len(b) < doublewriteHeader || string(b[:8]) != doublewriteMagic || le.Uint32(b[8:]) != formatVersion ||
		[16]byte(b[16:32]) != db || le.Uint32(b[8188:]) != block.Checksum(block.SeedOf(db), b[:8188]) {
		return 0, nil
	}
	n := le.Uint32(b[12:])
	if n > doublewriteMax {
		return 0, nil
	}
	for i := range int(n) {
		places = append(places, place{block.ID(le.Uint64(b[40+16*i:])), block.LSN(le.Uint64(b[48+16*i:]))})
	}
	return le.Uint64(b[32:]), places
}
