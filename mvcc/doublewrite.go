package mvcc

import (
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// doublewrite is the file of second copies (L6). Its two halves are used in
// turn; who begins a half has synced the in-place writes that it covered.
type doublewrite struct {
	file     vfs.File
	path     string
	database block.DatabaseID
	size     int // of a block
	capacity int // images of a half
	half     int
	buf      []byte // what a half is put together in: as large as it had to be so far

	// unread is why some copies were not used when the store was opened, though they may
	// be good: they, or the places that they belong to, could not be read. Until redo has
	// shown that nobody needs them they stay.
	unread error
}

// doublewriteReadBytes is how much is read of the images at once.
const doublewriteReadBytes = 64 << 10

// doublewriteCapacity is how many blocks a half takes: about 1 MiB.
func doublewriteCapacity(blockSize int) int {
	return min(max((1<<20)/blockSize, 16), doublewriteMax)
}

func (d *doublewrite) halfBytes() int64 { return int64(doublewriteHeader + d.capacity*d.size) }

// write makes the second copies of some blocks durable.
func (d *doublewrite) write(sequence uint64, places []place, images [][]byte) error {
	if need := doublewriteHeader + len(images)*d.size; len(d.buf) < need {
		d.buf = make([]byte, need)
	}
	encodeDoublewrite(d.buf, d.database, sequence, places)
	at := doublewriteHeader
	for _, im := range images {
		at += copy(d.buf[at:], im)
	}
	off := int64(d.half) * d.halfBytes()
	if _, err := d.file.WriteAt(d.buf[:at], off); err != nil {
		return fmt.Errorf("write second copies to %s: %w", d.path, err)
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("sync second copies in %s: %w", d.path, err)
	}
	d.half = 1 - d.half
	return nil
}

// each calls f with every sound copy that was written while the checkpoint with
// this sequence was the newest. Of a half from before that only the header is read. What
// cannot be read is passed over, and noted in unread.
func (d *doublewrite) each(sequence uint64, seed block.Seed, f func(id block.ID, image []byte) error) error {
	header := make([]byte, doublewriteHeader)
	for half := range 2 {
		off := int64(half) * d.halfBytes()
		n, err := d.file.ReadAt(header, off)
		d.passedOver(err)
		seq, places := decodeDoublewrite(header[:n], d.database)
		if seq != sequence {
			continue
		}
		if err := d.eachOf(places, off+doublewriteHeader, seed, f); err != nil {
			return err
		}
	}
	return nil
}

// eachOf is each for the images that stand at off, in the order of their places.
func (d *doublewrite) eachOf(places []place, off int64, seed block.Seed, f func(id block.ID, image []byte) error) error {
	b := make([]byte, min(max(doublewriteReadBytes/d.size, 1), len(places))*d.size)
	for len(places) > 0 {
		some := places[:min(len(places), len(b)/d.size)]
		n, err := d.file.ReadAt(b[:len(some)*d.size], off)
		d.passedOver(err)
		for i, p := range some[:n/d.size] {
			image := b[i*d.size:][:d.size]
			if t, reason := block.Verify(image, p.id, seed); reason != "" || t.LSN != p.lsn {
				continue
			}
			if err := f(p.id, image); err != nil {
				return err
			}
		}
		if n < len(some)*d.size {
			return nil
		}
		places, off = places[len(some):], off+int64(n)
	}
	return nil
}

// passedOver notes that copies were not read. Those behind the end of the file never were.
func (d *doublewrite) passedOver(err error) {
	if err != nil && !errors.Is(err, io.EOF) && d.unread == nil {
		d.unread = fmt.Errorf("read second copies in %s: %w", d.path, err)
	}
}
