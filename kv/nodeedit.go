package kv

import "encoding/binary"

func (n node) setCount(v int)   { binary.LittleEndian.PutUint16(n, uint16(v)) }
func (n node) setLow(v int)     { binary.LittleEndian.PutUint16(n[2:], uint16(v)) }
func (n node) setGarbage(v int) { binary.LittleEndian.PutUint16(n[4:], uint16(v)) }

func (n node) setShared(v int) { binary.LittleEndian.PutUint16(n[8:], uint16(v)) }

func (n node) setSlot(i int, s slot) {
	binary.LittleEndian.PutUint64(n[nodeHeaderSize+slotSize*i:], uint64(s))
}

func (n node) setHint(i int, hint uint16) {
	binary.LittleEndian.PutUint16(n[nodeHeaderSize+slotSize*i+2:], hint)
}

// format makes an empty node of zeroed bytes.
func (n node) format(level int) {
	n[6], n[7] = byte(level), nodeTag
	n.setLow(len(n))
}

// write puts c in front of the cells and returns its offset. There must be room.
func (n node) write(c cell) int {
	off := n.low() - c.size()
	n.setLow(off)
	copy(n[off:], c.key)
	copy(n[off+len(c.key):], c.value)
	return off
}

// push appends c behind the last slot of a node that is being filled in order,
// whose shared is set. There must be room.
func (n node) push(c cell) {
	i := n.count()
	off := n.write(c)
	n.setCount(i + 1)
	hint := uint16(0)
	if i >= n.base() {
		hint = hintOf(c.key, n.shared())
	}
	n.setSlot(i, newSlot(off, hint, c))
}

// adopt sets the hint of slot i, which was just filled with key, and shortens
// what is shared if key does not have it.
func (n node) adopt(i int, key []byte) (ok bool) {
	base := n.base()
	if i < base {
		return true
	}
	other := i - 1
	if other < base {
		other = i + 1
	}
	if other >= n.count() { // the only one
		n.setShared(len(key))
		n.setHint(i, 0)
		return true
	}
	shared := n.shared()
	k, ok := n.key(other)
	if !ok || len(k) < shared {
		return false
	}
	if p := commonPrefix(key, k[:shared]); p < shared {
		return n.share(p)
	}
	n.setHint(i, hintOf(key, shared))
	return true
}

// share sets shared and all hints.
func (n node) share(shared int) (ok bool) {
	n.setShared(shared)
	for i := n.base(); i < n.count(); i++ {
		k, ok := n.key(i)
		if !ok {
			return false
		}
		n.setHint(i, hintOf(k, shared))
	}
	return true
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
	n.setSlot(i, newSlot(off, 0, c))
	return true, n.adopt(i, c.key)
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
		s := n.slot(i)
		n.setSlot(i, newSlot(s.offset(), s.hint(), c))
		copy(old.value, c.value)
		return true, n.discard(len(old.value) - len(c.value))
	}
	if n.hole() >= c.size() { // the slot stays where it is
		if !n.discard(old.size()) {
			return false, false
		}
		n.setSlot(i, newSlot(n.write(c), n.hint(i), c))
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
	if base := n.base(); base < n.count() {
		first, ok1 := n.key(base)
		last, ok2 := n.key(n.count() - 1)
		if !ok1 || !ok2 {
			return false
		}
		scratch.setShared(commonPrefix(first, last))
	}
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

// commonPrefix is the number of leading bytes that a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// isNewest reports whether slot i holds the cell that was written last and, if
// there is one, slot j the one written before it. It is how a run of ascending
// (j = i-1) or descending (j = i+1) insertions is known without remembering one.
func (n node) isNewest(i, j int) bool {
	if i < 0 || i >= n.count() || n.slot(i).offset() != n.low() {
		return false
	}
	if j < 0 || j >= n.count() {
		return true
	}
	c, ok := n.cell(i)
	return ok && n.slot(j).offset() == n.low()+c.size()
}
