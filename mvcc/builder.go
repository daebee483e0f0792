package mvcc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Builder writes a new database directory from the block images of a backup.
// The database is not one until Finish returned: it has no superblock.
type Builder struct {
	*Prover
	fs    vfs.FS
	dir   string
	file  vfs.File
	marks *buildMap
}

// NewBuilder begins a database in dir, which exists and is empty.
func NewBuilder(dir string, info BackupInfo, o BuildOptions) (*Builder, error) {
	fsys := o.FS
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
	p, err := NewProver(f.Name(), info)
	if err == nil { // free blocks, too: their space counts as reserved (R7)
		err = f.Allocate(0, p.geo.offset(info.HighWater))
	}
	if err != nil {
		return nil, fmt.Errorf("build: %w", errors.Join(err, f.Close()))
	}
	b := &Builder{Prover: p, fs: fsys, dir: dir, file: f, marks: newBuildMap(f, p.geo, p.seed, info.LSN)}
	p.told = b.marks.told
	return b, nil
}

// Write puts the images of consecutive blocks in place, which must be as
// [Prover.Write] asks. Safe for concurrent use.
func (b *Builder) Write(first block.ID, images []byte) error {
	if err := b.Prover.Write(first, images); err != nil {
		return err
	}
	if _, err := b.file.WriteAt(images, b.geo.offset(first)); err != nil {
		b.fail(err)
		return fmt.Errorf("build: write blocks from %v on: %w", first, err)
	}
	return nil
}

// Finish proves that exactly the blocks in use at the backup's LSN were
// written, makes everything durable, and gives the database a new timeline
// whose LSNs go on from there (L14).
func (b *Builder) Finish() error {
	err := b.Prover.Finish()
	if err == nil {
		err = b.marks.finish()
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

func (b *Builder) publish() error {
	now := time.Now()
	sb := superblock{
		blockSize: b.info.BlockSize, database: b.info.Database,
		timeline: block.NewTimelineID(), forks: makeForks(append([]block.Fork{{Timeline: b.info.Timeline, LSN: b.info.LSN}}, b.info.History...)...),
		sequence: 1, redo: b.info.LSN + 1, durable: b.info.LSN, durableTime: b.info.Time,
		created: now, // the map's floor is 0: it has been made from trailers
	}
	if err := makeFiles(b.dir, b.fs, sb, b.info.LSN); err != nil {
		return err
	}
	return publishSuperblock(b.dir, b.fs, b.file, sb)
}

// Abort closes the files and leaves the directory to its owner.
func (b *Builder) Abort() { _ = b.file.Close() }
