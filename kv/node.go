package kv

import (
	"bytes"
	"encoding/binary"

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

func (n node) slot(i int) int {
	return int(binary.LittleEndian.Uint16(n[nodeHeaderSize+slotSize*i:]))
}

// wellFormed reports whether the slots can be read.
func (n node) wellFormed(level int) bool {
	return n.level() == level && nodeHeaderSize+slotSize*n.count() <= n.low() && n.low() <= len(n)
}

// hole is the number of free bytes between slots and cells.
func (n node) hole() int { return n.low() - nodeHeaderSize - slotSize*n.count() }

// used is the number of bytes that are needed if the node is packed.
func (n node) used() int { return len(n) - n.hole() - n.garbage() }

func (n node) key(i int) (key []byte, ok bool) {
	off := n.slot(i)
	if off+cellHeaderSize > len(n) {
		return nil, false
	}
	start := off + cellHeaderSize
	end := start + int(binary.LittleEndian.Uint16(n[off:]))
	if end > len(n) {
		return nil, false
	}
	return n[start:end], true
}

func (n node) cell(i int) (c cell, ok bool) {
	off := n.slot(i)
	if off+cellHeaderSize > len(n) {
		return c, false
	}
	meta := binary.LittleEndian.Uint16(n[off+2:])
	start := off + cellHeaderSize
	mid := start + int(binary.LittleEndian.Uint16(n[off:]))
	end := mid + int(meta&valueSizeMask)
	if end > len(n) {
		return c, false
	}
	return cell{key: n[start:mid], value: n[mid:end], kind: kind(meta >> kindShift)}, true
}

// size is what the cell takes in a node, without its slot.
func (c cell) size() int { return cellHeaderSize + len(c.key) + len(c.value) }

// search returns the first slot in [from, count) whose key is not below key, and
// whether it is key.
func (n node) search(key []byte, from int) (slot int, found, ok bool) {
	lo, hi := from, n.count()
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
	slot, found, ok := n.search(key, 1)
	if !found {
		slot--
	}
	return slot, ok
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
