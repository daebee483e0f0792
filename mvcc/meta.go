package mvcc

import (
	"encoding/binary"

	"github.com/spillwaydb/spillway/block"
)

// meta is the decoded meta block.
type meta struct {
	highWater block.ID
	inUse     uint64
	root      Root
}

// metaAt is what the meta block says as of a commit.
type metaAt struct {
	lsn  block.LSN
	meta meta
}

func decodeMeta(p []byte) meta {
	return meta{
		highWater: block.ID(binary.LittleEndian.Uint64(p[metaHighWater:])),
		inUse:     binary.LittleEndian.Uint64(p[metaInUse:]),
		root:      Root(p[metaRoot:]),
	}
}

func (m *meta) encode(p []byte) {
	binary.LittleEndian.PutUint64(p[metaHighWater:], uint64(m.highWater))
	binary.LittleEndian.PutUint64(p[metaInUse:], m.inUse)
	copy(p[metaRoot:], m.root[:])
}
