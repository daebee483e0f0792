package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

const (
	slotSuffix     = ".wal"
	unborn         = ".new" // a slot file that is not complete yet
	prewriteBytes  = 1 << 20
	slotMode       = fs.FileMode(0o600)
	slotNameDigits = 4
)

// slotName is the fixed file name of a slot; it never says which segment is in
// it.
func slotName(slot int) string { return fmt.Sprintf("%0*d%s", slotNameDigits, slot, slotSuffix) }

// parseSlot is the inverse of slotName.
func parseSlot(name string) (slot int, ok bool) {
	digits, ok := strings.CutSuffix(name, slotSuffix)
	if !ok {
		return 0, false
	}
	slot, err := strconv.Atoi(digits)
	return slot, err == nil && slot > 0 && slotName(slot) == name
}

// segment is one use of a slot file, or a slot file that waits for its use.
type segment struct {
	slot   int
	header header // as on disk, or as it will be once the first run is written
	seal   seal

	// Guarded by Log.mu; constant once the segment is not the current one.
	end int64 // offset behind its last record

	last    block.LSN // of its last accepted record; for recovery only
	written bool      // its header is durable; guarded by Log.mu

	// Open while the segment is a ready spare or the current one. Used by the
	// owner of the syncing role only, and by Close.
	file vfs.File
}

// first is the first commit that begins in the segment, if any does.
func (s *segment) first() block.LSN { return s.header.prevLSN + 1 }

// limit is where records other than the end mark have to stop.
func (s *segment) limit() int64 { return s.header.size - recordHeaderBytes }

func (s *segment) path(dir string) string { return filepath.Join(dir, slotName(s.slot)) }

// writeHeaders makes the file the segment that its header says, the synced
// claim being v: copy A is durable before copy B is touched.
func (s *segment) writeHeaders(v block.LSN) error {
	h := s.header
	h.synced = v
	b := make([]byte, headerBlockBytes)
	h.encode(b)
	for _, off := range []int64{0, headerBlockBytes} {
		if _, err := s.file.WriteAt(b, off); err != nil {
			return fmt.Errorf("write segment header: %w", err)
		}
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync segment header: %w", err)
		}
	}
	return nil
}

// slotError is a write or sync that failed while a slot file was made. Unless
// space was lacking it poisons (L8).
type slotError struct{ err error }

func (e *slotError) Error() string { return e.err.Error() }
func (e *slotError) Unwrap() error { return e.err }

// createSlot makes the file of a slot: preallocated, with two spare headers,
// synced, and only then given its name. If it is prewritten it is also written
// through with zeros, so that a later overwrite changes no metadata. If not, its
// space reads as zeros all the same until it is written to: for R5 both are one.
func createSlot(o *Options, slot int, prewrite bool) error {
	name := filepath.Join(o.Dir, slotName(slot))
	f, err := o.FS.OpenFile(name+unborn, os.O_RDWR|os.O_CREATE|os.O_TRUNC, slotMode)
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	err = fillSlot(o, f, prewrite)
	f.Close() // synced, or thrown away
	if err == nil {
		err = publishSlot(o, name)
	}
	if err != nil {
		o.FS.Remove(name + unborn) // if it stays, opening removes it
	}
	return err
}

func fillSlot(o *Options, f vfs.File, prewrite bool) error {
	err := f.Allocate(0, o.SegmentBytes)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("allocate segment: %w", err)
	}
	end := int64(recordsOffset)
	if prewrite || err != nil { // zeros reserve space, too (R7)
		end = o.SegmentBytes
	}
	h := header{kind: kindSpare, size: o.SegmentBytes, database: o.Database, timeline: o.Timeline}
	chunk := make([]byte, min(prewriteBytes, end))
	h.encode(chunk)
	h.encode(chunk[headerBlockBytes:])
	for off := int64(0); off < end; off += int64(len(chunk)) {
		chunk = chunk[:min(int64(len(chunk)), end-off)]
		if _, err := f.WriteAt(chunk, off); err != nil {
			return &slotError{fmt.Errorf("prewrite segment: %w", err)}
		}
		// Piecewise, so that a commit's own sync never queues behind much.
		if err := f.Sync(); err != nil {
			return &slotError{fmt.Errorf("sync new segment: %w", err)}
		}
		clear(chunk[:recordsOffset])
	}
	return nil
}

// publishSlot gives a complete slot file its name.
func publishSlot(o *Options, name string) error {
	if err := o.FS.Rename(name+unborn, name); err != nil {
		return fmt.Errorf("name segment: %w", err)
	}
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return &slotError{fmt.Errorf("sync log directory: %w", err)}
	}
	return nil
}

// openSlot opens the slot file of s for its next use.
func (s *segment) openSlot(o *Options) error {
	f, err := o.FS.OpenFile(s.path(o.Dir), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	s.file = f
	return nil
}

// loadSlot reads the header of a slot file, which must be of o's log.
func loadSlot(o *Options, slot int) (*segment, error) {
	s, err := readSlot(o, slot)
	if err != nil {
		return nil, err
	}
	if h := &s.header; h.database != o.Database || h.timeline != o.Timeline {
		return nil, corrupt(s.path(o.Dir), 0, fmt.Sprintf("it is of database %v timeline %v, this is %v timeline %v",
			h.database, h.timeline, o.Database, o.Timeline), ErrForeign)
	}
	return s, nil
}

// readSlot reads the header of a slot file, of whatever log it is.
func readSlot(o *Options, slot int) (*segment, error) {
	s := &segment{slot: slot}
	path := s.path(o.Dir)
	f, err := o.FS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	var b [recordsOffset]byte
	if n, err := f.ReadAt(b[:], 0); n < len(b) && err != io.EOF {
		return nil, fmt.Errorf("read segment header: %w", err)
	}
	if s.header, err = pickHeader(b[:]); err != nil {
		return nil, corrupt(path, 0, "no sound segment header", err)
	}
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("size of segment: %w", err)
	}
	// It had its whole size before it had its name: no power cut does this.
	if size < s.header.size {
		return nil, corrupt(path, size, fmt.Sprintf("file ends here, its header says %d bytes", s.header.size), nil)
	}
	s.seal, s.end, s.written = s.header.seal(), recordsOffset, true
	return s, nil
}

func corrupt(path string, off int64, reason string, cause error) *block.CorruptError {
	return &block.CorruptError{Path: path, Offset: off, Block: block.NoBlock, Reason: reason, Cause: cause}
}
