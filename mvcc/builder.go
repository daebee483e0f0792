package mvcc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Builder writes a new database directory from the block images of a backup.
// The database is not one until Finish returned: it has no superblock.
type Builder struct {
	fs   vfs.FS
	dir  string
	info BackupInfo
	geo  geometry
	seed block.Seed
	file vfs.File

	mu      sync.Mutex
	written map[uint64][]uint64 // per group: bits of the blocks that were written
	count   uint64
	failed  error
}

// NewBuilder begins a database in dir, which exists and is empty.
func NewBuilder(fsys vfs.FS, dir string, info BackupInfo) (*Builder, error) {
	if !block.ValidSize(info.BlockSize) {
		return nil, fmt.Errorf("build %s: %w", dir, optionError("block size %d", info.BlockSize))
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("build %s: the directory is not empty", dir)
	}
	f, err := fsys.OpenFile(filepath.Join(dir, nameData), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	return &Builder{
		fs: fsys, dir: dir, info: info, geo: newGeometry(info.BlockSize),
		seed: block.SeedOf(info.Database), file: f, written: map[uint64][]uint64{},
	}, nil
}

// Write puts the images of consecutive blocks in place, each of which must be
// sound, of this database, no newer than the backup's LSN, and not written yet.
// Safe for concurrent use.
func (b *Builder) Write(first block.ID, images []byte) error {
	n := len(images) / b.geo.size
	if n*b.geo.size != len(images) || first+block.ID(n) > b.info.HighWater {
		return fmt.Errorf("build: %d bytes for blocks from %v on, high-water mark %v", len(images), first, b.info.HighWater)
	}
	for i := range n {
		id := first + block.ID(i)
		t, reason := block.Verify(images[i*b.geo.size:][:b.geo.size], id, b.seed)
		switch {
		case reason != "":
			return b.corrupt(id, reason)
		case t.LSN > b.info.LSN:
			return b.corrupt(id, fmt.Sprintf("its LSN %v is above the backup's %v", t.LSN, b.info.LSN))
		case !b.geo.isVersioned(id):
			return b.corrupt(id, "it is a reserved place")
		case !b.mark(id):
			return b.corrupt(id, "it is there twice")
		}
	}
	if _, err := b.file.WriteAt(images, b.geo.offset(first)); err != nil {
		b.fail(err)
		return fmt.Errorf("build: write blocks from %v on: %w", first, err)
	}
	return nil
}

func (b *Builder) corrupt(id block.ID, reason string) error {
	return &block.CorruptError{Path: b.file.Name(), Offset: b.geo.offset(id), Block: id, Reason: reason}
}

func (b *Builder) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = errors.Join(b.failed, err)
}

// mark notes that a block was written; false if it was before.
func (b *Builder) mark(id block.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, bit := b.geo.groupOf(id), b.geo.bitOf(id)
	set := b.written[g]
	if set == nil {
		set = make([]uint64, (b.geo.group+63)/64)
		b.written[g] = set
	}
	if set[bit/64]>>(bit%64)&1 != 0 {
		return false
	}
	set[bit/64] |= 1 << (bit % 64)
	b.count++
	return true
}

func (b *Builder) has(id block.ID) bool {
	set := b.written[b.geo.groupOf(id)]
	bit := b.geo.bitOf(id)
	return set != nil && set[bit/64]>>(bit%64)&1 != 0
}

// Finish proves that exactly the blocks in use at the backup's LSN were
// written, makes everything durable, and gives the database a new timeline
// whose LSNs go on from there (L14).
func (b *Builder) Finish() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.failed
	if err == nil {
		err = b.prove()
	}
	if err == nil {
		err = b.publish()
	}
	err = errors.Join(err, b.file.Close())
	if err != nil {
		return fmt.Errorf("build %s: %w", b.dir, err)
	}
	return nil
}

// prove compares what was written with what the bitmaps that were written name.
func (b *Builder) prove() error {
	want := uint64(1)
	if !b.has(metaBlock) {
		return b.corrupt(metaBlock, "it is missing")
	}
	buf := make([]byte, b.geo.size)
	for g := range b.geo.groups(b.info.HighWater) {
		id := b.geo.bitmapOf(g)
		if !b.has(id) {
			return b.corrupt(id, "it is missing")
		}
		if _, err := b.file.ReadAt(buf, b.geo.offset(id)); err != nil {
			return err
		}
		if _, reason := block.Verify(buf, id, b.seed); reason != "" {
			return b.corrupt(id, reason)
		}
		want++
		missing := block.NoBlock
		b.geo.eachInUse(g, block.Payload(buf), func(id block.ID) {
			want++
			if !b.has(id) {
				missing = min(missing, id)
			}
		})
		if missing != block.NoBlock {
			return b.corrupt(missing, "it is missing")
		}
	}
	if b.count != want {
		return &block.CorruptError{Path: b.file.Name(), Offset: -1, Block: block.NoBlock,
			Reason: fmt.Sprintf("%d blocks were written, the bitmaps name %d", b.count, want)}
	}
	return nil
}

func (b *Builder) publish() error {
	now := time.Now()
	sb := superblock{
		blockSize: b.info.BlockSize, database: b.info.Database,
		timeline: block.NewTimelineID(), parent: b.info.Timeline, forkLSN: b.info.LSN,
		sequence: 1, redo: b.info.LSN + 1, durable: b.info.LSN, durableTime: b.info.Time,
		mapFloor: b.info.LSN, created: now,
	}
	size, err := b.file.Size()
	if err != nil {
		return err
	}
	if want := b.geo.offset(b.info.HighWater); size < want {
		if err := b.file.Truncate(want); err != nil {
			return err
		}
	}
	if err := makeFiles(b.dir, b.fs, sb, b.info.LSN); err != nil {
		return err
	}
	return publishSuperblock(b.dir, b.fs, b.file, sb)
}

// Abort closes the files and leaves the directory to its owner.
func (b *Builder) Abort() { _ = b.file.Close() }
