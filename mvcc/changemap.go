package mvcc

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// The changed-block map (R16) says for each extent of 8 blocks the highest LSN of
// a commit that changed, allocated or freed one of them: the extent's mark. An
// incremental from base B looks only at extents whose mark is above B. A second
// level has the highest mark of 8 extents, so that a quiet region costs one number.
//
// # What must hold
//
// A mark may be too high: someone reads an extent in vain. It must never be too
// low. So no mark ever falls, and for every commit n that is published, or below
// the redo start of the checkpoint in force:
//
//	(1) in RAM:        the marks of what n touched are >= n
//	(2) on the medium: the same, if n is below that redo start
//
// # States of a map block
//
//	absent --load--> clean --raise n--> dirty, Rec n --copy--> dirty, Rec none
//	   ^              | ^                   ^                     |    |
//	   '----evict-----' '-------------------+-------written-------'    |
//	                                        '-----------raise m--------'
//
// Map blocks have no versions: a head is changed in its frame, under its latch,
// by whoever raises a mark, and is read under the latch, too. Rec is the lowest
// LSN whose mark may not be on its way to the medium; "none" (recNone) if the
// cleaner's copy has them all. A clean block is as the file has it, or can be made
// anew (see below), so it is evicted like any other.
//
// # Who does what, when
//
//   - A commit raises the marks of all its blocks to base + 1 in its preparation:
//     nobody but the writer does, the LSN is not taken, and the commit can still
//     be refused (R7). Loading a block waits for a frame, with no latch held; the
//     blocks are taken one after the other, so a transaction may touch more of them
//     than there are frames. A commit that is given up leaves marks one too high.
//   - The cleaner writes every dirty map block in each round, whatever its Rec:
//     marks above the durable horizon are harmless, and a large transaction that
//     is raising marks may wait for these very frames. The copy is made under the
//     latch, always with a second copy (L6), and sets Rec to none before it is
//     written; a mark raised meanwhile sets it again, and the block stays dirty.
//   - A checkpoint's redo start is C+1, where C was durable when the round began:
//     the marks of commits up to C were raised before, and every block with such a
//     mark was dirty when the round listed the dirty ones, or was on the medium.
//     So (2) holds without a word of the map in the log.
//   - Recovery raises the marks of every record in its range, whether it is applied,
//     skipped, void or a free, and has the block written also if its mark is high
//     enough: what the system's cache shows need not be on the medium.
//
// # Blocks that cannot be read
//
// A map block that was never written (the group is new, or the database is older than
// the map) or is damaged is replaced by "all changed at the newest LSN and one": the
// commit that is being prepared may have marked it before it was evicted. The
// newest LSN is read while the block is Loading, when nobody can raise a mark in it.
// Such a block is dirty with Rec none: written soon, but nothing waits for that. If
// there is much to write already it is not, so that a backup's scan does not bring
// writers to the dirty limit; who reads it after it was evicted makes it anew, with
// higher marks.
//
// A map block whose place the file no longer has, because a tail was cut off, is
// forgotten by the cleaner instead of written. That is no loss: if the group comes back
// it is one that was never written. A cut becomes durable with the sync that precedes
// the next checkpoint record, so old bytes do not come back behind it; and if they come
// back before, redo marks them.
//
// # Power cuts
//
// A map block torn in place takes any second copy of the checkpoint in force: each was
// made after that checkpoint chose its redo start, so (2) holds of it. The same copy over
// a sound and newer block does no harm either: marks from the redo start on come by redo.
// Without a usable copy the block is damaged, see above.
//
// # Format
//
// See format.go.

// recNone is the Rec of a dirty map block that has no mark which a redo start
// would have to wait for.
const recNone = ^block.LSN(0)

// The blocks that share a mark: an extent, and on the second level a region.
const (
	extentShift  = 3
	extentBlocks = 1 << extentShift
	regionShift  = 6
	regionBlocks = 1 << regionShift
)

// mapBlock is a block of the map and what its marks are of.
type mapBlock struct {
	id    block.ID
	first block.ID // of the blocks that it speaks of
	end   block.ID // behind them
	shift uint     // 1<<shift blocks share a mark
}

// marks is how many marks a map block holds.
func (g geometry) marks() int { return g.bitsEnd / 8 }

// extentsOf is the map block that has the mark of a block's extent.
func (g geometry) extentsOf(id block.ID) mapBlock {
	return g.extentBlock(g.groupOf(id), g.bitOf(id)/(extentBlocks*uint64(g.marks())))
}

// extentBlock is first-level map block n of a group.
func (g geometry) extentBlock(group, n uint64) mapBlock {
	base := block.ID(group * g.group)
	span := block.ID(extentBlocks * g.marks())
	first := base + block.ID(n)*span
	return mapBlock{id: base + offsetMap + block.ID(n), first: first, end: first + span, shift: extentShift}
}

// regionsOf is the map block of the second level of a group.
func (g geometry) regionsOf(group uint64) mapBlock {
	base := block.ID(group * g.group)
	return mapBlock{id: base + offsetMapSecond, first: base, end: base + block.ID(g.group), shift: regionShift}
}

// at is the place of a block's mark in the payload, in bytes.
func (m mapBlock) at(id block.ID) int { return 8 * int((id-m.first)>>m.shift) }

func getMark(p []byte, at int) block.LSN { return block.LSN(binary.LittleEndian.Uint64(p[at:])) }

func putMark(p []byte, at int, lsn block.LSN) { binary.LittleEndian.PutUint64(p[at:], uint64(lsn)) }

// raiseBatch is how many blocks' marks are raised at once.
const raiseBatch = 1024

// raiseMarks marks all that the transaction touches with the LSN that its commit
// will have: what has a frame, what was spilled, and what it frees. A block that was
// free and is free again is in none of its lists.
func (t *WriteTx) raiseMarks() error {
	s := t.s
	ids := s.marking[:0]
	mark := func(id block.ID) error {
		if ids = append(ids, id); len(ids) < raiseBatch {
			return nil
		}
		err := s.raise(ids, t.base+1)
		ids = ids[:0]
		return err
	}
	for i := range t.blocks {
		if err := mark(t.blocks[i].v.ID); err != nil {
			return err
		}
	}
	for _, h := range t.awayByID() {
		if err := mark(s.cache.Entry(h).ID); err != nil {
			return err
		}
	}
	return s.raise(ids, t.base+1)
}

// awayByID are the entries of blocks without a frame in the order of the blocks: each
// map block is then taken once, however many there are. The list is as long as
// that of the spilled ones which is made later, and was asked for with it.
func (t *WriteTx) awayByID() []blockcache.Handle {
	if t.away.Len() == 0 {
		return nil
	}
	c := t.s.cache
	list := t.away.AppendAll(make([]blockcache.Handle, 0, t.away.Len()))
	slices.SortFunc(list, func(a, b blockcache.Handle) int { return cmp.Compare(c.Entry(a).ID, c.Entry(b).ID) })
	return list
}

// raise raises the marks of blocks to lsn at least, in both levels, and counts that
// they change. It sorts ids.
func (s *Store) raise(ids []block.ID, lsn block.LSN) error {
	slices.Sort(ids)
	s.heat.changed(ids)
	var second mapBlock
	inSecond := 0 // from here on the second level is still to be raised
	for at := 0; at < len(ids); {
		m := s.geo.extentsOf(ids[at])
		n := at + 1
		for n < len(ids) && ids[n] < m.end {
			n++
		}
		if err := s.raiseIn(m, ids[at:n], lsn); err != nil {
			return err
		}
		at = n
		if second.end <= m.first {
			second = s.geo.regionsOf(s.geo.groupOf(m.first))
		}
		if at == len(ids) || ids[at] >= second.end {
			if err := s.raiseIn(second, ids[inSecond:at], lsn); err != nil {
				return err
			}
			inSecond = at
		}
	}
	return nil
}

// raiseIn raises marks in one map block. A block that the file has no place for
// is left: see above.
func (s *Store) raiseIn(m mapBlock, ids []block.ID, lsn block.LSN) error {
	l, v, err := s.latchMap(m.id)
	if err != nil {
		return fmt.Errorf("mark what is changed: %w", err)
	}
	defer l.Unlock()
	if v == nil {
		return nil
	}
	p := v.Data()
	for _, id := range ids {
		if at := m.at(id); getMark(p, at) < lsn {
			putMark(p, at, lsn)
		}
	}
	s.cache.Touch(v)
	s.dirtyMap(v, lsn)
	return nil
}

// dirtyMap has a map block written; rec is the lowest LSN that it was marked with.
// Under the latch.
func (s *Store) dirtyMap(v *blockcache.Version, rec block.LSN) {
	if !v.Dirty {
		s.cache.Forget(v)
		from := s.cache.ClassOf(v)
		v.Dirty, v.Rec = true, recNone
		s.cache.Reclass(v, from)
	}
	v.Rec = min(v.Rec, rec)
}

// latchMap returns a map block's head, loaded, and its latch, held; no head if the
// file has no place for the block. The caller holds no latch.
func (s *Store) latchMap(id block.ID) (*blockcache.Latch, *blockcache.Version, error) {
	l := s.cache.Latch(id)
	for {
		v := l.Head(id)
		for v != nil && v.Loading {
			l.Wait()
			v = l.Head(id)
		}
		if v != nil {
			return l, v, nil
		}
		l.Unlock()
		var frame []byte // taken before the latch (R7)
		var err error
		known := s.data.has(id)
		if known {
			frame, err = s.cache.NewFrame()
		}
		if err != nil {
			return nil, nil, err
		}
		l.Lock()
		switch {
		case l.Head(id) == nil && !known:
			return l, nil, nil
		case l.Head(id) == nil:
			s.loadMap(l, id, frame)
		case known: // someone was faster
			s.cache.GiveFrame(frame)
		}
	}
}

// loadMap makes a head of a map block, as the file has it or replaced. Under the
// latch, which it releases meanwhile.
func (s *Store) loadMap(l *blockcache.Latch, id block.ID, frame []byte) {
	v := &blockcache.Version{ID: id, Type: block.TypeMap, InPlace: true, Loading: true}
	l.Insert(v)
	l.Unlock()
	replaced := !s.readMap(id, frame)
	l.Lock()
	v.Loading = false
	l.Wake()
	if replaced && s.writesMap() && s.cache.Frames(blockcache.ClassDirty) < s.dirtyMax()/2 {
		v.Dirty, v.Rec = true, recNone
	}
	s.cache.Adopt(v, frame)
	s.cache.Keep(v)
}

// writesMap reports whether there is a cleaner that writes map blocks.
func (s *Store) writesMap() bool { return !s.opts.ReadOnly && s.state.failure() == nil }

// readMap fills a frame with a map block; false if it had to be replaced. Its head
// is Loading.
func (s *Store) readMap(id block.ID, frame []byte) bool {
	t, err := s.data.read(id, frame)
	if err == nil && t.Type != block.TypeMap {
		err = s.data.corrupt(id, "it is of type "+t.Type.String())
	}
	if err == nil {
		return true
	}
	all := s.newestLSN() + 1
	unwritten := errors.Is(err, block.ErrCorrupt) && bytes.Equal(frame, s.zeros)
	if !unwritten && !s.state.closing.Load() { // a backup may still read while the file is being closed
		s.logger.Warn("block of the changed-block map replaced: all that it speaks of counts as changed", "block", id.String(), "lsn", uint64(all), "error", err)
	}
	clear(frame)
	for i := range s.geo.marks() {
		putMark(frame, 8*i, all)
	}
	return false
}

// readMarks copies the marks of a map block to dst; false if there is no such
// block: then everything counts as changed.
func (s *Store) readMarks(id block.ID, dst []byte) (bool, error) {
	l, v, err := s.latchMap(id)
	if err != nil {
		return false, fmt.Errorf("read changed-block map: %w", err)
	}
	defer l.Unlock()
	if v == nil {
		return false, nil
	}
	s.cache.Touch(v)
	copy(dst, v.Data()[:s.geo.bitsEnd])
	return true, nil
}

// checkMap reads a group's map blocks from the disk. One that is damaged is written
// again, or replaced: nothing is lost, so it is no problem to report.
func (s *Store) checkMap(group uint64) error {
	first := block.ID(group * s.geo.group)
	b := make([]byte, s.geo.size)
	for id := first + offsetMap; id < first+reserved; id++ {
		if !s.data.has(id) {
			continue
		}
		if _, err := s.data.read(id, b); err == nil {
			continue
		}
		if bytes.Equal(b, s.zeros) && !s.holdsMap(id) {
			continue // never written
		}
		if err := s.repairMap(id, b); err != nil {
			return fmt.Errorf("check changed-block map: %w", err)
		}
	}
	return nil
}

// holdsMap reports whether a map block is in RAM.
func (s *Store) holdsMap(id block.ID) bool {
	l := s.cache.Latch(id)
	defer l.Unlock()
	return l.Head(id) != nil
}

// repairMap looks again, while nobody can write the block in place, and has it
// written. b is one block of working memory.
func (s *Store) repairMap(id block.ID, b []byte) error {
	l, v, err := s.latchMap(id) // what is not in RAM is read, and replaced if it must be
	if err != nil {
		return err
	}
	defer l.Unlock()
	if v == nil || v.Dirty {
		return nil
	}
	v.Loading = true
	l.Unlock()
	_, err = s.data.read(id, b)
	l.Lock()
	v.Loading = false
	l.Wake()
	if err != nil && s.writesMap() {
		s.logger.Warn("block of the changed-block map is damaged on disk and is written again", "block", id.String(), "error", err)
		s.dirtyMap(v, recNone)
	}
	return nil
}

// pickMap takes a dirty map block into the cleaner's batch as it stands, or forgets
// it if the file has no place for it: nobody but the cleaner takes places away.
func (c *cleaner) pickMap(id block.ID) {
	s := c.s
	known := s.data.has(id)
	l := s.cache.Latch(id)
	defer l.Unlock()
	v := l.Head(id)
	for v != nil && v.Loading {
		l.Wait()
		v = l.Head(id)
	}
	if v == nil || !v.Dirty {
		return
	}
	if !known {
		l.Remove(v)
		s.cache.Kill(v)
		return
	}
	image := c.buf[len(c.picked)*s.geo.size:][:s.geo.size]
	copy(image, v.Data())
	t := block.Trailer{Type: block.TypeMap, ID: v.ID, LSN: s.log.Durable()} // for who looks: nothing goes by it
	block.Seal(image, t, s.data.seed)
	v.Rec = recNone
	v.Pin()
	c.picked = append(c.picked, picked{v, image, t.LSN, true})
}

// cleanedMap notes that the data file holds what was copied from v: all of it,
// unless a mark was raised since.
func (s *Store) cleanedMap(v *blockcache.Version) {
	l := s.cache.Latch(v.ID)
	defer l.Unlock()
	if v.Rec != recNone {
		return
	}
	from := s.cache.ClassOf(v)
	v.Dirty = false
	s.cache.Reclass(v, from)
	s.cache.KeepCleaned(v)
}

// mapFloor is the lowest base that the map can serve.
func (s *Store) mapFloor() block.LSN {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	return max(s.anchor.now.mapFloor, s.anchor.floor)
}

// distrustMap refuses every base so far: a mark was found to be too low. The next
// checkpoint makes it durable.
func (s *Store) distrustMap() {
	s.anchor.mu.Lock()
	defer s.anchor.mu.Unlock()
	s.anchor.floor = s.newestLSN()
}
