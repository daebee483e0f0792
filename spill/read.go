package spill

import (
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
)

// Read brings block id as of lsn back from slot into dst, which is one block
// long: payload, and the trailer sealed with Options.Seed, as it would stand in
// the data file. Anything else that is found there is a *block.CorruptError,
// trouble with the disk an *[IOError]. dst is of no use after an error. Nobody
// may free slot meanwhile.
func (s *Store) Read(slot Slot, id block.ID, lsn block.LSN, dst []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if len(dst) != s.blockSize {
		return fmt.Errorf("temporary storage: read of a slot into %d bytes", len(dst))
	}
	place := slot.dir()
	if place < 0 || place >= len(s.dirs) {
		return s.corrupt(slot, id, fmt.Sprintf("there is no slot %v", slot))
	}
	d := s.dirs[place]
	n, err := d.file.ReadAt(dst, slot.index()*d.blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return d.fail("read", err)
	}
	reason := "the file ends before it"
	if n == len(dst) {
		reason = s.codec.decode(dst, id, lsn, slot)
	}
	if reason != "" {
		return s.corrupt(slot, id, reason)
	}
	return nil
}
