package livebackup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

// The format of a repository, version 1. All numbers are little-endian and of
// fixed width; CRC means CRC-32C. Objects are named, see objectName:
//
//	repository                        header: the repository's identity
//	database                          binding: whose backups these are
//	<backup>.run                      claim of a backup being made; no format, text for people
//	<backup>.blocks-00000001, -2...   groups of blocks
//	<backup>.index-00000001, -2...    where each block is
//	<backup>.log-00000001, -2...      redo of a backup that fell forward, see forwardlog.go
//	<backup>.partial-00000001, -2...  what a run that is at work has so far, see rebase.go
//	<backup>.manifest                 the backup; there is none without it
//	<backup>.proof-00000001, -2...    what verifying it found
//	timeline-00000001, -2...          registry of timelines, in the order in which they attached
//	lease-<16 digits, hexadecimal>    claim of one who reads backups: what is not to go
//	prune-0000000000000001            claim of one who prunes: what is to go
//	log-<from>-<to>-<timeline>        archived log, see logformat.go
//	archive-<timeline>                claim of who archives that timeline; no format, text for people
//	merge-0000000000000001            claim of who merges archived log; no format, text for people
//
// In an encrypted repository what is stored under a name is an age file
// (age-encryption.org/v1) of the object, to each of the recipients that the header
// names, or that were named when it was written. The header and the claims (run,
// lease, prune, archive, merge) are stored as they are. Sizes and offsets here and in manifests
// are those of the object.
//
// All but the claims of runs, archives and merges, the objects of blocks, index and redo, and
// archived log are an envelope around JSON:
//
//	offset  size  field
//	0       8     magic       "SPWYREPO", "SPWYBIND", "SPWYMANI", "SPWYPROV", "SPWYTIME", "SPWYLEAS", "SPWYPRUN" or "SPWYPART"
//	8       4     version     1
//	12      4     zero
//	16      16    repository  RepositoryID
//	32      16    database    DatabaseID; zero in the header
//	48      8     length      of the payload in bytes
//	56      32    SHA-256     of the payload
//	88      4     zero
//	92      4     CRC         of bytes 0 to 91
//	96            payload     JSON, to the end of the object
//
// The payload is canonical: it is valid only if encoding what was decoded gives
// the same bytes, so there are no unknown, doubled or misspelt fields. Fields
// are those of repositoryHeader, databaseBinding, manifestWire, Proof,
// timelineRecord, hold and partial. A claim (run, lease, prune) that nobody who lives has
// hold of means nothing, whatever it says. The names freed and generation are reserved
// for manifests of later versions.
//
// The manifest of an incremental names its base, with the SHA-256 of the base's
// manifest object, whole, and the LSN that the base is exact at. The incremental
// holds the blocks in use at its own LSN whose LSN is above that. Its chain is the
// incremental, its base, the base of that and so on, to a full backup. The state
// is, of each block that the newest bitmaps of the chain name as in use, the image
// in the newest backup of the chain that has one.
//
// A backup that fell forward (R12) says so in fall_forward: it has the redo (lsn,
// end_lsn] behind its blocks. Its parts are cut between objects: the first
// has no block newer than the backup's lsn, the second was taken behind F. A backup that went
// on with a run that was cut off has the parts of that in front of its own. Of a block that is
// in more than one part the image in the last one counts. The state is, of each block that is in use at end_lsn,
// the image that a chain would give, changed by the redo as recovery would (mvcc/forwardredo.go):
// a change is left out if a later commit of the redo frees the block, or if the image
// is at or past it; else it is whole, or the image must be the version that it changes.
//
// blocks, index and log objects start with an object header:
//
//	offset  size  field
//	0       8     magic       "SPWYBLKS", "SPWYINDX" or "SPWYREDO"
//	8       4     version     1
//	12      4     zero
//	16      16    database    DatabaseID
//	32      8     sequence    of the BackupID
//	40      4     random      of the BackupID
//	44      4     number      of the object, from 1
//	48      12    zero
//	60      4     CRC         of bytes 0 to 59
//
// A blocks object goes on with groups, one directly behind the other to its
// end. A group is a header and the stored bytes:
//
//	offset  size  field
//	0       4     group       number, from 0, through all objects of the backup
//	4       4     blocks      how many, at least 1; their images, in slots from 0 on, are the raw bytes
//	8       4     stored      bytes that follow the header
//	12      4     codec       0: as they are, 1: one zstd frame
//	16      4     CRC         of the stored bytes
//	20      8     zero
//	28      4     CRC         of bytes 0 to 27
//
// An index object goes on with sections, in the order of the groups:
//
//	offset  size  field
//	0       4     first       number of the first group in the section
//	4       4     groups      how many
//	8       4     runs        how many
//	12      4     zero
//	16      8     lowest      block in the section
//	24      8     highest     block in the section
//	32      4     CRC         of the entries
//	36      4     zero
//	40      4     zero
//	44      4     CRC         of bytes 0 to 43
//	48      32 g  group entries, by group number
//	        24 r  run entries, by first block
//
// A group entry: where a group is.
//
//	0       4     object      number of the blocks object
//	4       4     blocks      as in the group's header
//	8       8     offset      of the group's header in the object
//	16      4     stored      as in the group's header
//	20      4     codec       as in the group's header
//	24      4     CRC         as in the group's header
//	28      4     zero
//
// A run entry: consecutive blocks in consecutive slots of one group.
//
//	0       8     first       block number
//	8       4     blocks      how many, at least 1
//	12      4     group       number
//	16      4     slot        of the first one
//	20      4     zero
//
// Runs of a section do not overlap, and tile its groups exactly. A reader that
// wants block b looks into the sections whose lowest..highest holds b.
//
// Validity: an object of a backup is valid if its size and its SHA-256 are
// those in the manifest. A backup is valid if all its objects are, each block
// has a good trailer with an LSN not above the manifest's (in an incremental: and
// above its base's), and no block comes twice in a part; an incremental also needs a valid
// base. Torn writes: an object appears under its name only after it was
// synced, and the manifest last; what is torn was never listed.

const formatVersion = 1

// Sizes of the fixed parts, in bytes.
const (
	envelopeSize      = 96
	objectHeaderSize  = 64
	groupHeaderSize   = 32
	sectionHeaderSize = 48
	groupEntrySize    = 32
	runEntrySize      = 24
)

// Caps on what a reader takes, whatever the object says.
const (
	groupBytesMax    = 4 << 20  // raw bytes of a group
	objectBytesMax   = 1 << 30  // a blocks or index object
	smallBytesMax    = 64 << 10 // header, binding, proof
	manifestBytesMax = 64 << 20
	sectionGroupsMax = 1 << 10
	sectionRunsMax   = 1 << 16
)

type magic [8]byte

var (
	magicHeader   = magic([]byte("SPWYREPO"))
	magicBinding  = magic([]byte("SPWYBIND"))
	magicManifest = magic([]byte("SPWYMANI"))
	magicProof    = magic([]byte("SPWYPROV"))
	magicBlocks   = magic([]byte("SPWYBLKS"))
	magicIndex    = magic([]byte("SPWYINDX"))
	magicTimeline = magic([]byte("SPWYTIME"))
	magicLease    = magic([]byte("SPWYLEAS"))
	magicPrune    = magic([]byte("SPWYPRUN"))
)

var le = binary.LittleEndian

// checksum is CRC-32C.
func checksum(p []byte) uint32 { return block.Checksum(0, p) }

// identity is what every object says about where it belongs.
type identity struct {
	repository RepositoryID
	database   block.DatabaseID
}

// encodeEnvelope wraps the JSON of v.
func encodeEnvelope(m magic, who identity, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b := make([]byte, envelopeSize, envelopeSize+len(payload))
	copy(b, m[:])
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], who.repository[:])
	copy(b[32:], who.database[:])
	le.PutUint64(b[48:], uint64(len(payload)))
	sum := sha256.Sum256(payload)
	copy(b[56:], sum[:])
	le.PutUint32(b[92:], checksum(b[:92]))
	return append(b, payload...), nil
}

// decodeEnvelope reads what encodeEnvelope wrote into v.
func decodeEnvelope(name string, data []byte, m magic, v any) (who identity, err error) {
	if err := checkStart(name, data, envelopeSize, m); err != nil {
		return who, err
	}
	if le.Uint32(data[92:]) != checksum(data[:92]) {
		return who, damaged(name, 0, "checksum of the header does not agree", nil)
	}
	payload := data[envelopeSize:]
	if le.Uint32(data[12:]) != 0 || le.Uint32(data[88:]) != 0 || le.Uint64(data[48:]) != uint64(len(payload)) {
		return who, damaged(name, 0, "header contradicts the object", nil)
	}
	if sha256.Sum256(payload) != [32]byte(data[56:88]) {
		return who, damaged(name, envelopeSize, "checksum of the payload does not agree", nil)
	}
	copy(who.repository[:], data[16:])
	copy(who.database[:], data[32:])
	return who, decodeCanonical(name, payload, v)
}

// decodeCanonical reads JSON that is exactly what we would write for v.
func decodeCanonical(name string, payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return damaged(name, envelopeSize, "payload does not decode", err)
	}
	again, err := json.Marshal(v)
	if err != nil || !bytes.Equal(again, payload) {
		return damaged(name, envelopeSize, "payload is not canonical", err)
	}
	return nil
}

// checkStart checks length, magic and version, in the order that tells most. Every
// header ends with its checksum, in every version: a number that was damaged is not
// that of a newer program.
func checkStart(name string, data []byte, size int, m magic) error {
	if len(data) < size {
		return damaged(name, 0, fmt.Sprintf("%d bytes are too few for a header", len(data)), nil)
	}
	if magic(data[:8]) != m {
		return damaged(name, 0, fmt.Sprintf("starts with %q, not with %q", data[:8], m[:]), nil)
	}
	if v := le.Uint32(data[8:]); v != formatVersion {
		if le.Uint32(data[size-4:]) != checksum(data[:size-4]) {
			return damaged(name, 0, fmt.Sprintf("version is %d, and the header's checksum does not agree", v), nil)
		}
		return fmt.Errorf("%s: %w: it is %d, this program reads %d", name, ErrVersion, v, formatVersion)
	}
	return nil
}

func encodeObjectHeader(m magic, db block.DatabaseID, id BackupID, number uint32) []byte {
	b := make([]byte, objectHeaderSize)
	copy(b, m[:])
	le.PutUint32(b[8:], formatVersion)
	copy(b[16:], db[:])
	le.PutUint64(b[32:], id.Sequence)
	le.PutUint32(b[40:], id.Random)
	le.PutUint32(b[44:], number)
	le.PutUint32(b[60:], checksum(b[:60]))
	return b
}

// checkObjectHeader proves that b starts object number of backup id.
func checkObjectHeader(name string, b []byte, m magic, db block.DatabaseID, id BackupID, number uint32) error {
	if err := checkStart(name, b, objectHeaderSize, m); err != nil {
		return err
	}
	if !bytes.Equal(b[:objectHeaderSize], encodeObjectHeader(m, db, id, number)) {
		return damaged(name, 0, "header is not that of this object", nil)
	}
	return nil
}

// codec is how the stored bytes of a group are made from the raw ones.
type codec uint32

const (
	codecNone codec = 0
	codecZstd codec = 1
)

// groupEntry is where a group is and what it must be.
type groupEntry struct {
	object uint32
	blocks uint32
	offset uint64
	stored uint32
	codec  codec
	crc    uint32
}

func encodeGroupHeader(number uint32, g groupEntry) [groupHeaderSize]byte {
	var b [groupHeaderSize]byte
	le.PutUint32(b[0:], number)
	le.PutUint32(b[4:], g.blocks)
	le.PutUint32(b[8:], g.stored)
	le.PutUint32(b[12:], uint32(g.codec))
	le.PutUint32(b[16:], g.crc)
	le.PutUint32(b[28:], checksum(b[:28]))
	return b
}

func (g groupEntry) append(b []byte) []byte {
	b = le.AppendUint32(b, g.object)
	b = le.AppendUint32(b, g.blocks)
	b = le.AppendUint64(b, g.offset)
	b = le.AppendUint32(b, g.stored)
	b = le.AppendUint32(b, uint32(g.codec))
	b = le.AppendUint32(b, g.crc)
	return le.AppendUint32(b, 0)
}

func decodeGroupEntry(b []byte) (g groupEntry, ok bool) {
	g = groupEntry{
		object: le.Uint32(b), blocks: le.Uint32(b[4:]), offset: le.Uint64(b[8:]),
		stored: le.Uint32(b[16:]), codec: codec(le.Uint32(b[20:])), crc: le.Uint32(b[24:]),
	}
	return g, le.Uint32(b[28:]) == 0
}

// runEntry is where consecutive blocks are.
type runEntry struct {
	first  block.ID
	blocks uint32
	group  uint32
	slot   uint32
}

// end is the first block behind the run.
func (r runEntry) end() block.ID { return r.first + block.ID(r.blocks) }

func (r runEntry) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(r.first))
	b = le.AppendUint32(b, r.blocks)
	b = le.AppendUint32(b, r.group)
	b = le.AppendUint32(b, r.slot)
	return le.AppendUint32(b, 0)
}

func decodeRunEntry(b []byte) (r runEntry, ok bool) {
	r = runEntry{first: block.ID(le.Uint64(b)), blocks: le.Uint32(b[8:]), group: le.Uint32(b[12:]), slot: le.Uint32(b[16:])}
	return r, le.Uint32(b[20:]) == 0
}

// sectionHeader stands before the entries of a section.
type sectionHeader struct {
	first, groups, runs uint32
	lowest, highest     block.ID
	crc                 uint32
}

func (h sectionHeader) encode() [sectionHeaderSize]byte {
	var b [sectionHeaderSize]byte
	le.PutUint32(b[0:], h.first)
	le.PutUint32(b[4:], h.groups)
	le.PutUint32(b[8:], h.runs)
	le.PutUint64(b[16:], uint64(h.lowest))
	le.PutUint64(b[24:], uint64(h.highest))
	le.PutUint32(b[32:], h.crc)
	le.PutUint32(b[44:], checksum(b[:44]))
	return b
}

func decodeSectionHeader(name string, off int64, b []byte) (sectionHeader, error) {
	h := sectionHeader{
		first: le.Uint32(b), groups: le.Uint32(b[4:]), runs: le.Uint32(b[8:]),
		lowest: block.ID(le.Uint64(b[16:])), highest: block.ID(le.Uint64(b[24:])), crc: le.Uint32(b[32:]),
	}
	if enc := h.encode(); !bytes.Equal(enc[:], b[:sectionHeaderSize]) {
		return h, damaged(name, off, "section header's checksum does not agree", nil)
	}
	if h.groups < 1 || h.groups > sectionGroupsMax || h.runs < h.groups || h.runs > sectionRunsMax {
		return h, damaged(name, off, "section has an impossible size", nil)
	}
	return h, nil
}
