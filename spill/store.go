package spill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
)

// stageBytes is the most that one write carries: large enough that the device
// runs at its sequential speed, small enough to be a standing reserve (R7).
const stageBytes = 256 << 10

// Store is temporary storage. Its methods are safe for concurrent use.
type Store struct {
	blockSize int
	dirs      []*dir
	codec     codec
	log       *slog.Logger

	life   sync.RWMutex // held shared by every call; see the package comment
	closed bool         // guarded by life

	writer  sync.Mutex
	stage   []byte // guarded by writer: what a write is put together in; made by the first one
	uses    uint64 // guarded by writer: slots ever written, failed writes included
	nextDir int    // guarded by writer: whose turn it is

	used     atomic.Int64 // bytes in slots that were handed out
	usedPeak atomic.Int64
	usedHigh atomic.Int64 // the most since PeakSince was asked for

	wake    chan struct{} // to the trimmer: some directory has space to give back
	stop    chan struct{}
	trimmer sync.WaitGroup
	// trimming lets one trim run at a time.
	trimming sync.Mutex
}

// Open checks the directories and opens a file in each. Close releases them;
// they hold nothing after the process ended, however it did.
func Open(o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c, err := newCodec(o)
	if err != nil {
		return nil, fmt.Errorf("prepare encryption of temporary storage: %w", err)
	}
	s := &Store{
		blockSize: o.BlockSize,
		codec:     c,
		log:       o.Logger,
		wake:      make(chan struct{}, 1),
		stop:      make(chan struct{}),
	}
	for place := range o.Dirs {
		d, err := openDir(o, place)
		if err != nil {
			return nil, errors.Join(err, s.closeFiles())
		}
		s.dirs = append(s.dirs, d)
	}
	if len(s.dirs) > 0 {
		s.trimmer.Go(s.trimLoop)
	}
	return s, nil
}

// Close gives everything back. It waits for calls in flight; later ones return
// ErrClosed. Calling it again does nothing.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.stop)
	s.trimmer.Wait()
	s.codec = codec{} // nothing refers to the key any more
	s.stage = nil
	return s.closeFiles()
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, d := range s.dirs {
		if err := d.file.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close temporary file in %s: %w", d.path, err))
		}
	}
	return errors.Join(errs...)
}

// enter begins a call; leave ends it.
func (s *Store) enter() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

// freeSlots is how many slots are freed in one turn of a directory's lock.
const freeSlots = 512

// Free gives slots back; zero slots are skipped. It does no I/O: space goes
// back to the file system soon after, in batches. Nobody may be reading the
// slots. Freeing what is not in use is a mistake of the caller; it is logged
// and changes nothing where it can be seen (the place was not used again).
func (s *Store) Free(slots ...Slot) {
	if s.enter() != nil {
		return
	}
	defer s.leave()
	for len(slots) > 0 {
		n := sameDir(slots[:min(len(slots), freeSlots)])
		s.freeIn(slots[0].dir(), slots[:n])
		slots = slots[n:]
	}
}

// sameDir is how many of the first slots lie in one directory.
func sameDir(slots []Slot) int {
	n := 1
	for n < len(slots) && slots[n].dir() == slots[0].dir() {
		n++
	}
	return n
}

func (s *Store) freeIn(place int, slots []Slot) {
	if place < 0 {
		return // zero slots
	}
	if place >= len(s.dirs) {
		s.stray(slots[0])
		return
	}
	d := s.dirs[place]
	freed, stray := d.free(slots)
	s.used.Add(-int64(freed) * int64(s.blockSize))
	if stray != 0 {
		s.stray(stray)
	}
	s.wakeFor(d)
}

func (s *Store) stray(slot Slot) {
	if invariants {
		panic(fmt.Sprintf("spill: slot %v is freed and was not in use", slot))
	}
	s.log.Error("temporary storage: a slot was freed that is not in use", "slot", slot.String())
}

// wakeFor tells the trimmer if d has space to give back.
func (s *Store) wakeFor(d *dir) {
	if !d.hasSurplus() {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default: // it knows already
	}
}

// corrupt reports what Read found in a slot.
func (s *Store) corrupt(slot Slot, id block.ID, reason string) error {
	e := &block.CorruptError{Path: "temporary storage", Offset: -1, Block: id, Reason: reason}
	if place := slot.dir(); place >= 0 && place < len(s.dirs) {
		e.Path = s.dirs[place].file.Name()
		e.Offset = slot.index() * int64(s.blockSize)
		s.dirs[place].corrupt.Add(1)
	}
	s.log.LogAttrs(context.Background(), slog.LevelError, "temporary storage: damaged slot", slog.Any("error", e))
	return e
}
