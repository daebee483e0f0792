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
	_, err := s.ReadRun([]Slot{slot}, []Item{{ID: id, LSN: lsn}}, dst)
	return err
}

// ReadRun brings several versions back, each as Read does, into dst, one behind
// the other; slots that lie behind each other on disk come with one read. ID
// and LSN of items say what is expected, Data is set to the item's part of dst.
// It stops at the first error, with n items sound.
func (s *Store) ReadRun(slots []Slot, items []Item, dst []byte) (n int, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if len(slots) != len(items) || len(dst) != len(items)*s.blockSize {
		return 0, fmt.Errorf("temporary storage: read of %d slots, %d items, %d bytes", len(slots), len(items), len(dst))
	}
	for n < len(slots) {
		adjacent := adjacentSlots(slots[n:])
		part := dst[n*s.blockSize : (n+adjacent)*s.blockSize]
		sound, err := s.readAdjacent(slots[n:n+adjacent], items[n:n+adjacent], part)
		n += sound
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// adjacentSlots is how many of the first slots lie behind each other.
func adjacentSlots(slots []Slot) int {
	n := 1
	for n < len(slots) && slots[n].dir() == slots[0].dir() && slots[n].index() == slots[0].index()+int64(n) {
		n++
	}
	return n
}

func (s *Store) readAdjacent(slots []Slot, items []Item, dst []byte) (sound int, err error) {
	place := slots[0].dir()
	if place < 0 || place >= len(s.dirs) {
		return 0, s.corrupt(slots[0], items[0].ID, fmt.Sprintf("there is no slot %v", slots[0]))
	}
	d := s.dirs[place]
	read, err := d.file.ReadAt(dst, slots[0].index()*d.blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, d.fail("read", err)
	}
	for i := range slots {
		b := dst[i*s.blockSize : (i+1)*s.blockSize : (i+1)*s.blockSize]
		reason := "the file ends before it"
		if (i+1)*s.blockSize <= read {
			reason = s.codec.decode(b, items[i].ID, items[i].LSN, slots[i])
		}
		if reason != "" {
			return i, s.corrupt(slots[i], items[i].ID, reason)
		}
		items[i].Data = b
	}
	return len(slots), nil
}
