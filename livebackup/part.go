package livebackup

import (
	"fmt"
	"math"

	"github.com/spillwaydb/spillway/block"
)

// A backup that was made in one go has one part: all its groups. One that fell forward
// (R12) has two: what was handed out as of its snapshot, and what was handed out behind
// F, some blocks of it for the second time. One that went on with a run that was cut off
// (rebase.go) has the parts of that before its own. Each part has objects of its own, in the
// order of their numbers, so that it can be read without the others.
//
// The parts of a backup are read as a chain is: of each block the image in the newest
// part that has one counts. What the redo, which follows them all, does to the blocks
// of a backup that fell forward is in forwardlog.go.

// Part is a stretch of a backup's groups.
type Part struct {
	LSN           block.LSN `json:"lsn"`        // no image in it is newer
	HighWater     block.ID  `json:"high_water"` // above its block numbers
	Blocks        uint64    `json:"blocks"`
	Groups        uint32    `json:"groups"`
	BlocksObjects uint32    `json:"blocks_objects"` // how many of the backup's, behind those of the parts before
	IndexObjects  uint32    `json:"index_objects"`
}

// FallForward says how a backup fell forward: what it has behind its parts is the redo
// (LSN, EndLSN].
type FallForward struct {
	LSN     block.LSN `json:"lsn"`     // F
	Records uint64    `json:"records"` // of redo
	Bytes   int64     `json:"bytes"`   // of their bodies
	Chunks  uint32    `json:"chunks"`
}

// invalidParts says why the parts of m are impossible, or "". A backup that fell forward
// has some.
func (m *Manifest) invalidParts() string {
	f := m.FallForward
	switch {
	case f == nil && len(m.Parts) == 0:
		return ""
	case len(m.Parts) == 0 || len(m.Parts) > partsMax:
		return fmt.Sprintf("%d parts", len(m.Parts))
	case f == nil:
	case f.LSN < m.LSN || f.LSN > m.EndLSN:
		return fmt.Sprintf("it fell forward at LSN %v, between %v and %v", f.LSN, m.LSN, m.EndLSN)
	case f.Records < uint64(m.EndLSN-f.LSN) || uint64(f.Chunks) > f.Records || f.Bytes < 0 || (f.Records == 0) != (f.Chunks == 0):
		return "redo contradicts itself"
	}
	var sum struct{ blocks, groups, blocksObjects, indexObjects uint64 } // of numbers of 32 bits: they do not wrap
	for _, p := range m.Parts {
		if p.LSN > m.EndLSN || p.Blocks == 0 || p.Groups == 0 || uint64(p.Groups) > p.Blocks || p.BlocksObjects == 0 || p.IndexObjects == 0 ||
			p.Blocks > uint64(p.HighWater) || p.HighWater > block.ID(math.MaxInt64/int64(m.BlockSize)) {
			return "impossible part"
		}
		sum.blocks, sum.groups = sum.blocks+p.Blocks, sum.groups+uint64(p.Groups)
		sum.blocksObjects, sum.indexObjects = sum.blocksObjects+uint64(p.BlocksObjects), sum.indexObjects+uint64(p.IndexObjects)
	}
	if sum.blocks != m.Blocks || sum.groups != uint64(m.Groups) ||
		sum.blocksObjects != uint64(m.objectsOf(kindBlocks)) || sum.indexObjects != uint64(m.objectsOf(kindIndex)) {
		return "parts and backup disagree"
	}
	return ""
}

// partsMax is how many parts a backup may have.
const partsMax = 1 << 10

func (m *Manifest) objectsOf(k kind) (n uint32) {
	for _, o := range m.Objects {
		if o.Kind == string(k) {
			n++
		}
	}
	return n
}

// part is a part of a backup with its place in it.
type part struct {
	Part
	manifest *Manifest
	first    uint32 // number of its first group
	blocks   []Object
	index    []Object
}

// parts are those of a backup, the newest first.
func (m *Manifest) parts() []part {
	list := m.Parts
	if len(list) == 0 {
		list = []Part{{m.EndLSN, m.HighWater, m.Blocks, m.Groups, m.objectsOf(kindBlocks), m.objectsOf(kindIndex)}}
	}
	var blocks, index []Object
	for _, o := range m.Objects {
		switch o.Kind {
		case string(kindBlocks):
			blocks = append(blocks, o)
		case string(kindIndex):
			index = append(index, o)
		}
	}
	out := make([]part, len(list))
	first := uint32(0)
	for i, p := range list {
		out[len(list)-1-i] = part{p, m, first, blocks[:p.BlocksObjects], index[:p.IndexObjects]}
		first, blocks, index = first+p.Groups, blocks[p.BlocksObjects:], index[p.IndexObjects:]
	}
	return out
}

// partsOf are those of a chain, the newest first.
func partsOf(members []Entry) (list []part) {
	for i := range members {
		list = append(list, members[i].Manifest.parts()...)
	}
	return list
}

// bounds are what holds for each block of the part.
func (p *part) bounds() bounds {
	m := p.manifest
	return bounds{block.SeedOf(m.Database), m.BaseLSN, p.LSN, p.HighWater}
}
