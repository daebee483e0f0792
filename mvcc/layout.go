package mvcc

import "github.com/spillwaydb/spillway/block"

// Layout tells a reader of block images, one who has a backup in hand and no
// store, which blocks are which. The zero Layout is none.
type Layout struct{ geo geometry }

// LayoutOf is the layout of databases with blocks of blockSize bytes, which is
// valid ([block.ValidSize]).
func LayoutOf(blockSize int) Layout { return Layout{newGeometry(blockSize)} }

// Groups is how many groups of blocks, each with a bitmap, hold the blocks
// below a high-water mark.
func (l Layout) Groups(highWater block.ID) uint64 { return l.geo.groups(highWater) }

// GroupOf is the group of a block.
func (l Layout) GroupOf(id block.ID) uint64 { return l.geo.groupOf(id) }

// Bitmap is the block that says which blocks of a group are in use.
func (l Layout) Bitmap(group uint64) block.ID { return l.geo.bitmapOf(group) }

// InUse reports whether a block is in use, and so in every full backup: the meta
// block and the bitmaps always are, the other reserved places never, and of the
// rest the bitmap of their group tells, whose payload is given.
func (l Layout) InUse(id block.ID, bitmap []byte) bool {
	if l.geo.isReserved(id) {
		return l.geo.isVersioned(id)
	}
	return l.geo.names(bitmap, id)
}
