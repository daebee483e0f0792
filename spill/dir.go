package spill

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/vfs"
)

const (
	// growBytes is how much space is reserved at once (R7, T09), and how much
	// free space is kept while any slot is in use.
	growBytes = 4 << 20
	// retryInterval is how long a full file system is left alone.
	retryInterval = time.Second
)

// dir is one directory's file. Lock rules are in the package comment.
type dir struct {
	path         string
	place        int // in Options.Dirs
	blockSize    int64
	freeBytesMin int64
	fs           vfs.FS
	file         vfs.File
	log          *slog.Logger
	tail         cacheTail // guarded by Store.writer

	corrupt atomic.Uint64 // slots that Read found damaged

	growing sync.Mutex // the file's size

	mu         sync.Mutex // guards the rest
	space      space
	failed     *IOError  // why it takes no more writes, or nil
	failedAt   time.Time // when
	growAfter  time.Time // the file system was full: no growth before this
	writeAfter time.Time // and it was full for space that we had: no write before this
	noPunch    bool      // the file system cannot punch holes
	usedPeak   int64     // slots
	writes     uint64
	written    uint64         // slots
	live       map[int64]Slot // by index; only with invariants
}

func openDir(o Options, place int) (*dir, error) {
	given := o.Dirs[place]
	f, err := o.FS.OpenTemp(given.Path)
	if err != nil {
		return nil, fmt.Errorf("temporary directory %s: open file: %w", given.Path, err)
	}
	d := &dir{
		path:         given.Path,
		place:        place,
		blockSize:    int64(o.BlockSize),
		freeBytesMin: given.FreeBytesMin,
		fs:           o.FS,
		file:         f,
		log:          o.Logger.With("dir", given.Path),
	}
	d.space.slots = given.BytesMax / d.blockSize
	if invariants {
		d.live = map[int64]Slot{}
	}
	return d, nil
}

// offset is where an extent begins; of the one behind the last, the limit.
func (d *dir) offset(extent int) int64 { return d.space.slotsBelow(extent) * d.blockSize }

// growExtents is growBytes in extents, at least one.
func (d *dir) growExtents() int { return int(max(1, growBytes/(extentSlots*d.blockSize))) }

// take hands out at most n slots in a long run, growing the file if need be.
func (d *dir) take(n int, now time.Time) (run, bool) {
	r, ok := d.takeReserved(n, now, (*space).take)
	if ok || !d.grow(now) {
		return r, ok
	}
	return d.takeReserved(n, now, (*space).take)
}

// takeShort hands out slots in whatever run there is.
func (d *dir) takeShort(n int, now time.Time) (run, bool) {
	return d.takeReserved(n, now, (*space).takeShort)
}

func (d *dir) takeReserved(n int, now time.Time, take func(*space, int) (run, bool)) (run, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil || now.Before(d.writeAfter) {
		return run{}, false
	}
	return take(&d.space, n)
}

// grow reserves space for some extents and reports whether it did. Less than
// asked is taken where the file system has no more.
func (d *dir) grow(now time.Time) bool {
	d.growing.Lock()
	defer d.growing.Unlock()
	first, n := d.growth(now)
	for ; n > 0; n /= 2 {
		enough, err := d.reserve(first, n)
		if err != nil {
			d.fail("reserve", err)
			return false
		}
		if enough {
			d.mu.Lock()
			d.space.reservedNow(first, n)
			d.mu.Unlock()
			return true
		}
		if n == 1 {
			d.mu.Lock()
			d.growAfter = now.Add(retryInterval)
			d.mu.Unlock()
		}
	}
	return false
}

func (d *dir) growth(now time.Time) (first, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil || now.Before(d.growAfter) || now.Before(d.writeAfter) {
		return 0, 0
	}
	return d.space.growth(d.growExtents())
}

// reserve makes later writes into n extents safe from lack of space (R7), or
// reports that the file system has none.
func (d *dir) reserve(first, n int) (enough bool, err error) {
	off := d.offset(first)
	size := d.offset(first+n) - off
	if d.freeBytesMin > 0 {
		free, err := d.fs.FreeBytes(d.path)
		if err != nil || free-size < d.freeBytesMin {
			return false, err
		}
	}
	err = d.file.Allocate(off, size)
	if err != nil && isNoSpace(err) {
		d.undoReserve(first, n)
		return false, nil
	}
	return err == nil, err
}

// undoReserve gives back what a reservation that found too little may have
// taken. If that fails too, the next growth takes the same place.
func (d *dir) undoReserve(first, n int) {
	d.mu.Lock()
	atEnd := d.space.holesFrom(first)
	d.mu.Unlock()
	off := d.offset(first)
	if atEnd {
		_ = d.file.Truncate(off)
	} else {
		_ = d.file.PunchHole(off, d.offset(first+n)-off)
	}
}

// wrote counts a run that is stored.
func (d *dir) wrote(slots []Slot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	d.written += uint64(len(slots))
	d.usedPeak = max(d.usedPeak, d.space.inUse)
	if invariants {
		for _, slot := range slots {
			d.live[slot.index()] = slot
		}
	}
}

// writeFailed frees r. Lack of space where we had reserved some (a file system
// that copies on write) makes the directory wait; all else is its end.
func (d *dir) writeFailed(r run, err error, now time.Time) {
	full := isNoSpace(err)
	if !full {
		d.fail("write", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space.giveBack(r)
	if full {
		d.writeAfter = now.Add(retryInterval)
	}
}

// free gives slots back and names one that was not in use.
func (d *dir) free(slots []Slot) (freed int, stray Slot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, slot := range slots {
		if invariants && d.live[slot.index()] != slot || !d.space.free(slot.index()) {
			stray = slot
			continue
		}
		freed++
		if invariants {
			delete(d.live, slot.index())
		}
	}
	return freed, stray
}

// fail ends writing to the directory, and keeps the first reason.
func (d *dir) fail(op string, cause error) *IOError {
	e := &IOError{Dir: d.path, Op: op, Cause: cause}
	d.mu.Lock()
	first := d.failed == nil
	if first {
		d.failed, d.failedAt = e, time.Now()
	}
	d.mu.Unlock()
	if first {
		d.log.Error("temporary directory takes no more writes", "error", e)
	}
	return e
}

// failure is why the directory takes no more writes and since when, or nil.
func (d *dir) failure() (*IOError, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed, d.failedAt
}
