package mvcc

import (
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/internal/yield"
	"github.com/spillwaydb/spillway/spill"
)

// newest asks for the newest version of a block.
const newest = ^block.LSN(0)

// Block is a block that a transaction reads or edits: its payload stays valid
// and unchanged until Release. Not safe for concurrent use.
type Block struct {
	v     *blockcache.Version
	data  []byte
	cache *blockcache.Cache // where v is pinned; nil: data is on the heap
}

// ID is the block's number.
func (b Block) ID() block.ID { return b.v.ID }

// Type is what the block holds.
func (b Block) Type() block.Type { return b.v.Type }

// Payload is the block without its trailer. It belongs to the store: read it,
// or write it if it came from [WriteTx.Edit] or [WriteTx.Alloc], until Release.
func (b Block) Payload() []byte { return block.Payload(b.data) }

// Release ends the use of the block. Once for each Block.
func (b Block) Release() {
	if b.cache != nil {
		b.cache.Unpin(b.v)
	}
}

// view is who reads: at which LSN, and whether that is still allowed.
type view struct {
	lsn      block.LSN
	snapshot interface{ Err() error } // nil for the write transaction
}

func (w view) check() error {
	if w.snapshot == nil {
		return nil
	}
	return w.snapshot.Err()
}

// get returns block id as the view sees it (L1).
func (s *Store) get(id block.ID, w view) (Block, error) {
	if v, data := s.cache.Live(id, w.lsn); v != nil {
		return Block{v, data, s.cache}, nil
	}
	return s.getSlow(id, w)
}

// current returns block id as of the newest commit, for who keeps others from making
// another one.
func (s *Store) current(id block.ID) (Block, error) {
	b, err := s.get(id, view{lsn: newest})
	if err == nil {
		s.given(b, newest, "the writer")
	}
	return b, err
}

// getSlow finds a version that is not the newest, or not in RAM.
func (s *Store) getSlow(id block.ID, w view) (Block, error) {
	if !s.geo.isVersioned(id) {
		return Block{}, fmt.Errorf("read block %v: %w", id, ErrNotInUse)
	}
	var frame []byte // taken before the latch (R7)
	defer func() {
		if frame != nil {
			s.cache.GiveFrame(frame)
		}
	}()
	l := s.cache.Latch(id)
	defer l.Unlock()
	for {
		if err := w.check(); err != nil {
			return Block{}, err
		}
		v, err := s.find(l, id, w)
		switch {
		case err != nil:
			return Block{}, err
		case v != nil && v.Loading:
			l.Wait()
			continue
		case v != nil && v.Data() != nil:
			if err := w.check(); err != nil {
				return Block{}, err
			}
			v.Pin()
			return Block{v, v.Data(), s.cache}, nil
		case v != nil && v.Slot() != 0 && v.Role != blockcache.RoleHead:
			return s.getSpilled(l, v, w)
		case w.snapshot == nil && s.state.failure() != nil:
			return Block{}, s.state.failure() // it cannot be committed, and must not wait for a frame
		case v != nil && v.Slot() != 0 && s.state.failure() != nil:
			return s.getUncleaned(l, v, w)
		case frame == nil:
			l.Unlock()
			frame, err = s.cache.NewFrame()
			l.Lock()
			if err != nil {
				return Block{}, err
			}
			continue
		}
		if frame, err = s.load(l, v, id, frame); err != nil {
			if broken := w.check(); broken != nil { // so its place may have been overwritten (L10)
				err = broken
			}
			return Block{}, err
		}
	}
}

// find is the version that a view sees, or nil when it can only be the one in
// the data file: then the block has no head, and no original that the view
// would see. Of a block that was free at the view's LSN it is whatever is there: who
// cannot know asks the bitmap (inUse). Under the latch.
func (s *Store) find(l *blockcache.Latch, id block.ID, w view) (*blockcache.Version, error) {
	h := l.Head(id)
	if h != nil && h.Loading {
		return h, nil
	}
	for v := h; v != nil; v = v.Older {
		if v.LSN <= w.lsn {
			if v.Freed {
				return nil, fmt.Errorf("read block %v at LSN %v: %w", id, w.lsn, ErrNotInUse)
			}
			return v, nil
		}
	}
	if w.lsn != newest {
		if v := s.snapshots.Find(id, w.lsn); v != nil {
			return v, nil
		}
	}
	if h != nil { // newer than the view, and nothing older is kept
		if err := w.check(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("read block %v at LSN %v: %w", id, w.lsn, ErrNotInUse)
	}
	return nil, nil
}

// getSpilled reads an original from temporary storage. The view is what keeps
// the slot; if the view was broken meanwhile, its error says so.
func (s *Store) getSpilled(l *blockcache.Latch, v *blockcache.Version, w view) (Block, error) {
	slot, onHeap := v.Slot(), &blockcache.Version{ID: v.ID, LSN: v.LSN, Type: v.Type}
	l.Unlock()
	data, err := s.cache.ReadSlot(slot, onHeap.ID, onHeap.LSN)
	yield.At("original read from its slot")
	l.Lock()
	if broken := w.check(); broken != nil {
		return Block{}, broken
	}
	if err != nil {
		return Block{}, fmt.Errorf("read block %v at LSN %v: %w", onHeap.ID, w.lsn, err)
	}
	return Block{v: onHeap, data: data}, nil
}

// getUncleaned reads a head from temporary storage for a reader of a store that has
// failed. In a frame it would be dirty for good, with nobody to write it in place, so
// that readers would fill RAM with such and then wait for ever (L8). Who is still
// cleaning waits meanwhile, and does not free the slot.
func (s *Store) getUncleaned(l *blockcache.Latch, v *blockcache.Version, w view) (Block, error) {
	v.Loading = true
	b, err := s.getSpilled(l, v, w)
	v.Loading = false
	l.Wake()
	return b, err
}

// load brings a version into the frame: v, or (v nil) what the data file holds,
// as the block's head. The latch is released meanwhile; the version is marked
// Loading, so that nobody overwrites its place in the data file (R4) or loads
// it twice. It returns the frame if it was not used.
//
// A block without a head may be free: a backup asks for all that were in use at S. Its
// place then holds what was written there last, which may be older than an original that
// the commit which freed it made. As a head that would be what readers of the original
// are given, because they look at heads first (L1): so it never becomes one. Of a block in
// use each original ended no later than what is in place began.
func (s *Store) load(l *blockcache.Latch, v *blockcache.Version, id block.ID, frame []byte) ([]byte, error) {
	fresh := v == nil
	if fresh {
		v = &blockcache.Version{ID: id, InPlace: true}
		l.Insert(v)
	}
	v.Loading = true
	slot, lsn := v.Slot(), v.LSN
	l.Unlock()
	t, err := s.readImage(id, lsn, slot, fresh, frame)
	yield.At("version read, not in the cache")
	l.Lock()
	v.Loading = false
	l.Wake()
	if err == nil && fresh && s.snapshots.EndedAfter(id, t.LSN) {
		err = fmt.Errorf("read block %v: %w", id, ErrNotInUse) // free: see above
	}
	if err != nil {
		if fresh {
			l.Remove(v)
			v.Role = blockcache.RoleDead
		}
		return frame, err
	}
	if v.Role == blockcache.RoleDead {
		return frame, nil // let go of meanwhile: look again
	}
	if slot == 0 { // until now nobody may have known
		v.LSN, v.Type = t.LSN, t.Type
		s.found(v, frame, fresh)
	}
	s.cache.Adopt(v, frame)
	s.cache.Keep(v)
	return nil, nil
}

func (s *Store) readImage(id block.ID, lsn block.LSN, slot spill.Slot, fresh bool, frame []byte) (block.Trailer, error) {
	if slot != 0 {
		return block.Trailer{}, s.cache.ReadSlotInto(slot, id, lsn, frame)
	}
	if fresh && id >= block.ID(s.data.length()/int64(s.geo.size)) {
		return block.Trailer{}, fmt.Errorf("read block %v: %w: %s ends before it", id, ErrNotInUse, s.data.path)
	}
	t, err := s.data.read(id, frame)
	if err == nil && fresh && s.isLost(id, t.LSN) {
		err = s.data.corrupt(id, fmt.Sprintf("a newer version than LSN %v was lost when a sync failed", t.LSN))
	}
	if err == nil && !fresh && t.LSN != lsn {
		err = s.data.corrupt(id, fmt.Sprintf("it has LSN %v where %v was written", t.LSN, lsn))
	}
	if err == nil {
		s.published().Same(id, shadow.Version{LSN: t.LSN, Type: t.Type, Image: frame}, "read from its place")
	}
	return t, err
}
