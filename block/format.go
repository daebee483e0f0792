package block

import (
	"encoding/binary"
	"hash/crc32"
)

// The trailer, in the last 24 bytes of every block, little-endian:
//
//	offset  size  field
//	0       4     checksum   CRC-32C of payload and of the trailer behind this field
//	4       1     type       Type
//	5       1     version    of this trailer: 1
//	6       2     zero
//	8       8     block      ID: where this block belongs
//	16      8     LSN        the commit that wrote this version
//
// The checksum starts from the database's [Seed] instead of zero. A block is
// valid if version is known, the reserved bytes are zero, block is the place it
// was read from and the checksum agrees. A block that was never written reads
// as zeros and is not valid: only the allocation bitmap may say that it is free.

// TrailerSize is the number of bytes at the end of a block that hold its
// [Trailer].
const TrailerSize = 24

const trailerVersion = 1

// Trailer is the metadata of one version of a block.
type Trailer struct {
	Type Type
	ID   ID
	LSN  LSN
}

// Seed starts the checksums of one database, so that no block of another
// database is ever taken for one of ours (D5 of the guarantees).
type Seed uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is CRC-32C over the parts, starting from seed.
func Checksum(seed Seed, parts ...[]byte) uint32 {
	c := uint32(seed)
	for _, p := range parts {
		c = crc32.Update(c, castagnoli, p)
	}
	return c
}

// SeedOf returns the seed of a database.
func SeedOf(d DatabaseID) Seed { return Seed(crc32.Checksum(d[:], castagnoli)) }

// Payload returns the part of block b that belongs to its user.
func Payload(b []byte) []byte {
	n := len(b) - TrailerSize
	return b[:n:n]
}

// Seal writes the trailer of block b, checksum included. b is a whole block.
func Seal(b []byte, t Trailer, seed Seed) {
	at := len(b) - TrailerSize
	tr := b[at:]
	tr[4] = byte(t.Type)
	tr[5] = trailerVersion
	tr[6], tr[7] = 0, 0
	binary.LittleEndian.PutUint64(tr[8:], uint64(t.ID))
	binary.LittleEndian.PutUint64(tr[16:], uint64(t.LSN))
	binary.LittleEndian.PutUint32(tr, Checksum(seed, b[:at], tr[4:]))
}

// Verify reads the trailer of block b and reports why b cannot be block id of
// the database with this seed, or "" when it is sound. The caller knows the
// place and makes the [CorruptError].
func Verify(b []byte, id ID, seed Seed) (t Trailer, reason string) {
	at := len(b) - TrailerSize
	tr := b[at:]
	if binary.LittleEndian.Uint32(tr) != Checksum(seed, b[:at], tr[4:]) {
		return t, "checksum does not agree"
	}
	if tr[5] != trailerVersion || tr[6] != 0 || tr[7] != 0 {
		return t, "unknown trailer version"
	}
	t = Trailer{
		Type: Type(tr[4]),
		ID:   ID(binary.LittleEndian.Uint64(tr[8:])),
		LSN:  LSN(binary.LittleEndian.Uint64(tr[16:])),
	}
	if t.ID != id {
		return t, "it is block " + t.ID.String()
	}
	return t, ""
}
