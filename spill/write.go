package spill

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// Item is one version of a block. Two Items with the same ID and LSN may
// differ: private blocks of a transaction have no LSN of their own yet.
type Item struct {
	ID  block.ID
	LSN block.LSN
	// Data is the whole block: the payload, and a trailer of which only the
	// type counts. Write reads it and does not keep or change it.
	Data []byte
}

// Write stores items, in order, in as long runs as there are, and fills
// slots[:n]. It returns n < len(items) only with an error: ErrFull if there is
// no more room, *[IOError] if a directory failed and the others have no room
// (or none is left that works). The n items are stored either way.
func (s *Store) Write(items []Item, slots []Slot) (n int, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := s.checkItems(items, slots); err != nil {
		return 0, err
	}
	s.writer.Lock()
	defer s.writer.Unlock()

	// One moment for the whole call: a directory that has no space now is not
	// asked again, so that this ends.
	now := time.Now()
	if s.stage == nil {
		s.stage = make([]byte, max(stageBytes, s.blockSize))
	}
	for n < len(items) {
		d, r := s.reserve(min(len(items)-n, len(s.stage)/s.blockSize), now)
		if d == nil {
			return n, s.whyNoRoom(now)
		}
		if s.writeRun(d, r, items[n:n+r.n], slots[n:n+r.n], now) {
			n += r.n
		}
	}
	return n, nil
}

func (s *Store) checkItems(items []Item, slots []Slot) error {
	if len(slots) < len(items) {
		return fmt.Errorf("temporary storage: room for %d slots, %d items", len(slots), len(items))
	}
	for _, it := range items {
		if len(it.Data) != s.blockSize {
			return fmt.Errorf("temporary storage: block %v has %d bytes, not %d", it.ID, len(it.Data), s.blockSize)
		}
	}
	return nil
}

// reserve finds room for at most n slots that lie behind each other, going
// round the directories so that none starves. A directory that would have to
// use short runs comes after all that need not.
func (s *Store) reserve(n int, now time.Time) (*dir, run) {
	for _, take := range [...]func(*dir, int, time.Time) (run, bool){(*dir).take, (*dir).takeShort} {
		for i := range s.dirs {
			place := (s.nextDir + i) % len(s.dirs)
			if r, ok := take(s.dirs[place], n, now); ok {
				s.nextDir = place + 1
				return s.dirs[place], r
			}
		}
	}
	return nil, run{}
}

// writeRun writes items into r and reports whether they are stored; if not, r
// is free again and d is full for now or has failed.
func (s *Store) writeRun(d *dir, r run, items []Item, slots []Slot, now time.Time) bool {
	buf := s.stage[:0]
	for i, it := range items {
		s.uses++
		slots[i] = makeSlot(d.place, r.first+int64(i), s.uses)
		buf = append(buf, it.Data...)
		s.codec.encode(buf[len(buf)-s.blockSize:], it.ID, it.LSN, slots[i], s.uses)
	}
	off := r.first * int64(s.blockSize)
	if _, err := d.file.WriteAt(buf, off); err != nil {
		clear(slots)
		d.writeFailed(r, err, now)
		s.wakeFor(d)
		return false
	}
	d.tail.written(d.file, off, int64(len(buf)), d.offset(d.space.extentsMax()))
	d.wrote(slots)
	s.addUsed(int64(len(buf)))
	return true
}

func (s *Store) addUsed(n int64) {
	used := s.used.Add(n)
	raise(&s.usedPeak, used)
	raise(&s.usedHigh, used)
}

// raise makes a at least n.
func raise(a *atomic.Int64, n int64) {
	for {
		was := a.Load()
		if n <= was || a.CompareAndSwap(was, n) {
			return
		}
	}
}

// whyNoRoom is a failure since the call began, or one that leaves no directory
// to write to; else ErrFull. T08: a failed disk is not a full one.
func (s *Store) whyNoRoom(began time.Time) error {
	var failed error
	working := 0
	for _, d := range s.dirs {
		err, at := d.failure()
		switch {
		case err == nil:
			working++
		case !at.Before(began):
			return err
		case failed == nil:
			failed = err
		}
	}
	if working == 0 && failed != nil {
		return failed
	}
	return ErrFull
}
