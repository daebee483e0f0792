package mvcc

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/spillwaydb/spillway/block"
)

// The allocation bitmaps are ordinary versioned blocks, so a snapshot knows
// what was allocated at its LSN. In RAM there is one number for each group (of
// about 126 MiB with blocks of 4 KiB): the first bit that may be free. It is a
// lower bound that only the write transaction uses.

// allocate finds a free block, lowest first, and marks it in use.
func (t *WriteTx) allocate() (block.ID, error) {
	s := t.s
	groups := s.geo.groups(t.meta.highWater)
	for g := min(s.firstGroup, groups); ; g++ { // groups are added one by one: none without its bitmap
		if g >= groups {
			if err := t.addGroup(g); err != nil {
				return 0, err
			}
			groups++
		}
		id, ok, err := t.allocateIn(g)
		if err != nil {
			return 0, err
		}
		if ok {
			s.firstGroup = g
			return id, nil
		}
	}
}

// allocateIn takes the first free bit of a group.
func (t *WriteTx) allocateIn(g uint64) (block.ID, bool, error) {
	s := t.s
	if s.hints[g] >= s.geo.group {
		return 0, false, nil
	}
	b, err := t.Block(s.geo.bitmapOf(g))
	if err != nil {
		return 0, false, fmt.Errorf("read allocation bitmap: %w", err)
	}
	bit, ok := firstZero(b.Payload()[:s.geo.bitsEnd], s.hints[g])
	b.Release()
	if !ok {
		s.hints[g] = s.geo.group
		return 0, false, nil
	}
	id := block.ID(g*s.geo.group + bit)
	if err := s.data.reserve(id); err != nil {
		return 0, false, err
	}
	if err := t.setBit(id, true); err != nil {
		return 0, false, err
	}
	s.hints[g] = bit + 1
	t.meta.inUse++
	t.meta.highWater = max(t.meta.highWater, id+1)
	return id, true, nil
}

// firstZero is the first bit from start on that is 0.
func firstZero(p []byte, start uint64) (uint64, bool) {
	for at := start / 64 * 64; at < uint64(len(p))*8; at += 64 {
		w := binary.LittleEndian.Uint64(p[at/8:])
		if at < start {
			w |= 1<<(start-at) - 1
		}
		if w != ^uint64(0) {
			return at + uint64(bits.TrailingZeros64(^w)), true
		}
	}
	return 0, false
}

// addGroup begins a new group at the end of the file.
func (t *WriteTx) addGroup(g uint64) error {
	id := t.s.geo.bitmapOf(g)
	if err := t.s.data.reserve(block.ID(g*t.s.geo.group + reserved)); err != nil {
		return err
	}
	b, err := t.blank(id, block.TypeBitmap)
	if err != nil {
		return err
	}
	initBitmap(b.Payload())
	b.Release()
	t.meta.highWater = max(t.meta.highWater, block.ID(g*t.s.geo.group+reserved))
	for uint64(len(t.s.hints)) <= g {
		t.s.hints = append(t.s.hints, reserved)
	}
	return nil
}

// initBitmap marks the reserved places of a new group.
func initBitmap(p []byte) {
	for bit := range reserved {
		p[bit/8] |= 1 << (bit % 8)
	}
}

// inUse reports whether a block is in use as of a commit with that high-water mark, of
// which read reads blocks. The mark is asked first: of a group behind it the bitmap is
// free itself, and its place may name what was in use long ago.
func (s *Store) inUse(id, highWater block.ID, read func(block.ID) (Block, error)) (bool, error) {
	group := s.geo.groupOf(id)
	switch {
	case id == metaBlock:
		return true, nil
	case group >= s.geo.groups(highWater):
		return false, nil
	case id == s.geo.bitmapOf(group):
		return true, nil
	case id >= highWater:
		return false, nil
	}
	b, err := read(s.geo.bitmapOf(group))
	if err != nil {
		return false, fmt.Errorf("read allocation bitmap: %w", err)
	}
	defer b.Release()
	return s.geo.names(b.Payload(), id), nil
}

// setBit marks a block in use or free.
func (t *WriteTx) setBit(id block.ID, used bool) error {
	s := t.s
	b, err := t.Edit(s.geo.bitmapOf(s.geo.groupOf(id)))
	if err != nil {
		return fmt.Errorf("edit allocation bitmap: %w", err)
	}
	defer b.Release()
	at, mask := s.geo.bitOf(id)/8, byte(1)<<(s.geo.bitOf(id)%8)
	p := b.Payload()
	if (p[at]&mask != 0) == used {
		return fmt.Errorf("block %v: %w", id, ErrNotInUse)
	}
	p[at] ^= mask
	return nil
}

// release marks a block free.
func (t *WriteTx) release(id block.ID) error {
	s := t.s
	if id >= t.meta.highWater {
		return fmt.Errorf("free block %v behind the high-water mark: %w", id, ErrNotInUse)
	}
	if err := t.setBit(id, false); err != nil {
		return fmt.Errorf("free: %w", err)
	}
	s.allocHint(id)
	t.meta.inUse--
	return nil
}

// allocHint lowers the bound of where a free block may be.
func (s *Store) allocHint(id block.ID) {
	g := s.geo.groupOf(id)
	if g < uint64(len(s.hints)) && !s.geo.isReserved(id) {
		s.hints[g] = min(s.hints[g], s.geo.bitOf(id))
		s.firstGroup = min(s.firstGroup, g)
	}
}

// lowerHighWater moves the high-water mark below the free blocks at the end.
func (t *WriteTx) lowerHighWater() error {
	for {
		g := t.s.geo.groupOf(t.meta.highWater - 1)
		last, err := t.lastInUse(g)
		if err != nil {
			return err
		}
		if last >= reserved || g == 0 {
			t.meta.highWater = block.ID(g*t.s.geo.group + last + 1)
			return nil
		}
		if err := t.discard(t.s.geo.bitmapOf(g)); err != nil { // the whole group is free
			return err
		}
		t.s.hints[g] = reserved
		t.meta.highWater = block.ID(g * t.s.geo.group)
	}
}

// lastInUse is the highest bit of a group's blocks below the high-water mark
// that is 1.
func (t *WriteTx) lastInUse(g uint64) (uint64, error) {
	b, err := t.Block(t.s.geo.bitmapOf(g))
	if err != nil {
		return 0, fmt.Errorf("read allocation bitmap: %w", err)
	}
	defer b.Release()
	return lastOne(b.Payload()[:t.s.geo.bitsEnd], t.s.geo.bitOf(t.meta.highWater-1)), nil
}

// lastOne is the last bit up to from that is 1; the reserved places are.
func lastOne(p []byte, from uint64) uint64 {
	for bit := from; bit > reserved-1; bit-- {
		if p[bit/8] == 0 && bit%8 == 7 && bit >= 8 {
			bit -= 7
			continue
		}
		if p[bit/8]>>(bit%8)&1 != 0 {
			return bit
		}
	}
	return reserved - 1
}

// eachInUse calls f for every block in use that a bitmap names.
func (g geometry) eachInUse(group uint64, bitmap []byte, f func(block.ID)) {
	for at := 0; at < g.bitsEnd; at += 8 {
		for w := binary.LittleEndian.Uint64(bitmap[at:]); w != 0; w &= w - 1 {
			bit := uint64(at*8 + bits.TrailingZeros64(w))
			if bit >= reserved {
				f(block.ID(group*g.group + bit))
			}
		}
	}
}
