package mvcc

import "github.com/spillwaydb/spillway/block"

// The data file is divided into groups of blocks. Each begins with the same
// reserved places, of which all groups use the bitmap and the changed-block
// map, and only group 0 the rest:
//
//	0, 1    superblocks (two copies at byte 0 and byte 4096), in no version
//	2       meta block
//	3       bitmap: one bit for each block of the group
//	4..11   changed-block map: an LSN for each extent of 8 blocks (R16)
//	12      changed-block map, second level
//	13..    blocks for the front door
const (
	offsetMeta      = 2
	offsetBitmap    = 3
	offsetMap       = 4
	offsetMapSecond = 12
	reserved        = 13
)

const metaBlock = block.ID(offsetMeta)

// geometry is what follows from the block size.
type geometry struct {
	size    int    // of a block, bytes
	group   uint64 // blocks of a group: the bits of its bitmap
	bitsEnd int    // bytes of a bitmap's payload that are bits, and of a map block's that are marks
}

func newGeometry(blockSize int) geometry {
	n := blockSize - 64
	return geometry{size: blockSize, group: uint64(n) * 8, bitsEnd: n}
}

func (g geometry) groupOf(id block.ID) uint64 { return uint64(id) / g.group }

func (g geometry) bitOf(id block.ID) uint64 { return uint64(id) % g.group }

func (g geometry) bitmapOf(group uint64) block.ID {
	return block.ID(group*g.group + offsetBitmap)
}

// groups is how many groups hold the blocks below a high-water mark.
func (g geometry) groups(highWater block.ID) uint64 {
	return (uint64(highWater) + g.group - 1) / g.group
}

// isReserved reports whether a block is one of the fixed places.
func (g geometry) isReserved(id block.ID) bool { return g.bitOf(id) < reserved }

// isVersioned reports whether a block has versions: everything but superblocks
// and changed-block map.
func (g geometry) isVersioned(id block.ID) bool {
	return !g.isReserved(id) || g.bitOf(id) == offsetBitmap || id == metaBlock
}

// isMap reports whether a block is one of the changed-block map.
func (g geometry) isMap(id block.ID) bool { return g.isReserved(id) && g.bitOf(id) >= offsetMap }

// names reports whether a bitmap, the one of its group, names a block as in use.
func (g geometry) names(bitmap []byte, id block.ID) bool {
	bit := g.bitOf(id)
	return bitmap[bit/8]>>(bit%8)&1 != 0
}

func (g geometry) offset(id block.ID) int64 { return int64(id) * int64(g.size) }
