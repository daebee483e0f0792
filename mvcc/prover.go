package mvcc

import (
	"errors"
	"fmt"
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// Prover is told the block images of a backup, in any order, and proves that
// they are what was in use at the backup's LSN: each block sound, once, none
// missing, none too many. It keeps two bits a block.
type Prover struct {
	path string // what errors name
	info BackupInfo
	geo  geometry
	seed block.Seed
	told func(id block.ID, lsn block.LSN) // if not nil: called for every block, by who writes

	mu      sync.Mutex
	there   blockBits         // blocks that were told
	bitmaps map[uint64][]byte // per group: its allocation bits
	failed  error

	// Of a backup with redo, see Follow:
	redone      map[block.ID]redone // blocks that redo changes; nil: there is none
	metaPayload []byte
}

// NewProver begins a proof. path is what its errors name.
func NewProver(path string, info BackupInfo) (*Prover, error) {
	if !block.ValidSize(info.BlockSize) {
		return nil, fmt.Errorf("prove %s: %w", path, optionError("block size %d", info.BlockSize))
	}
	geo := newGeometry(info.BlockSize)
	return &Prover{
		path: path, info: info, geo: geo, seed: block.SeedOf(info.Database),
		there: newBlockBits(geo), bitmaps: map[uint64][]byte{},
	}, nil
}

// Write is told the images of consecutive blocks, each of which must be sound,
// of the backup's database, no newer than its LSN, and not told before. Safe
// for concurrent use.
func (p *Prover) Write(first block.ID, images []byte) error {
	n := len(images) / p.geo.size
	if n*p.geo.size != len(images) || first >= p.info.HighWater || block.ID(n) > p.info.HighWater-first {
		return &block.CorruptError{Path: p.path, Offset: -1, Block: first,
			Reason: fmt.Sprintf("%d bytes of blocks from here on, with the high-water mark at %v", len(images), p.info.HighWater)}
	}
	for i := range n {
		if err := p.one(first+block.ID(i), images[i*p.geo.size:][:p.geo.size]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Prover) one(id block.ID, image []byte) error {
	t, reason := block.Verify(image, id, p.seed)
	switch {
	case reason != "":
		return p.corrupt(id, reason)
	case t.LSN > p.info.LSN:
		return p.corrupt(id, fmt.Sprintf("its LSN %v is above the backup's %v", t.LSN, p.info.LSN))
	case !p.geo.isVersioned(id):
		return p.corrupt(id, "it is a reserved place")
	case !p.mark(id, t.LSN, image):
		return p.corrupt(id, "it is there twice")
	}
	if p.told != nil {
		p.told(id, t.LSN)
	}
	return nil
}

func (p *Prover) corrupt(id block.ID, reason string) error {
	return &block.CorruptError{Path: p.path, Offset: p.geo.offset(id), Block: id, Reason: reason}
}

// fail makes Finish fail.
func (p *Prover) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = errors.Join(p.failed, err)
}

// mark notes that a block was told; false if it was before.
func (p *Prover) mark(id block.ID, lsn block.LSN, image []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.there.add(id) {
		return false
	}
	if g := p.geo.groupOf(id); id == p.geo.bitmapOf(g) {
		p.bitmaps[g] = append([]byte(nil), block.Payload(image)...)
	}
	if p.redone != nil {
		if _, found := p.redone[id]; found {
			p.redone[id] = redone{lsn, true}
		}
		if id == metaBlock {
			p.metaPayload = append([]byte(nil), block.Payload(image)...)
		}
	}
	return true
}

// Finish compares what was told with what the bitmaps among it name.
func (p *Prover) Finish() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return p.failed
	}
	if !p.there.has(metaBlock) {
		return p.corrupt(metaBlock, "it is missing")
	}
	if err := p.finishRedo(); err != nil {
		return err
	}
	want := uint64(1)
	for g := range p.geo.groups(p.info.HighWater) {
		bits := p.bitmaps[g]
		if bits == nil {
			return p.corrupt(p.geo.bitmapOf(g), "it is missing")
		}
		want++
		missing := block.NoBlock
		p.geo.eachInUse(g, bits, func(id block.ID) {
			want++
			if !p.there.has(id) {
				missing = min(missing, id)
			}
		})
		if missing != block.NoBlock {
			return p.corrupt(missing, "it is missing")
		}
	}
	if p.there.count != want {
		return &block.CorruptError{Path: p.path, Offset: -1, Block: block.NoBlock,
			Reason: fmt.Sprintf("there are %d blocks, the bitmaps name %d", p.there.count, want)}
	}
	return nil
}
