package kv

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/spillwaydb/spillway/block"
)

// node is the payload of a leaf or branch. Its methods trust nothing but what
// wellFormed has checked; what they find wrong they report as ok == false.
type node []byte

// cell is one entry of a node. key and value point into the node.
type cell struct {
	key   []byte
	value []byte
	kind  kind
}

func (n node) count() int   { return int(binary.LittleEndian.Uint16(n)) }
func (n node) low() int     { return int(binary.LittleEndian.Uint16(n[2:])) }
func (n node) garbage() int { return int(binary.LittleEndian.Uint16(n[4:])) }
func (n node) level() int   { return int(n[6]) }

func (n node) shared() int { return int(binary.LittleEndian.Uint16(n[8:])) }

func (n node) slot(i int) slot { return slotAt(n[nodeHeaderSize+slotSize*i:]) }

// slotAt returns the slot at the beginning of b.
func slotAt(b []byte) slot { return slot(binary.LittleEndian.Uint64(b)) }

func (n node) hint(i int) uint16 { return n.slot(i).hint() }

// slot is the eight bytes of a slot as one number.
type slot uint64

func newSlot(offset int, hint uint16, c cell) slot {
	return slot(offset) | slot(hint)<<16 | slot(len(c.key))<<32 | slot(len(c.value))<<48 | slot(c.kind)<<62
}

func (s slot) offset() int    { return int(uint16(s)) }
func (s slot) hint() uint16   { return uint16(s >> 16) }
func (s slot) keySize() int   { return int(uint16(s >> 32)) }
func (s slot) valueSize() int { return int(s >> 48 & (1<<14 - 1)) }
func (s slot) kind() kind     { return kind(s >> 62) }

// span returns where key and value begin and where they end. Nothing is checked.
func (s slot) span() (start, mid, end int) {
	start = s.offset()
	mid = start + s.keySize()
	return start, mid, mid + s.valueSize()
}

// hintOf is the hint of key in a node whose keys share that many bytes.
func hintOf(key []byte, shared int) uint16 {
	switch {
	case len(key) >= shared+2:
		return binary.BigEndian.Uint16(key[shared:])
	case len(key) == shared+1:
		return uint16(key[shared]) << 8
	}
	return 0
}

// base is the first slot whose key is looked at.
func (n node) base() int { return min(n.level(), 1) }

// wellFormed reports whether the slots can be read.
func (n node) wellFormed(level int) bool {
	return n[6] == byte(level) && n[7] == nodeTag && nodeHeaderSize+slotSize*n.count() <= n.low() && n.low() <= len(n)
}

// hole is the number of free bytes between slots and cells.
func (n node) hole() int { return n.low() - nodeHeaderSize - slotSize*n.count() }

// used is the number of bytes that are needed if the node is packed.
func (n node) used() int { return len(n) - n.hole() - n.garbage() }

func (n node) key(i int) (key []byte, ok bool) {
	s := n.slot(i)
	start := s.offset()
	end := start + s.keySize()
	if end > len(n) {
		return nil, false
	}
	return n[start:end], true
}

func (n node) cell(i int) (c cell, ok bool) {
	s := n.slot(i)
	start, mid, end := s.span()
	if end > len(n) {
		return c, false
	}
	return cell{key: n[start:mid:mid], value: n[mid:end:end], kind: s.kind()}, true
}

// size is what the cell takes in a node, without its slot.
func (c cell) size() int { return len(c.key) + len(c.value) }

// search returns the first slot whose key is not below key, and whether it is
// key. Slot 0 of a branch is below every key.
func (n node) search(key []byte) (slot int, found, ok bool) {
	base, count := n.base(), n.count()
	if count <= base {
		return count, false, true
	}
	shared := n.shared()
	hint := hintOf(key, shared)
	slot = n.searchHint(hint, base, count)
	if slot < count && n.hint(slot) == hint {
		slot, found, ok = n.searchKeys(key, slot, n.endOfHint(hint, slot, count))
		if found || !ok {
			return slot, found, ok
		}
	}
	// All this took for granted that key has the shared bytes.
	k, ok := n.key(min(slot, count-1))
	if !ok || len(k) < shared {
		return 0, false, false
	}
	switch c := bytes.Compare(key[:min(shared, len(key))], k[:shared]); {
	case c < 0:
		return base, false, true
	case c > 0:
		return count, false, true
	}
	return slot, false, true
}

// searchHint returns the first slot in [lo, hi) whose hint is not below hint.
func (n node) searchHint(hint uint16, lo, hi int) int {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.hint(mid) < hint {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// endOfHint returns the first slot behind slot that has another hint.
func (n node) endOfHint(hint uint16, slot, count int) int {
	if slot+1 == count || n.hint(slot+1) != hint {
		return slot + 1
	}
	if hint == math.MaxUint16 {
		return count
	}
	return n.searchHint(hint+1, slot+1, count)
}

// searchKeys is search in [lo, hi), by whole keys.
func (n node) searchKeys(key []byte, lo, hi int) (slot int, found, ok bool) {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		k, ok := n.key(mid)
		if !ok {
			return 0, false, false
		}
		switch c := bytes.Compare(k, key); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		default:
			return mid, true, true
		}
	}
	return lo, false, true
}

// route returns the slot of the child that key belongs to.
func (n node) route(key []byte) (slot int, ok bool) {
	if n.count() == 0 {
		return 0, false
	}
	slot, found, ok := n.search(key)
	if !found {
		slot--
	}
	return slot, ok
}

// childFor returns the block of the child that key belongs to.
func (n node) childFor(key []byte) (id block.ID, ok bool) {
	slot, ok := n.route(key)
	if ok {
		id, _, ok = n.child(slot)
	}
	return id, ok
}

// child returns the block of child i and whether there may be cells below it
// that are not kindInline.
func (n node) child(i int) (id block.ID, special, ok bool) {
	c, ok := n.cell(i)
	if !ok || len(c.value) != childSize {
		return 0, false, false
	}
	return block.ID(binary.LittleEndian.Uint64(c.value)), c.kind != kindPlain, true
}

// special reports whether a cell is of another kind than 0. A cell that is out of
// bounds counts as one: whoever looks closer will find it.
func (n node) special() bool {
	for i := range n.count() {
		if c, ok := n.cell(i); !ok || c.kind != 0 {
			return true
		}
	}
	return false
}
