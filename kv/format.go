package kv

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// One B+tree holds all buckets. Integers are little-endian; sizes in bytes; P is
// the size of a block's payload (block size - block.TrailerSize).
//
// # Root
//
// The 64 bytes that the store keeps for its front door (mvcc.Root):
//
//	offset  size  field
//	0       4     magic    "SpKV"
//	4       2     version  of everything described here: 1
//	6       1     height   levels of the tree, 0 if it is empty
//	7       1     zero
//	8       8     root     block ID of the topmost node, 0 if the tree is empty
//	16      8     next     lowest bucket number never used: 1..2^64-2
//	24      8     renamed  LSN of the newest commit that created or deleted a bucket;
//	              0 if none did since this field exists
//	32      32    zero
//
// A root of 64 zero bytes is a store that was never written: an empty tree.
//
// # Composite key
//
// The key of an entry is the number of its bucket, then the key in the bucket.
// The number is encoded so that no encoding is the prefix of another, shortest
// form only, and byte order is number order:
//
//	number 0..247   1 byte: the number
//	others          1 byte 0xf7+n, then the number in n bytes (1..8), big-endian
//
// Bucket 0 is the list of top-level buckets. Numbers are never used twice, and a
// bucket's number is greater than its parent's.
//
// # Node: block.TypeLeaf, block.TypeBranch
//
//	offset  size     field
//	0       2        count    number of slots
//	2       2        low      offset of the lowest byte of the cell area
//	4       2        garbage  bytes of the cell area that belong to no cell
//	6       1        level    0 in a leaf; a branch's children have its level - 1
//	7       1        tag      0x6e: this is a node
//	8       2        shared   leading bytes that all keys have in common, or fewer
//	10      2        zero
//	12      8*count  slots    one per entry, ascending by key
//	        ...      hole     old bytes without meaning
//	low     ..P      cells    in no order
//
// A slot:
//
//	offset  size  field
//	0       2     offset  of the entry's cell
//	2       2     hint    the two bytes of its key behind the shared ones, the first
//	              one high; what the key does not have is zero
//	4       2     key size
//	6       2     bits 0..13: value size; bits 14..15: kind
//
// A cell is the key, then the value. All that a search or a scan needs of entries
// that it passes by lies together in the slots.
//
// In a leaf, by kind:
//
//	0  the value itself, at most inlineMax(P) bytes
//	1  a bucket: u64 number, u64 sequence
//	2  a longer value: u64 size, then u64 block IDs: if it fills at most 8 blocks
//	   theirs, otherwise that of its first index block
//
// In a branch the value is the u64 block ID of a child. Child i holds the keys
// from the key of slot i on, up to that of slot i+1; the key of slot 0 is not
// looked at (the child takes everything below slot 1), does not count for shared,
// and its hint means nothing. Kind 0: all leaves below
// the child have kind 0 only; kind 1: maybe not. So deleting a bucket need not
// read leaves that cannot name anything outside of themselves.
//
// New cells are put in front of low and removed ones are only counted as
// garbage, so that the difference between two versions of a node, which is what
// the log stores, stays small. A node is packed when the hole is too small.
//
// # Long values: block.TypeOverflow, block.TypeIndex
//
// An overflow block's payload is a piece of P bytes; what the last one has left
// is zero. An index block:
//
//	offset  size  field
//	0       4     position  in the chain, from 0
//	4       4     count     block IDs here: (P-16)/8 in every one but the last
//	8       8     next      block ID of the next index block, 0 in the last
//	16      8*n   IDs of overflow blocks
//
// # Validity and torn writes
//
// A block is whole or refused (block.Trailer), and all blocks change together or
// not at all (commit): nothing here needs to be proof against half a write.
// Every size and offset is nevertheless checked before it is used, so that a
// block that is sound and wrong ends as a *block.CorruptError.

const (
	rootMagic   = "SpKV"
	rootVersion = 1

	nodeTag        = 0x6e
	nodeHeaderSize = 12
	slotSize       = 8
	childSize      = 8
	bucketSize     = 16

	indexHeaderSize = 16
	directMax       = 8 // overflow blocks named in the cell itself

	// prefixSizeMax is the longest encoding of a bucket number.
	prefixSizeMax = 9

	// heightMax bounds every descent. A branch has room for four children and is
	// left by a split with half of that: 24 levels are beyond any real tree.
	heightMax = 24
)

// kind is what the value of a cell means.
type kind uint8

const (
	kindInline   kind = 0
	kindBucket   kind = 1
	kindOverflow kind = 2

	// In a branch.
	kindPlain   kind = 0 // nothing but kindInline below
	kindSpecial kind = 1 // maybe something else below
)

// MaxValueSize is the size of the longest value in bytes.
const MaxValueSize = 1 << 30

// maxKeySize is chosen so that a branch has room for at least four keys with
// their bucket number, and, with inlineMax, so that two leaf cells fit into any
// node: a node that is too full can always be split in two.
func maxKeySize(payload int) int { return (payload+block.TrailerSize)/4 - 64 }

// inlineMax is the size of the longest value that is kept in its leaf.
func inlineMax(payload int) int { return (payload+block.TrailerSize)/4 - 64 }

// idsPerIndex is the number of block IDs that an index block holds.
func idsPerIndex(payload int) int { return (payload - indexHeaderSize) / 8 }

// nodeType is the type of the blocks of a level.
func nodeType(level int) block.Type {
	if level == 0 {
		return block.TypeLeaf
	}
	return block.TypeBranch
}

// rootFields are what mvcc.Root says.
type rootFields struct {
	root    block.ID
	height  int
	next    uint64    // lowest bucket number never used
	renamed block.LSN // newest commit that created or deleted a bucket
}

func (f rootFields) encode() (r mvcc.Root) {
	copy(r[:], rootMagic)
	binary.LittleEndian.PutUint16(r[4:], rootVersion)
	r[6] = byte(f.height)
	binary.LittleEndian.PutUint64(r[8:], uint64(f.root))
	binary.LittleEndian.PutUint64(r[16:], f.next)
	binary.LittleEndian.PutUint64(r[24:], uint64(f.renamed))
	return r
}

func decodeRoot(r *mvcc.Root) (rootFields, error) {
	if *r == (mvcc.Root{}) {
		return rootFields{next: 1}, nil
	}
	if string(r[:4]) != rootMagic {
		return rootFields{}, fmt.Errorf("%w: root starts with %x", ErrForeignRoot, r[:4])
	}
	if v := binary.LittleEndian.Uint16(r[4:]); v != rootVersion {
		return rootFields{}, fmt.Errorf("%w %d, known is %d", ErrVersion, v, rootVersion)
	}
	f := rootFields{
		root:    block.ID(binary.LittleEndian.Uint64(r[8:])),
		height:  int(r[6]),
		next:    binary.LittleEndian.Uint64(r[16:]),
		renamed: block.LSN(binary.LittleEndian.Uint64(r[24:])),
	}
	if f.height > heightMax || (f.height == 0) != (f.root == 0) || f.next == 0 || f.next == math.MaxUint64 || r[7] != 0 {
		return rootFields{}, corrupt(block.NoBlock, fmt.Sprintf(
			"root has height %d, block %v, next bucket %d", f.height, f.root, f.next))
	}
	return f, nil
}

// corrupt reports damage in block id. The store knows the file; a tree knows
// only blocks of it.
func corrupt(id block.ID, reason string) error {
	return &block.CorruptError{Path: "data", Offset: -1, Block: id, Reason: reason}
}

// appendPrefix appends the encoding of a bucket's number.
func appendPrefix(dst []byte, number uint64) []byte {
	if number < 0xf8 {
		return append(dst, byte(number))
	}
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], number)
	skip := 0
	for be[skip] == 0 {
		skip++
	}
	dst = append(dst, byte(0xf7+8-skip))
	return append(dst, be[skip:]...)
}

// cutPrefix splits a composite key. ok is false if it does not start with a
// bucket number in its shortest form.
func cutPrefix(key []byte) (number uint64, rest []byte, ok bool) {
	if len(key) == 0 {
		return 0, nil, false
	}
	if key[0] < 0xf8 {
		return uint64(key[0]), key[1:], true
	}
	n := 1 + int(key[0]-0xf7)
	if len(key) < n {
		return 0, nil, false
	}
	for _, b := range key[1:n] {
		number = number<<8 | uint64(b)
	}
	return number, key[n:], key[1] != 0 && number >= 0xf8
}

// successor returns the first key behind all keys that start with prefix, or nil
// if there is none. It is written to a fresh slice.
func successor(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] != 0xff {
			s := append([]byte(nil), prefix[:n]...)
			s[n-1]++
			return s
		}
	}
	return nil
}

// bucketEntry is the value of a kindBucket cell.
type bucketEntry struct {
	number   uint64
	sequence uint64
}

func (e bucketEntry) encode() (v [bucketSize]byte) {
	binary.LittleEndian.PutUint64(v[:], e.number)
	binary.LittleEndian.PutUint64(v[8:], e.sequence)
	return v
}

func decodeBucket(v []byte) (e bucketEntry, ok bool) {
	if len(v) != bucketSize {
		return e, false
	}
	e.number = binary.LittleEndian.Uint64(v)
	e.sequence = binary.LittleEndian.Uint64(v[8:])
	return e, e.number != 0 && e.number != math.MaxUint64
}
