package blockcache

import "github.com/spillwaydb/spillway/block"

// EntryTable finds entries by block: open addressing, linear probing, at most
// three quarters full. Its heap bytes are charged. Not safe for concurrent use.
type EntryTable struct {
	c     *Cache
	slots []Handle // a power of two, or none
	n     int
}

// NewEntryTable makes an empty table.
func (c *Cache) NewEntryTable() *EntryTable { return &EntryTable{c: c} }

// EntryTableBytes bounds the heap bytes of a table for each of its entries,
// charged twice (L9), but for those of a small table.
const EntryTableBytes = 2 * 4 * 8 / 3

// entryTableMin is how small a table is that is not charged, and kept when empty.
const entryTableMin = 16

// Len is how many entries the table has.
func (t *EntryTable) Len() int { return t.n }

func (t *EntryTable) home(id block.ID) int { return int(hash(id) >> 16 & uint64(len(t.slots)-1)) }

// place is where a block's entry is, or would go.
func (t *EntryTable) place(id block.ID) int {
	at := t.home(id)
	for t.slots[at] != 0 && t.c.Entry(t.slots[at]).ID != id {
		at = (at + 1) & (len(t.slots) - 1)
	}
	return at
}

// Find returns the entry of a block, or zero.
func (t *EntryTable) Find(id block.ID) Handle {
	if t.n == 0 {
		return 0
	}
	return t.slots[t.place(id)]
}

// Insert adds an entry for a block that has none.
func (t *EntryTable) Insert(h Handle) {
	if 4*(t.n+1) > 3*len(t.slots) {
		t.resize(max(2*len(t.slots), entryTableMin))
	}
	t.slots[t.place(t.c.Entry(h).ID)] = h
	t.n++
}

func (t *EntryTable) resize(n int) {
	old := t.slots
	t.charge(n)
	t.slots = make([]Handle, n)
	for _, h := range old {
		if h != 0 {
			t.slots[t.place(t.c.Entry(h).ID)] = h
		}
	}
}

// charge is called before the table gets n slots.
func (t *EntryTable) charge(n int) {
	t.c.ChargeHeap(2 * 4 * int64(max(n, entryTableMin)-max(len(t.slots), entryTableMin)))
}

// Remove takes the entry of a block out and returns it; zero if there is none.
// It is the caller's to free.
func (t *EntryTable) Remove(id block.ID) Handle {
	if t.n == 0 {
		return 0
	}
	gap := t.place(id)
	h := t.slots[gap]
	if h == 0 {
		return 0
	}
	t.n--
	mask := len(t.slots) - 1
	for at := (gap + 1) & mask; t.slots[at] != 0; at = (at + 1) & mask {
		if (at-t.home(t.c.Entry(t.slots[at]).ID))&mask >= (at-gap)&mask {
			t.slots[gap] = t.slots[at]
			gap = at
		}
	}
	t.slots[gap] = 0
	if len(t.slots) > entryTableMin && 8*t.n < len(t.slots) {
		t.resize(len(t.slots) / 2)
	}
	return h
}

// All calls f for each entry. f does not change the table.
func (t *EntryTable) All(f func(Handle)) {
	for _, h := range t.slots {
		if h != 0 {
			f(h)
		}
	}
}

// AppendAll appends the handles of all entries.
func (t *EntryTable) AppendAll(list []Handle) []Handle {
	t.All(func(h Handle) { list = append(list, h) })
	return list
}

// Clear empties the table. The entries are the caller's to free.
func (t *EntryTable) Clear() {
	t.n = 0
	if len(t.slots) > entryTableMin {
		t.charge(0)
		t.slots = nil
	}
	clear(t.slots)
}
