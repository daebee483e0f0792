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
	redo  *redoWriterAt // nil: none came yet

	standby bool
}

// BuildOptions of a Builder.
type BuildOptions struct {
	FS      vfs.FS
	Standby bool // keep the backup's timeline; the database is a standby
	Resume  bool // dir holds what an earlier Builder of the same backup wrote
}

// NewBuilder begins a database in dir, which exists and is empty. With Resume it
// may hold what an earlier Builder of the same backup left: then the data file is
// kept as it is, and [Builder.Kept] proves what of it can stay. Of a database that
// was finished there nothing is kept: it may have gone on since.
func NewBuilder(dir string, info BackupInfo, o BuildOptions) (*Builder, error) {
	fsys := o.FS
	if !block.ValidSize(info.BlockSize) {
		return nil, fmt.Errorf("build %s: %w", dir, optionError("block size %d", info.BlockSize))
	}
	flags := os.O_RDWR | os.O_CREATE
	if !o.Resume {
		entries, err := fsys.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("build: %w", err)
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("build %s: the directory is not empty", dir)
		}
		flags |= os.O_EXCL
	}
	f, err := fsys.OpenFile(filepath.Join(dir, nameData), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	p, err := NewProver(f.Name(), info)
	if err == nil && o.Resume {
		err = forgetFinished(f)
	}
	if err == nil { // free blocks, too: their space counts as reserved (R7)
		err = f.Allocate(0, p.geo.offset(info.HighWater))
	}
	if err == nil && o.Resume {
		err = forgetCached(f)
	}
	if err != nil {
		return nil, fmt.Errorf("build: %w", errors.Join(err, f.Close()))
	}
	b := &Builder{Prover: p, fs: fsys, dir: dir, file: f, marks: newBuildMap(f, p.geo, p.seed, info.LSN), standby: o.Standby}
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

// forgetFinished empties the file if it has a superblock. Who opened that database may
// have rolled it forward: then there are newer versions, also where the backup has no
// block. Redo of the one that is built now would take these for what it has done (R8).
func forgetFinished(f vfs.File) error {
	if _, _, err := readSuperblocks(f); errors.Is(err, errUnfinished) {
		return nil
	}
	return errors.Join(f.Truncate(0), f.Sync())
}

// forgetCached makes what an earlier Builder wrote durable, so that it can be read
// from the medium.
func forgetCached(f vfs.File) error {
	err := f.Sync()
	size, sizeErr := f.Size()
	if err = errors.Join(err, sizeErr); err == nil {
		f.DropCache(0, size)
	}
	return err
}

// Kept reports whether n blocks from first on, which an earlier Builder of the same
// backup may have written, are in place and sound. Then they count as written. It is
// for the caller to know that they cannot be anything else than what it would write.
// Safe for concurrent use.
func (b *Builder) Kept(first block.ID, n int) (bool, error) {
	if first >= b.info.HighWater || block.ID(n) > b.info.HighWater-first {
		return false, nil
	}
	images := make([]byte, n*b.geo.size)
	if _, err := b.file.ReadAt(images, b.geo.offset(first)); err != nil {
		return false, nil // it can be written again
	}
	for i := range n {
		t, reason := block.Verify(images[i*b.geo.size:][:b.geo.size], first+block.ID(i), b.seed)
		if reason != "" || t.LSN > b.info.LSN {
			return false, nil
		}
	}
	return true, b.Prover.Write(first, images)
}

// Finish proves that exactly the blocks in use at the backup's LSN were
// written, makes everything durable, and gives the database a new timeline
// whose LSNs go on from there (L14). A standby stays on the backup's.
func (b *Builder) Finish() error {
	err := b.redo.flush()
	if err == nil {
		err = b.Prover.Finish()
	}
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
	sb := superblock{
		blockSize: b.info.BlockSize, database: b.info.Database, timeline: b.info.Timeline, forks: makeForks(b.info.History...),
		sequence: 1, redo: b.info.LSN + 1, durable: b.info.LSN, durableTime: b.info.Time,
		created: time.Now(), standby: b.standby, // the map's floor is 0: it has been made from trailers
	}
	if !b.standby {
		sb.fork(b.info.LSN)
	}
	if err := makeFiles(b.dir, b.fs, sb, b.info.LSN); err != nil {
		return err
	}
	return publishSuperblock(b.dir, b.fs, b.file, sb)
}

// Abort closes the files and leaves the directory to its owner.
func (b *Builder) Abort() { _ = b.file.Close() }
