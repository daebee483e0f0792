package wal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// What Reserve adds for each record: its header and padding, and those of the
// mark that a sync in between may write.
const recordReserveBytes = 2 * (recordHeaderBytes + recordAlign)

// recordsReserved is how many records of a commit may be short.
const recordsReserved = 8

// Reserve makes sure that a commit of so many body bytes can be appended without
// asking the file system for anything (R7): segments exist, with their space, and open.
// Call it before the commit is given an LSN. The promise is to one writer, for
// the next commit; another Reserve replaces it, and to give it up takes nothing.
// It covers bodies that are at least half of [RecordBytesMax] long, and up to 8
// shorter ones.
//
// ErrFull: checkpoint, Release and try again. A commit that no release could
// make room for (larger than the limit less two segments, or less the last one
// where that was made under a larger limit) lets the log grow instead; it
// shrinks with later releases. ErrNoSpace: the file system refused. Neither
// poisons the log.
func (l *Log) Reserve(bytes int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes < 0 {
		return fmt.Errorf("reserve %d bytes of log: %w", bytes, ErrOrder)
	}
	for {
		if err := l.usable(); err != nil {
			return err
		}
		need := l.sparesFor(bytes)
		if err := l.admit(need); err != nil {
			return err
		}
		if len(l.ready) >= need {
			l.reserved = int(need)
			if len(l.ready) == need {
				l.prepareAhead()
			}
			return nil
		}
		l.reserved = max(l.reserved, len(l.ready)) // keep what is there so far
		if err := l.prepare(); err != nil {
			return fmt.Errorf("reserve %d bytes of log: %w", bytes, err)
		}
	}
}

// sparesFor is how many spares a commit needs besides the rest of the current
// segment, in the worst case. mu is held.
func (l *Log) sparesFor(bytes int64) int {
	const slack = recordHeaderBytes + recordAlign + pieceBytesMin // a segment's end left unused
	records := bytes/(RecordBytesMax/2) + recordsReserved
	need := bytes + records*recordReserveBytes
	if l.cur != nil {
		need -= max(0, l.cur.limit()-l.pos-slack)
	}
	if need <= 0 {
		return 0
	}
	room := l.o.SegmentBytes - recordsOffset - recordHeaderBytes - slack
	return int((need + room - 1) / room)
}

// admit reports ErrFull if n more segments would pass the limit and releasing
// can help. mu is held.
func (l *Log) admit(n int) error {
	if n == 0 {
		return nil
	}
	more := int64(n) * l.o.SegmentBytes
	least := max(2*l.o.SegmentBytes, l.bytesFrom(l.end+1)) // stays whatever is released
	if l.open || least+more > l.o.LimitBytes {
		return nil // it has to grow
	}
	if used := l.recoveryBytes(); used+more > l.o.LimitBytes {
		return fmt.Errorf("%d bytes in use, %d more needed, limit %d: %w", used, more, l.o.LimitBytes, ErrFull)
	}
	return nil
}

// prepare makes one more spare ready, or waits for the one that is on its way.
// mu is held, and released meanwhile.
func (l *Log) prepare() error {
	if l.failed != nil {
		return l.failed
	}
	if l.preparing {
		l.changed.Wait()
		return l.usable() // Close may have let the spares go meanwhile
	}
	l.preparing = true
	return l.makeReady()
}

// prepareAhead has the next spare made in the background, if there is none, so
// that no commit waits for it. Where the last one failed, on a full disk for one, it is
// left to who needs one, or every commit would try. mu is held.
func (l *Log) prepareAhead() {
	if l.o.foreground || l.closed || l.failed != nil || l.preparing || l.refused || len(l.ready) > l.reserved {
		return
	}
	if len(l.idle) == 0 && l.grown()+l.o.SegmentBytes > 0 {
		return // only a Reserve may grow the log further
	}
	l.preparing = true
	go func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := l.makeReady(); err != nil {
			l.o.Logger.Warn("no log segment could be prepared", "dir", l.o.Dir, "cause", err)
		}
	}()
}

// makeReady does one preparation; preparing was set by the caller. mu is held,
// and released during I/O.
func (l *Log) makeReady() error {
	seg, create := l.nextSlot()
	prewrite := create && l.prewrites()
	l.mu.Unlock()
	var err error
	if create {
		err = createSlot(&l.o, seg.slot, prewrite)
	}
	if err == nil {
		err = seg.openSlot(&l.o)
	}
	l.mu.Lock()
	l.preparing, l.refused = false, err != nil
	l.changed.Broadcast()
	if err == nil {
		l.ready = append(l.ready, seg)
		if prewrite {
			l.stats.PrewrittenBytes += l.o.SegmentBytes
		}
		return nil
	}
	if create {
		delete(l.slots, seg.slot)
	} else {
		l.idle = append(l.idle, seg)
	}
	return l.prepareFailed(err)
}

// prewriteBelow is up to how many bytes a sync, on the average of the last ones, a
// new segment is prewritten. Prewriting costs a second write of all its bytes; it
// spares each sync a change of metadata. On the disk where this was measured that is
// 70 µs, in which it writes as many bytes as these: large groups (a bulk load)
// would lose.
const prewriteBelow = 64 << 10

// prewrites reports whether a segment made now is to be prewritten. What is
// decided wrongly, because the load changes, costs time and nothing else, and once:
// a segment that is used again has been written to. mu is held.
func (l *Log) prewrites() bool { return !l.o.RareSyncs && l.perSync < l.o.prewriteBelow }

// syncsAveraged is the weight of the syncs before the last one in perSync.
const syncsAveraged = 16

// prepareFailed tells lack of space, which heals, from a failed write or sync,
// which poisons (L8). Any other failure (no file descriptor, no permission) is
// just returned.
func (l *Log) prepareFailed(err error) error {
	if isNoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	var slot *slotError
	if errors.As(err, &slot) {
		l.fail(err)
		return l.failed
	}
	return err
}

// nextSlot takes an idle slot, or the number of one that is to be made. mu is
// held.
func (l *Log) nextSlot() (seg *segment, create bool) {
	fits := func(s *segment) bool { return s.header.size == l.o.SegmentBytes }
	if i := slices.IndexFunc(l.idle, fits); i >= 0 {
		seg = l.idle[i]
		l.idle = slices.Delete(l.idle, i, i+1)
		return seg, false
	}
	slot := 1
	for l.slots[slot] {
		slot++
	}
	l.slots[slot] = true
	return &segment{slot: slot, header: header{kind: kindSpare, size: l.o.SegmentBytes}}, true
}

// recoveryBytes is the size of the segments that recovery needs. mu is held.
func (l *Log) recoveryBytes() int64 { return l.bytesFrom(l.floor) }

// bytesFrom is the size of the segments that who wants all from commit lsn on
// needs. mu is held.
func (l *Log) bytesFrom(lsn block.LSN) (n int64) {
	for _, s := range l.live[l.neededFrom(lsn):] {
		n += s.header.size
	}
	return n
}

// neededFrom is the index in live of the first segment that holds commit lsn or
// a later one, or will. mu is held.
func (l *Log) neededFrom(lsn block.LSN) int {
	i := 0
	for i+1 < len(l.live) && l.live[i+1].first() <= lsn && l.live[i+1].written {
		i++
	}
	return i
}
