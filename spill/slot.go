package spill

import "fmt"

// Slot is the place of one version of a block. Zero is none. It is opaque, but
// slots sort in the order in which they lie on disk.
//
//	bits   field
//	56-63  directory's place in Options.Dirs, plus one
//	20-55  index of the slot in the file
//	0-19   use: the low bits of the use counter when the slot was written
//
// The use makes an earlier content of the same place, left there by a write
// that the disk lost, differ even if it is the same block at the same LSN.
type Slot uint64

const (
	useBits   = 20
	indexBits = 36

	dirsMax  = 1<<(64-indexBits-useBits) - 1
	slotsMax = 1 << indexBits // of one directory
)

func makeSlot(dir int, index int64, use uint64) Slot {
	return Slot(uint64(dir+1)<<(indexBits+useBits) | uint64(index)<<useBits | use&(1<<useBits-1))
}

// dir is the directory's place in Options.Dirs, or -1.
func (s Slot) dir() int { return int(s>>(indexBits+useBits)) - 1 }

func (s Slot) index() int64 { return int64(s >> useBits & (slotsMax - 1)) }

func (s Slot) String() string {
	if s == 0 {
		return "none"
	}
	return fmt.Sprintf("%d:%d", s.dir(), s.index())
}

// run is a range of slots in one file.
type run struct {
	first int64
	n     int
}

func (r run) contains(index int64) bool { return index >= r.first && index-r.first < int64(r.n) }
