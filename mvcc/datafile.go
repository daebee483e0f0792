package mvcc

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// dataFile is the file "data": blocks at their places.
type dataFile struct {
	file vfs.File
	path string
	geo  geometry
	seed block.Seed

	mu      sync.Mutex
	size    int64   // bytes that are allocated on disk
	written []place // what the cleaner has begun to write in place since it last synced

	syncing sync.Mutex // held during a sync, see Store.syncData
	failed  error      // of the first sync that failed; guarded by syncing
}

// writes says that a batch will be written in place. Before it is: who syncs meanwhile
// may lose it.
func (d *dataFile) writes(batch []picked) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range batch {
		d.written = append(d.written, place{batch[i].v.ID, batch[i].lsn})
	}
}

// wrote says that all of it is durable. The cleaner calls it, behind its sync.
func (d *dataFile) wrote() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = d.written[:0]
}

// unsynced is what may not be durable.
func (d *dataFile) unsynced() []place {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.written)
}

// openScan opens the file once more for reading it from end to end. The
// operating system may read megabytes ahead of who does that, all at once, and
// everyone else's reads and syncs wait behind them.
func (d *dataFile) openScan(fsys vfs.FS) (vfs.File, error) {
	if image, ok := d.file.(imageFile); ok {
		return image, nil
	}
	f, err := fsys.OpenFile(d.path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open data file for a scan: %w", err)
	}
	f.NoReadAhead()
	return f, nil
}

// growBytesMax bounds how far ahead of need the file grows.
const growBytesMax = 16 << 20

// reserve makes sure that the block's place exists on disk, so that writing it
// cannot fail for lack of space (R7). The file grows in steps.
func (d *dataFile) reserve(id block.ID) error {
	need := d.geo.offset(id + 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if need <= d.size {
		return nil
	}
	target := d.geo.offset(block.ID((d.size + d.slack()) / int64(d.geo.size)))
	target = max(target, need)
	err := d.file.Allocate(d.size, target-d.size)
	if err != nil && target > need {
		target = need
		err = d.file.Allocate(d.size, target-d.size)
	}
	if err != nil {
		return fmt.Errorf("%w: grow %s to %d bytes: %w", ErrNoSpace, d.path, target, err)
	}
	d.size = target
	return nil
}

// slack is how much longer than needed the file may be.
func (d *dataFile) slack() int64 { return min(max(d.size/8, int64(64*d.geo.size)), growBytesMax) }

// worthShrinking reports whether much of the file is behind the high-water mark.
func (d *dataFile) worthShrinking(highWater block.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size-d.geo.offset(highWater) > 2*d.slack()
}

// shrink gives the space behind the high-water mark back.
func (d *dataFile) shrink(highWater block.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	want := d.geo.offset(highWater)
	if want >= d.size {
		return nil
	}
	if err := d.file.Truncate(want); err != nil {
		return fmt.Errorf("truncate %s to %d bytes: %w", d.path, want, err)
	}
	d.size = want
	return nil
}

// length is the file's size in bytes.
func (d *dataFile) length() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// has reports whether the file has a place for a block.
func (d *dataFile) has(id block.ID) bool {
	return uint64(id) < uint64(d.length())/uint64(d.geo.size)
}

// read fills dst with block id and verifies it.
func (d *dataFile) read(id block.ID, dst []byte) (block.Trailer, error) {
	if _, err := d.file.ReadAt(dst, d.geo.offset(id)); err != nil {
		return block.Trailer{}, fmt.Errorf("read block %v at offset %d of %s: %w", id, d.geo.offset(id), d.path, err)
	}
	t, reason := block.Verify(dst, id, d.seed)
	if reason != "" {
		return t, d.corrupt(id, reason)
	}
	return t, nil
}

func (d *dataFile) corrupt(id block.ID, reason string) error {
	return &block.CorruptError{Path: d.path, Offset: d.geo.offset(id), Block: id, Reason: reason}
}
