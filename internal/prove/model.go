package prove

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// content is what the model knows of a block.
type content struct {
	typ  block.Type
	hash uint64
}

var contentSeed = maphash.MakeSeed()

func contentOf(b mvcc.Block) content {
	return content{b.Type(), maphash.Bytes(contentSeed, b.Payload())}
}

// contentOfBytes is contentOf for a whole block.
func contentOfBytes(b []byte) content {
	return content{block.Type(b[len(b)-block.TrailerSize+4]), maphash.Bytes(contentSeed, block.Payload(b))}
}

// image is the state after one commit. Once the model has it, it is not changed.
type image struct {
	blocks map[block.ID]content
	root   mvcc.Root
	sorted []block.ID // the numbers of blocks in order; nil: they were not sorted yet
}

// clone is a copy that may be changed.
func (im image) clone() image { return image{blocks: maps.Clone(im.blocks), root: im.root} }

// ids are the numbers of its blocks in order. Nobody changes them.
func (im image) ids() []block.ID {
	if im.sorted != nil {
		return im.sorted
	}
	return slices.Sorted(maps.Keys(im.blocks))
}

// blockModel is what every commit of a workload on blocks left. Safe for
// concurrent use.
type blockModel struct {
	mu    sync.RWMutex
	at    []image // by LSN
	acked atomic.Uint64
	seen  atomic.Uint64
}

func newBlockModel() *blockModel {
	return &blockModel{at: []image{{blocks: map[block.ID]content{}}}}
}

func (m *blockModel) image(lsn block.LSN) (image, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if int(lsn) >= len(m.at) {
		return image{}, false
	}
	return m.at[lsn], true
}

// try tells the model of a commit that is about to be made, and so of one whose
// outcome nobody will know.
func (m *blockModel) try(lsn block.LSN, im image) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at[:lsn], im)
}

// cutTo forgets commits that were refused.
func (m *blockModel) cutTo(lsn block.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = m.at[:lsn+1]
}

// raise makes a mark at least lsn.
func raise(mark *atomic.Uint64, lsn block.LSN) {
	for {
		old := mark.Load()
		if uint64(lsn) <= old || mark.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

func (m *blockModel) promised() promises {
	return promises{acked: block.LSN(m.acked.Load()), seen: block.LSN(m.seen.Load())}
}

// compare holds what a read transaction sees against the model: every block, that
// no other one is allocated, and the root.
func (m *blockModel) compare(s *mvcc.Store, r *mvcc.ReadTx) (blocks int, err error) {
	im, known := m.image(r.LSN())
	if !known {
		return 0, fmt.Errorf("LSN %v was never given", r.LSN())
	}
	if r.Root() != im.root {
		return 0, fmt.Errorf("root at LSN %v is not the one of that commit", r.LSN())
	}
	for id, want := range im.blocks {
		b, err := r.Block(id)
		if err != nil {
			return blocks, fmt.Errorf("block %v at LSN %v: %w", id, r.LSN(), err)
		}
		got := contentOf(b)
		b.Release()
		if got != want {
			return blocks, fmt.Errorf("block %v at LSN %v is another version than that of the commit", id, r.LSN())
		}
		blocks++
	}
	return blocks, m.compareAllocated(s, r, im)
}

// compareAllocated proves that exactly the model's blocks are in use.
func (m *blockModel) compareAllocated(s *mvcc.Store, r *mvcc.ReadTx, im image) error {
	layout := mvcc.LayoutOf(s.BlockSize())
	meta, err := r.Block(metaBlock)
	if err != nil {
		return fmt.Errorf("meta block at LSN %v: %w", r.LSN(), err)
	}
	highWater := block.ID(binary.LittleEndian.Uint64(meta.Payload()))
	inUse := binary.LittleEndian.Uint64(meta.Payload()[8:])
	meta.Release()
	if int(inUse) != len(im.blocks) {
		return fmt.Errorf("%d blocks are in use at LSN %v, want %d", inUse, r.LSN(), len(im.blocks))
	}
	found := 0
	for group := range layout.Groups(highWater) {
		b, err := r.Block(layout.Bitmap(group))
		if err != nil {
			return fmt.Errorf("bitmap of group %d at LSN %v: %w", group, r.LSN(), err)
		}
		for id := range im.blocks {
			if layout.GroupOf(id) == group && layout.InUse(id, b.Payload()) {
				found++
			}
		}
		b.Release()
	}
	if found != len(im.blocks) {
		return fmt.Errorf("bitmaps at LSN %v name %d of %d blocks as in use", r.LSN(), found, len(im.blocks))
	}
	return nil
}

// metaBlock is where every database has its meta block: see package mvcc's format.
const metaBlock = block.ID(2)

// promises are what was promised until some moment.
type promises struct {
	acked, seen block.LSN
	backups     int       // how many of a workload's backups were acknowledged
	going       int       // how many of the workload's prunes have begun: what they remove may be gone
	archived    block.LSN // up to here the log was said to be in the repository
}

// least is the oldest state that keeps them.
func (p promises) least() block.LSN { return max(p.acked, p.seen) }
