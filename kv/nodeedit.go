package kv

import "encoding/binary"

func (n node) setCount(v int)   { binary.LittleEndian.PutUint16(n, uint16(v)) }
func (n node) setLow(v int)     { binary.LittleEndian.PutUint16(n[2:], uint16(v)) }
func (n node) setGarbage(v int) { binary.LittleEndian.PutUint16(n[4:], uint16(v)) }

func (n node) setSlot(i, off int) {
	binary.LittleEndian.PutUint16(n[nodeHeaderSize+slotSize*i:], uint16(off))
}

// format makes an empty node of zeroed bytes.
func (n node) format(level int) {
	n[6] = byte(level)
	n.setLow(len(n))
}

// write puts c in front of the cells and returns its offset. There must be room.
func (n node) write(c cell) int {
	off := n.low() - c.size()
	n.setLow(off)
	binary.LittleEndian.PutUint16(n[off:], uint16(len(c.key)))
	binary.LittleEndian.PutUint16(n[off+2:], uint16(len(c.value))|uint16(c.kind)<<kindShift)
	copy(n[off+cellHeaderSize:], c.key)
	copy(n[off+cellHeaderSize+len(c.key):], c.value)
	return off
}

// push appends c behind the last slot. There must be room.
func (n node) push(c cell) {
	i := n.count()
	off := n.write(c)
	n.setCount(i + 1)
	n.setSlot(i, off)
}

// insert makes c slot i. fits is false, and nothing changed, if there is no room
// even in the packed node.
func (n node) insert(i int, c cell, scratch node) (fits, ok bool) {
	need := c.size() + slotSize
	if n.hole() < need {
		if n.used()+need > len(n) {
			return false, true
		}
		if !n.pack(scratch) || n.hole() < need {
			return false, false
		}
	}
	off := n.write(c)
	count := n.count()
	at := nodeHeaderSize + slotSize*i
	copy(n[at+slotSize:], n[at:nodeHeaderSize+slotSize*count])
	n.setCount(count + 1)
	n.setSlot(i, off)
	return true, true
}

// remove takes slots [i, j) out. Their cells become garbage.
func (n node) remove(i, j int) (ok bool) {
	freed := 0
	for s := i; s < j; s++ {
		c, ok := n.cell(s)
		if !ok {
			return false
		}
		freed += c.size()
	}
	count := n.count()
	copy(n[nodeHeaderSize+slotSize*i:], n[nodeHeaderSize+slotSize*j:nodeHeaderSize+slotSize*count])
	n.setCount(count - (j - i))
	return n.discard(freed)
}

// discard counts bytes of the cell area as garbage.
func (n node) discard(bytes int) (ok bool) {
	g := n.garbage() + bytes
	if g > len(n)-n.low() {
		return false
	}
	n.setGarbage(g)
	return true
}

// replace gives slot i the value and kind of c, whose key it has. A value that
// is not longer is written over the old one.
func (n node) replace(i int, c cell, scratch node) (fits, ok bool) {
	old, ok := n.cell(i)
	if !ok {
		return false, false
	}
	if len(c.value) <= len(old.value) {
		off := n.slot(i)
		binary.LittleEndian.PutUint16(n[off+2:], uint16(len(c.value))|uint16(c.kind)<<kindShift)
		copy(old.value, c.value)
		return true, n.discard(len(old.value) - len(c.value))
	}
	if n.hole() >= c.size() { // the slot stays where it is
		if !n.discard(old.size()) {
			return false, false
		}
		n.setSlot(i, n.write(c))
		return true, true
	}
	if n.used()-old.size()+c.size() > len(n) {
		return false, true
	}
	if !n.remove(i, i+1) {
		return false, false
	}
	return n.insert(i, c, scratch)
}

// pack moves the cells together, in the order of their keys, and zeroes the
// hole.
func (n node) pack(scratch node) (ok bool) {
	scratch = scratch[:len(n)]
	clear(scratch[:nodeHeaderSize])
	scratch.format(n.level())
	for i := range n.count() {
		c, ok := n.cell(i)
		if !ok || scratch.hole() < c.size()+slotSize {
			return false
		}
		scratch.push(c)
	}
	slots := nodeHeaderSize + slotSize*scratch.count()
	low := scratch.low()
	copy(n[:slots], scratch[:slots])
	clear(n[slots:low])
	copy(n[low:], scratch[low:])
	return true
}

// isNewest reports whether slot i holds the cell that was written last and, if
// there is one, slot j the one written before it. It is how a run of ascending
// (j = i-1) or descending (j = i+1) insertions is known without remembering one.
func (n node) isNewest(i, j int) bool {
	if i < 0 || i >= n.count() || n.slot(i) != n.low() {
		return false
	}
	if j < 0 || j >= n.count() {
		return true
	}
	c, ok := n.cell(i)
	return ok && n.slot(j) == n.low()+c.size()
}
