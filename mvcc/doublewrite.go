package mvcc

import (
	"fmt"

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
	buf      []byte // one half
}

// doublewriteCapacity is how many blocks a half takes: about 1 MiB.
func doublewriteCapacity(blockSize int) int {
	return min(max((1<<20)/blockSize, 16), doublewriteMax)
}

func (d *doublewrite) halfBytes() int64 { return int64(doublewriteHeader + d.capacity*d.size) }

// write makes the second copies of some blocks durable.
func (d *doublewrite) write(sequence uint64, places []place, images [][]byte) error {
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
// this sequence was the newest.
func (d *doublewrite) each(sequence uint64, seed block.Seed, f func(id block.ID, image []byte) error) error {
	for half := range 2 {
		off := int64(half) * d.halfBytes()
		n, _ := d.file.ReadAt(d.buf, off) // what cannot be read is not used; redo refuses if it was needed
		seq, places := decodeDoublewrite(d.buf[:n], d.database)
		if seq != sequence {
			continue
		}
		for i, p := range places {
			at := doublewriteHeader + i*d.size
			if at+d.size > n {
				break
			}
			image := d.buf[at : at+d.size]
			if t, reason := block.Verify(image, p.id, seed); reason != "" || t.LSN != p.lsn {
				continue
			}
			if err := f(p.id, image); err != nil {
				return err
			}
		}
	}
	return nil
}
