package blockcache

import "github.com/spillwaydb/spillway/block"

// A version without a frame needs no Version: it is frozen, that is, an [Entry]
// says all there is to say about it. Whoever looks it up under the latch thaws
// it, and at the end of each hold of the latch what has no frame is frozen
// again. So the Go heap has a Version for each frame, and entries bear the rest,
// whose number does not follow MaxRAM (L9).

// Settle says that v may have no frame when the latch is let go. Under the latch.
func (l *Latch) Settle(v *Version) { l.bare = append(l.bare, v) }

// Settle is that of v's latch, for who holds it.
func (c *Cache) Settle(v *Version) { c.latchOf(v.ID).Settle(v) }

// settle freezes what it can. What is loading or pinned, with its frame still to
// come or a cleaner's mind on it, has its turn another time.
func (l *Latch) settle() {
	kept := l.bare[:0]
	for _, v := range l.bare {
		if v.data == nil && !l.freeze(v) {
			kept = append(kept, v)
		}
	}
	clear(l.bare[len(kept):])
	l.bare = kept
}

// freeze is for a version without a frame. False: it is busy.
func (l *Latch) freeze(v *Version) (done bool) {
	switch {
	case v.Role == RoleHead:
		return l.freezeHead(v)
	case v.Entry == 0: // not in the index, or not any more
	case v.isBusy():
		return false
	default:
		l.cold.c.owner.Freeze(v)
		v.Role = RoleDead
	}
	return true
}

// isBusy reports whether someone relies on the Version who does not hold the
// latch.
func (v *Version) isBusy() bool { return v.Loading || v.Pinned() }

// freezeHead turns a head and what is pending behind it into entries, unless
// something there has a frame: then it has to be settled again when that is
// gone. False: it is busy.
func (l *Latch) freezeHead(h *Version) (done bool) {
	for v := h; v != nil; v = v.Older {
		switch {
		case v.data != nil:
			return true
		case v.isBusy():
			return false
		}
	}
	l.Remove(h)
	l.cold.Insert(l.freezeChain(h))
	l.cold.c.frozen.Add(1)
	return true
}

func (l *Latch) freezeChain(v *Version) Handle {
	c := l.cold.c
	older := v.Older
	if overwrites(v, older) {
		older = nil
	}
	first := c.Freeze(v)
	for last := first; older != nil; older = older.Older {
		h := c.Freeze(older)
		c.Entry(last).Next = h
		last = h
	}
	return first
}

// overwrites reports whether a head says all there is to say of what it
// replaced: a block that one commit freed, and the data file still has it. Then
// one entry does for both, with the LSN of the other as Until.
func overwrites(h, older *Version) bool {
	return h.Freed && h.Rec == h.LSN && older != nil && older.Older == nil &&
		older.InPlace && older.slot == 0 && older.Until == h.LSN
}

// Freeze makes an entry of a version that has no frame and that nobody can
// find. The version is dead then.
func (c *Cache) Freeze(v *Version) Handle {
	h := c.NewEntry()
	e := c.Entry(h)
	e.ID, e.LSN, e.Until = v.ID, v.LSN, v.Until
	if v.Role == RoleHead {
		e.Until = v.Rec
		if overwrites(v, v.Older) {
			e.Flags, e.Until = entryOver, v.Older.LSN
		}
	}
	e.Describe(v)
	v.Role = RoleDead
	return h
}

// Describe has an entry say where a version without a frame is.
func (e *Entry) Describe(v *Version) {
	e.Slot, e.Type = v.slot, v.Type
	e.Flags = e.Flags&^(EntryInPlace|EntryDirty|EntryFreed|EntryImage) | v.flags()
}

// flags are what a version says of itself in an entry.
func (v *Version) flags() (f EntryFlags) {
	if v.InPlace {
		f |= EntryInPlace
	}
	if v.Dirty {
		f |= EntryDirty
	}
	if v.Freed {
		f |= EntryFreed
	}
	if v.Image == v.LSN {
		f |= EntryImage
	}
	return f
}

// Likeness is a version as an entry describes it, without what is behind it.
func (c *Cache) Likeness(h Handle, role Role) *Version {
	e := c.Entry(h)
	v := &Version{
		ID: e.ID, LSN: e.LSN, Type: e.Type, Role: role, slot: e.Slot,
		InPlace: e.Flags&EntryInPlace != 0, Dirty: e.Flags&EntryDirty != 0, Freed: e.Flags&EntryFreed != 0,
	}
	if e.Flags&EntryImage != 0 {
		v.Image = e.LSN
	}
	switch {
	case role == RolePending || role == RoleOriginal:
		v.Until = e.Until
	case role == RoleHead && e.Flags&entryOver != 0:
		v.Rec = e.LSN
		v.Older = &Version{ID: e.ID, LSN: e.Until, Until: e.LSN, Role: RolePending, InPlace: true}
	case role == RoleHead:
		v.Rec = e.Until
	}
	return v
}

// Thaw makes a version of an entry again, which is given back.
func (c *Cache) Thaw(h Handle, role Role) *Version {
	v := c.Likeness(h, role)
	c.FreeEntry(h)
	return v
}

// thawHead puts a frozen head, and what is pending behind it, into the table.
func (l *Latch) thawHead(id block.ID) *Version {
	c := l.cold.c
	h := l.cold.Remove(id)
	if h == 0 {
		return nil
	}
	c.frozen.Add(-1)
	next := c.Entry(h).Next
	head := c.Thaw(h, RoleHead)
	for last := &head.Older; next != 0; last = &(*last).Older {
		h, next = next, c.Entry(next).Next
		*last = c.Thaw(h, RolePending)
	}
	c.checkPending(head)
	l.Insert(head)
	l.Settle(head)
	return head
}

// FrozenHeads is how many heads have no Version: the cleaner makes them fewer.
func (c *Cache) FrozenHeads() int64 { return c.frozen.Load() }
