package blockcache

import (
	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/shadow"
)

// What is checked in programs that are built with the tag invariants. Without it all of
// this is empty.

// Shadow is what was published of each block.
func (c *Cache) Shadow() *shadow.Blocks { return &c.shadow }

// Shadow is the version as package shadow is told of it. Under the latch, or pinned.
func (v *Version) Shadow() shadow.Version {
	return shadow.Version{LSN: v.LSN, Type: v.Type, Image: v.data}
}

// checkHead proves that what becomes a head is the newest version of its block. What is
// only a mark that somebody reads the place is not known yet.
func (c *Cache) checkHead(v *Version) {
	if shadow.On && !(v.LSN == 0 && v.InPlace && v.data == nil) {
		c.shadow.Head(v.ID, v.LSN, v.Freed)
	}
}

// checkPending proves that what is behind a head ended as it says.
func (c *Cache) checkPending(head *Version) {
	for v := head.Older; shadow.On && v != nil; v = v.Older {
		c.shadow.Interval(v.ID, v.LSN, v.Until, "pending")
	}
}

// checkFrame proves that a frame has what was published. A version that was not published
// yet is not judged.
func (c *Cache) checkFrame(v *Version, what string) {
	if shadow.On && v.Role != RolePrivate {
		c.shadow.Same(v.ID, v.Shadow(), what)
	}
}

// checkImage proves that what was read from temporary storage is what was published.
func (c *Cache) checkImage(id block.ID, lsn block.LSN, image []byte) {
	c.shadow.Same(id, shadow.Version{LSN: lsn, Image: image}, "read from temporary storage")
}

// checkInPlace proves that the place has the version whose frame goes because it has, and
// that nobody else goes with it.
func (c *Cache) checkInPlace(v *Version) {
	c.shadow.InPlace(v.ID, v.LSN, "its frame goes")
	v.CheckAlone()
}

// CheckAlone proves, for the tag invariants, that nothing is pending behind a head that
// ends: the sweep would not find it, and nobody would be asked whether he wants it (R1).
func (v *Version) CheckAlone() {
	if shadow.On && v.Role == RoleHead && v.Older != nil {
		shadow.Fail("block %v: its head of version %v ends, and version %v is pending behind it", v.ID, v.LSN, v.Older.LSN)
	}
}

// checkKept proves, for the tag invariants, that a version has another place than the one
// that it is about to lose.
func (c *Cache) checkKept(v *Version) {
	if shadow.On && v.data == nil && v.slot == 0 {
		shadow.Fail("block %v: version %v is in place only, and loses that", v.ID, v.LSN)
	}
}
