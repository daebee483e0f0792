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
//	48      16    parent timeline id, or zeros (L14): that of the first fork below
//	64      8     fork LSN: the timeline has the parent's commits up to here
//	72      8     sequence: 1, 2, ... one per superblock
//	80      8     redo LSN: every commit below is in place and synced (R8)
//	88      8     durable LSN: the log ended no lower when this was written (R6)
//	96      8     commit time of the durable LSN, Unix nanoseconds (R19)
//	104     8     map floor: a base below it is no base for an incremental (R16)
//	112     8     time of creation, Unix nanoseconds
//	120     2     flags: bit 0 the database is a standby (R20); bit 1 the log is
//	              to be made anew, empty, at the durable LSN, before anything else
//	122     1     number of forks below, at most 9
//	123     1     how many superblocks before this one belong to the same
//	              checkpoint: it says more, but redo begins where theirs does
//	124     8     keep LSN: someone who follows the log still wants the commits
//	              from here on; 0: nobody wants what recovery does not (R14)
//	132     24*9  forks that led to the timeline, the newest first: timeline id,
//	              16, and fork LSN, 8. What is older than nine is forgotten (R18)
//	348     40*4  heads of repositories, the one remembered last first: repository
//	              id, 16; LSN, 8; checksum of the record that ends it, 4; LSN, 8,
//	              and checksum, 4, of the head before, or zeros (R18)
//	508     4     CRC-32C of bytes 0 to 507, seeded with the database id
//
// Zeros from byte 120 on mean none of it: so the first superblocks were. In one
// that names a parent and no fork, the parent is the only fork.
//
// # History of changes (3584 bytes behind each superblock)
//
// Of what changed, for forecasts only. The sound one with the higher sequence
// counts, whatever became of the superblock before it; zeros, or anything else that
// is not sound, is an empty history. Numbers called "short" have 2 bytes: 0 is 0,
// 65535 is "never seen", any other n is 2 to the power of n/1024 - 8.
//
//	offset  size    field
//	0       8       magic "SPILLCHG"
//	8       4       format version: 1
//	12      4       the hour that was not over: hours since 1970
//	16      8       sequence of the superblock that it was written with
//	24      8       when, Unix nanoseconds
//	32      28*7    windows that were running, of 10 s, 1, 5, 15 min, 1, 4, 24 h: LSN at
//	                the beginning, 8; beginning, Unix seconds, 4; different blocks that
//	                changed, 8; changes, 8
//	228     18*24   hours, the one that was not over first: seconds seen, 2, 0 for none;
//	                different blocks in 10 s, 1, 5, 15 min, 1 h, short; changes, redo
//	                bytes, commits in an hour, short
//	660     15*168  hours of the week from Sunday, 0 o'clock UTC: weeks seen, 1; as above,
//	                without 10 s
//	3180    4*42    four hours of the week: different blocks, changes, short
//	3348    4*7     days of the week: the same
//	3376            zeros
//	3580    4       CRC-32C of bytes 0 to 3579, seeded with the database id
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
// # Map blocks (places 4 to 12 of each group, not versioned)
//
// Bytes 0 to blockSize-65 are marks: LSNs of 8 bytes, (blockSize-64)/8 of them. The rest
// is zeros. In places 4 to 11 each mark is of an extent of 8 blocks, in the order of the
// group; in place 12 of 64 blocks. The reserved places count as blocks of the group. A mark
// is at least the highest LSN of a commit that changed, allocated or freed one of its
// blocks (R16). The trailer's LSN was durable when the block was written; nothing goes by
// it. A place that holds zeros was never written: everything there counts as changed.
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
//	32      8     sequence of the newest checkpoint when this was written: that of
//	              its first superblock
//	40      16*n  block and LSN of each image
//	8188    4     CRC-32C of bytes 0 to 8187, seeded with the database id
//
// An image repairs a block whose checksum is bad only if header and image are
// sound, block and LSN are those of the header, and the sequence is that of the
// checkpoint in force: then the in-place write was begun and perhaps not synced.
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
//	5 mark     length, name: 1 to 255 bytes of UTF-8; in a commit without blocks
//	6 void     the commit was given up half way: none of its entries count
//	7 move     a diff whose runs may be moves: otherwise as 3
//
// Runs are pairs of skip and length, the bytes behind each; a length of 0 ends
// the list. In a move entry the second number is twice the length, plus 1 if the run
// is a move: instead of bytes a distance follows (signed varint, not 0), and the
// bytes are those that the predecessor has that much before the run's place. A diff
// applies to exactly the predecessor's LSN (R8).

const (
	formatVersion     = 1
	superblockSize    = 512
	superblockStride  = 4096
	superblockMagic   = "SPILLWAY"
	changesMagic      = "SPILLCHG"
	changesSize       = superblockStride - superblockSize
	changesHead       = 32
	doublewriteMagic  = "SPILLDBW"
	doublewriteHeader = 8192
	doublewriteMax    = 256

	flagStandby = 1 << 0
	flagNewLog  = 1 << 1
	forksMax    = 9
	headsMax    = 4

	entryCommit = 1
	entryImage  = 2
	entryDiff   = 3
	entryFree   = 4
	entryMark   = 5
	entryVoid   = 6
	entryMove   = 7
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
	sequence    uint64
	redo        block.LSN
	durable     block.LSN
	durableTime time.Time
	mapFloor    block.LSN
	created     time.Time
	amends      uint8 // superblocks before it of the same checkpoint
	standby     bool
	newLog      bool // the log is to be made anew at the durable LSN
	keep        block.LSN
	forks       forks
	heads       [headsMax]repositoryHead
}

// forks are what led to a timeline, the newest first; behind the last they are
// zeros.
type forks [forksMax]block.Fork

// makeForks keeps the newest.
func makeForks(list ...block.Fork) (f forks) {
	copy(f[:], list)
	return f
}

// fork puts the database on a new timeline, which shares what is at or below lsn
// with the one before.
func (s *superblock) fork(lsn block.LSN) {
	s.forks = makeForks(append([]block.Fork{{Timeline: s.timeline, LSN: lsn}}, s.forks.list()...)...)
	s.timeline = block.NewTimelineID()
	s.heads = [headsMax]repositoryHead{} // they are the old timeline's
}

// checkpoint is the sequence of the first superblock of the same checkpoint: second
// copies go by it.
func (s *superblock) checkpoint() uint64 { return s.sequence - uint64(s.amends) }

// list is the forks without the zeros.
func (f forks) list() (list []block.Fork) {
	for _, k := range f {
		if k == (block.Fork{}) {
			break
		}
		list = append(list, k)
	}
	return list
}

// repositoryHead is what the store remembers of a repository that it pushes to
// (R18). Zeros are none.
type repositoryHead struct {
	repo     [16]byte
	now, was Head
}

func (s *superblock) encode() []byte {
	b := make([]byte, superblockSize)
	le := binary.LittleEndian
	copy(b, superblockMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], uint32(s.blockSize))
	copy(b[16:], s.database[:])
	copy(b[32:], s.timeline[:])
	copy(b[48:], s.forks[0].Timeline[:])
	le.PutUint64(b[64:], uint64(s.forks[0].LSN))
	le.PutUint64(b[72:], s.sequence)
	le.PutUint64(b[80:], uint64(s.redo))
	le.PutUint64(b[88:], uint64(s.durable))
	le.PutUint64(b[96:], uint64(s.durableTime.UnixNano()))
	le.PutUint64(b[104:], uint64(s.mapFloor))
	le.PutUint64(b[112:], uint64(s.created.UnixNano()))
	s.encodeModes(b)
	le.PutUint32(b[508:], block.Checksum(block.SeedOf(s.database), b[:508]))
	return b
}

// encodeModes writes bytes 120 to 507.
func (s *superblock) encodeModes(b []byte) {
	le := binary.LittleEndian
	flags := uint16(0)
	if s.standby {
		flags |= flagStandby
	}
	if s.newLog {
		flags |= flagNewLog
	}
	le.PutUint16(b[120:], flags)
	b[122], b[123] = byte(len(s.forks.list())), s.amends
	le.PutUint64(b[124:], uint64(s.keep))
	for i, f := range s.forks.list() {
		at := b[132+24*i:]
		copy(at, f.Timeline[:])
		le.PutUint64(at[16:], uint64(f.LSN))
	}
	for i, h := range s.heads {
		at := b[348+40*i:]
		copy(at, h.repo[:])
		le.PutUint64(at[16:], uint64(h.now.LSN))
		le.PutUint32(at[24:], h.now.Sum)
		le.PutUint64(at[28:], uint64(h.was.LSN))
		le.PutUint32(at[36:], h.was.Sum)
	}
}

// decodeModes is the inverse of encodeModes.
func (s *superblock) decodeModes(b []byte) error {
	le := binary.LittleEndian
	flags, n := le.Uint16(b[120:]), int(b[122])
	if flags&^(flagStandby|flagNewLog) != 0 || n > forksMax {
		return fmt.Errorf("superblock has flags %#x and %d forks", flags, n)
	}
	s.standby, s.newLog = flags&flagStandby != 0, flags&flagNewLog != 0
	s.amends = b[123]
	s.keep = block.LSN(le.Uint64(b[124:]))
	for i := range n {
		at := b[132+24*i:]
		s.forks[i] = block.Fork{Timeline: block.TimelineID(at[:16]), LSN: block.LSN(le.Uint64(at[16:]))}
	}
	if n == 0 { // written before there was a list
		s.forks[0] = block.Fork{Timeline: block.TimelineID(b[48:64]), LSN: block.LSN(le.Uint64(b[64:]))}
	}
	for i := range s.heads {
		at := b[348+40*i:]
		s.heads[i] = repositoryHead{repo: [16]byte(at[:16]),
			now: Head{block.LSN(le.Uint64(at[16:])), le.Uint32(at[24:])},
			was: Head{block.LSN(le.Uint64(at[28:])), le.Uint32(at[36:])}}
	}
	return nil
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
	s.sequence = le.Uint64(b[72:])
	s.redo = block.LSN(le.Uint64(b[80:]))
	s.durable = block.LSN(le.Uint64(b[88:]))
	s.durableTime = time.Unix(0, int64(le.Uint64(b[96:])))
	s.mapFloor = block.LSN(le.Uint64(b[104:]))
	s.created = time.Unix(0, int64(le.Uint64(b[112:])))
	return s, s.decodeModes(b)
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
