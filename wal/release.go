package wal

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// Holder keeps log from being recycled for someone other than recovery: an
// archive, a fall-forward, a standby (R14). Ended by Drop.
type Holder struct {
	l    *Log
	name string

	// Guarded by l.mu.
	lsn    block.LSN
	broken bool // it passed Options.HoldBytesMax: it keeps nothing any more

	brief bool // constant
}

// HolderStatus is one line of the list of holders.
type HolderStatus struct {
	Name  string
	LSN   block.LSN // first commit that it still wants
	Bytes int64     // of segments that recovery no longer needs and it keeps
	Brief bool      // it ends with this process, whatever comes: nobody comes back for it
}

// Hold keeps all commits from LSN lsn on until the holder is moved or dropped.
// What was released before cannot come back: compare with [Log.Oldest].
func (l *Log) Hold(name string, lsn block.LSN) *Holder {
	return l.hold(&Holder{l: l, name: name, lsn: lsn})
}

// HoldBriefly is Hold for who ends with this process, so that nothing has to be kept for
// him when the log is opened again.
func (l *Log) HoldBriefly(name string, lsn block.LSN) *Holder {
	return l.hold(&Holder{l: l, name: name, lsn: lsn, brief: true})
}

func (l *Log) hold(h *Holder) *Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders = append(l.holders, h)
	return h
}

// Move tells that the holder wants only commits from lsn on. It never moves
// back.
func (h *Holder) Move(lsn block.LSN) {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if lsn > h.lsn {
		h.lsn = lsn
		h.l.recycle()
	}
}

// Broken reports whether the log that the holder kept was let go because of
// Options.HoldBytesMax (R14).
func (h *Holder) Broken() bool {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	return h.broken
}

// Drop ends the holder. A second Drop does nothing.
func (h *Holder) Drop() {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if i := slices.Index(h.l.holders, h); i >= 0 {
		h.l.holders = slices.Delete(h.l.holders, i, i+1)
		h.l.recycle()
	}
}

// Holders lists who keeps log, and how much, the oldest first.
func (l *Log) Holders() []HolderStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]HolderStatus, 0, len(l.holders))
	for _, h := range l.holders {
		list = append(list, h.status())
	}
	slices.SortStableFunc(list, func(a, b HolderStatus) int { return cmp.Compare(a.LSN, b.LSN) })
	return list
}

// status is the holder's line in the list. mu is held.
func (h *Holder) status() HolderStatus {
	return HolderStatus{Name: h.name, LSN: h.lsn, Bytes: h.l.heldFrom(h.lsn), Brief: h.brief}
}

// heldFrom is the size of the segments that recovery does not need and someone
// does who wants all from LSN lsn on. mu is held.
func (l *Log) heldFrom(lsn block.LSN) (n int64) {
	recovery := l.neededFrom(l.floor)
	for i := l.neededFrom(lsn); i < recovery; i++ {
		n += l.live[i].header.size
	}
	return n
}

// breakHolders ends those that want the oldest commits until what is held is
// within its limit. mu is held.
func (l *Log) breakHolders() (broken []HolderStatus) {
	for l.o.HoldBytesMax > 0 && len(l.holders) > 0 {
		h := slices.MinFunc(l.holders, func(a, b *Holder) int { return cmp.Compare(a.lsn, b.lsn) })
		if l.heldFrom(h.lsn) <= l.o.HoldBytesMax {
			break
		}
		broken = append(broken, h.status())
		h.broken = true
		l.holders = slices.DeleteFunc(l.holders, func(o *Holder) bool { return o == h })
	}
	return broken
}

// Oldest is the first commit that the log still reaches back to.
func (l *Log) Oldest() block.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.live) == 0 {
		return l.end + 1
	}
	return l.live[0].first()
}

// Floor is the first commit that recovery needs, as the last Release said.
func (l *Log) Floor() block.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floor
}

// Release says that recovery needs no commit below LSN below: the checkpoint
// that makes it so is durable. Segments that nobody needs are used again, or
// removed where the log has grown past its limit. Holders beyond
// Options.HoldBytesMax are broken. below is at most Durable()+1.
func (l *Log) Release(below block.LSN) error {
	l.mu.Lock()
	if err := l.usable(); err != nil {
		l.mu.Unlock()
		return err
	}
	if v := l.Durable(); below > v+1 {
		l.mu.Unlock()
		return fmt.Errorf("release log below LSN %v: only %v is durable: %w", below, v, ErrOrder)
	}
	l.floor = max(l.floor, below)
	l.refused = false
	broken := l.breakHolders()
	l.recycle()
	surplus := l.surplus()
	l.mu.Unlock()
	for _, h := range broken {
		l.o.Logger.Warn("log is no longer held: its limit was reached", "holder", h.Name, "from", uint64(h.LSN), "bytes", h.Bytes)
		if l.o.OnHolderBroken != nil {
			l.o.OnHolderBroken(h)
		}
	}
	for _, s := range surplus {
		l.removeSlot(s)
	}
	return nil
}

// recycle moves segments that nobody needs from live to idle. Nothing is
// written: an idle segment stays what it is until its file's next use. A
// successor must be on disk before a segment may go: recovery would find no
// beginning. mu is held.
func (l *Log) recycle() {
	lowest := l.floor
	for _, h := range l.holders {
		lowest = min(lowest, h.lsn)
	}
	n := l.neededFrom(lowest)
	for _, s := range l.live[:n] {
		// Its own file may be of another size: readers see a new segment.
		l.idle = append(l.idle, &segment{slot: s.slot, header: s.header, file: nil})
	}
	l.live = slices.Delete(l.live, 0, n)
	l.changed.Broadcast()
}

// surplus takes idle slots out of use: those of another size than new ones, and
// those beyond the limit. mu is held.
func (l *Log) surplus() (out []*segment) {
	for len(l.ready) > max(1, l.reserved) {
		s := l.ready[len(l.ready)-1]
		l.ready = l.ready[:len(l.ready)-1]
		s.file.Close() // nothing was written since it was opened
		s.file = nil
		l.idle = append(l.idle, s)
	}
	excess := l.grown()
	kept := l.idle[:0]
	for _, s := range l.idle {
		if excess > 0 || s.header.size != l.o.SegmentBytes {
			excess -= s.header.size
			out = append(out, s)
		} else {
			kept = append(kept, s)
		}
	}
	clear(l.idle[len(kept):])
	l.idle = kept
	return out
}

// grown is by how many bytes the slots are more than the limit allows, those
// that only holders keep left out. mu is held.
func (l *Log) grown() int64 {
	n := int64(len(l.slots))*l.o.SegmentBytes - l.o.LimitBytes
	for _, s := range l.live[:l.neededFrom(l.floor)] {
		n -= s.header.size
	}
	return n
}

// removeSlot removes the file of a slot that is in no list. Its name may come
// back after a power cut; it is an old segment then, and idle.
func (l *Log) removeSlot(s *segment) {
	if err := l.o.FS.Remove(s.path(l.o.Dir)); err != nil {
		l.o.Logger.Warn("surplus log segment stays", "path", s.path(l.o.Dir), "cause", err)
		return // the slot stays taken until the next Open
	}
	l.mu.Lock()
	delete(l.slots, s.slot)
	l.mu.Unlock()
}
