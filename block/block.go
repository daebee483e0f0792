package block

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// ID is the number of a block: its place in the data file in units of the
// block size.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("%#x", uint64(id)) }

// LSN is the number of a commit: one per commit, without gaps, never reused on
// one timeline. Zero is "before the first commit".
type LSN uint64

func (n LSN) String() string { return fmt.Sprintf("%d", uint64(n)) }

// Type tells what a block's payload is, so that tools can name what they find.
type Type uint8

// The types of blocks. The numbers are on disk.
const (
	TypeFree     Type = 0 // never written, or not in use
	TypeMeta     Type = 1 // the store's root: high-water mark, user root
	TypeBitmap   Type = 2 // allocation bits of one group of blocks
	TypeMap      Type = 3 // changed-block map
	TypeBranch   Type = 4 // inner block of a tree
	TypeLeaf     Type = 5 // leaf block of a tree
	TypeOverflow Type = 6 // part of a value too large for a leaf
	TypeIndex    Type = 7 // numbers of overflow blocks
	TypeUser     Type = 8 // first number free for other front doors
)

func (t Type) String() string {
	names := [...]string{"free", "meta", "bitmap", "map", "branch", "leaf", "overflow", "index"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("user(%d)", uint8(t))
}

// The sizes a block may have, in bytes. A size is a power of two.
const (
	SizeMin     = 4 << 10
	SizeMax     = 64 << 10
	SizeDefault = 4 << 10 // chosen by measurement, see docs/block-size.md
)

// ValidSize reports whether n bytes is a size that a block may have.
func ValidSize(n int) bool {
	return n >= SizeMin && n <= SizeMax && bits.OnesCount(uint(n)) == 1
}

// DatabaseID names a database for all its life: copies and restores keep it.
type DatabaseID [16]byte

// TimelineID names one history of a database: a restore that is then written
// starts a new one (L14, R18).
type TimelineID [16]byte

func (d DatabaseID) String() string { return hex.EncodeToString(d[:]) }
func (t TimelineID) String() string { return hex.EncodeToString(t[:]) }

// NewDatabaseID draws a random id.
func NewDatabaseID() (d DatabaseID) {
	rand.Read(d[:]) // never fails, see crypto/rand
	return d
}

// NewTimelineID draws a random id.
func NewTimelineID() (t TimelineID) {
	rand.Read(t[:]) // never fails, see crypto/rand
	return t
}

// Fork is where a timeline was left: what came later on it is no history of
// ours (R18).
type Fork struct {
	Timeline TimelineID
	LSN      LSN // the last commit that is ours, too
}
