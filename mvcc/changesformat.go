package mvcc

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// The history of changes lies behind each superblock, in the same 4096 bytes, and is
// written with it in one write: it costs no write and no sync of its own, and what tears
// it tears the superblock that is not in force. See format.go for the bytes.

// savedChanges is a history as a superblock has it.
type savedChanges struct {
	sequence uint64
	at       time.Time
	hour     int64 // of recent[0], which was not over
	windows  [changeWindows]savedWindow
	recent   []ChangeHour
	week     [weekHours]ChangeHour
	four     [fourHours]ChangeWindow
	days     [7]ChangeWindow
}

// savedWindow is a window that was running.
type savedWindow struct {
	start                block.LSN
	begun                time.Time
	distinct, overwrites uint64
}

// The short form of a number: 0 is 0, shortUnseen is "nobody has seen it", any other n is
// 2 to the power of n/1024 - 8. So it is right to a thousandth, from 1/256 to 2^56.
const (
	shortUnseen = math.MaxUint16
	shortSteps  = 1024
	shortBias   = 8
)

func shortOf(v float64) uint16 {
	switch {
	case v < 0 || v != v:
		return shortUnseen
	case v == 0:
		return 0
	}
	return uint16(min(max(math.Round((math.Log2(v)+shortBias)*shortSteps), 1), shortUnseen-1))
}

func fromShort(n uint16) float64 {
	switch n {
	case 0:
		return 0
	case shortUnseen:
		return unseen
	}
	return math.Exp2(float64(n)/shortSteps - shortBias)
}

// changesWriter appends to a history, changesReader takes from it.
type changesWriter struct{ b []byte }

func (w *changesWriter) short(v float64) { w.b = binary.LittleEndian.AppendUint16(w.b, shortOf(v)) }

func (w *changesWriter) hour(h *ChangeHour, from int) {
	for _, d := range h.Distinct[from:] {
		w.short(d)
	}
	w.short(h.Overwrites)
	w.short(h.RedoBytes)
	w.short(h.Commits)
}

func (w *changesWriter) window(c *ChangeWindow) {
	w.short(c.Distinct)
	w.short(c.Overwrites)
}

type changesReader struct{ b []byte }

func (r *changesReader) take(n int) []byte {
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// short reads a number that somebody has seen.
func (r *changesReader) short() float64 { return max(r.maybe(), 0) }

func (r *changesReader) maybe() float64 { return fromShort(binary.LittleEndian.Uint16(r.take(2))) }

func (r *changesReader) hour(h *ChangeHour, from int) {
	for i := range h.Distinct {
		h.Distinct[i] = unseen
		if i >= from {
			h.Distinct[i] = r.maybe()
		}
	}
	h.Overwrites, h.RedoBytes, h.Commits = r.short(), r.short(), r.short()
}

func (r *changesReader) window(within time.Duration) ChangeWindow {
	return ChangeWindow{within, r.maybe(), r.short()}
}

// weekFrom is the first of the window lengths that hours of the week are saved with.
const weekFrom = 1

// encode is what the superblock with this sequence gets behind it.
func (c *savedChanges) encode(db block.DatabaseID) []byte {
	le := binary.LittleEndian
	w := changesWriter{make([]byte, changesHead, changesSize)}
	copy(w.b, changesMagic)
	le.PutUint32(w.b[8:], formatVersion)
	le.PutUint32(w.b[12:], uint32(c.hour))
	le.PutUint64(w.b[16:], c.sequence)
	le.PutUint64(w.b[24:], uint64(c.at.UnixNano()))
	for i := range c.windows {
		o := &c.windows[i]
		w.b = le.AppendUint64(w.b, uint64(o.start))
		w.b = le.AppendUint32(w.b, uint32(o.begun.Unix()))
		w.b = le.AppendUint64(w.b, o.distinct)
		w.b = le.AppendUint64(w.b, o.overwrites)
	}
	for i := range changeHours {
		h := ChangeHour{Distinct: nothingSeen}
		if i < len(c.recent) {
			h = c.recent[i]
		}
		w.b = le.AppendUint16(w.b, uint16(min(max(h.Seconds, 0), 3600)))
		w.hour(&h, 0)
	}
	for i := range c.week {
		w.b = append(w.b, byte(c.week[i].Weeks))
		w.hour(&c.week[i], weekFrom)
	}
	for i := range c.four {
		w.window(&c.four[i])
	}
	for i := range c.days {
		w.window(&c.days[i])
	}
	b := w.b[:changesSize]
	le.PutUint32(b[changesSize-4:], block.Checksum(block.SeedOf(db), b[:changesSize-4]))
	return b
}

// decodeChanges returns nil for what is not a history of this database, whole.
func decodeChanges(b []byte, db block.DatabaseID) *savedChanges {
	le := binary.LittleEndian
	if len(b) < changesSize || string(b[:8]) != changesMagic || le.Uint32(b[8:]) != formatVersion ||
		le.Uint32(b[changesSize-4:]) != block.Checksum(block.SeedOf(db), b[:changesSize-4]) {
		return nil
	}
	c := &savedChanges{
		hour: int64(le.Uint32(b[12:])), sequence: le.Uint64(b[16:]), at: time.Unix(0, int64(le.Uint64(b[24:]))),
	}
	r := changesReader{b[changesHead:changesSize]}
	for i := range c.windows {
		o := &c.windows[i]
		o.start = block.LSN(le.Uint64(r.take(8)))
		o.begun = time.Unix(int64(le.Uint32(r.take(4))), 0)
		o.distinct, o.overwrites = le.Uint64(r.take(8)), le.Uint64(r.take(8))
	}
	for range changeHours {
		h := ChangeHour{Seconds: float64(le.Uint16(r.take(2)))}
		if r.hour(&h, 0); h.Seconds > 0 || len(c.recent) == 0 {
			c.recent = append(c.recent, h)
		}
	}
	for i := range c.week {
		c.week[i].Weeks = int(r.take(1)[0])
		r.hour(&c.week[i], weekFrom)
	}
	for i := range c.four {
		c.four[i] = r.window(4 * time.Hour)
	}
	for i := range c.days {
		c.days[i] = r.window(24 * time.Hour)
	}
	return c
}

// savedWith is the history as the superblock with this sequence is to have it; nil
// if there is none to save.
func (s *Store) savedWith(sequence uint64) *savedChanges {
	h := &s.changes
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.counting || s.standby || s.opts.ReadOnly {
		return nil
	}
	now := s.changesNow()
	counter := s.catchUp(now)
	c := &savedChanges{sequence: sequence, at: now, hour: h.hour.hour, week: h.week, four: h.four, days: h.days}
	for i, w := range h.windows {
		c.windows[i] = savedWindow{counter.starts[i], w.begun, counter.distinct[i], counter.overwrites - w.overwrites}
	}
	c.recent = append(append(c.recent, h.hour.average()), h.recent...)
	h.unsaved = false
	return c
}

// withChanges is a superblock with the history behind it.
func (s *Store) withChanges(sb *superblock) []byte {
	b := sb.encode()
	if c := s.savedWith(sb.sequence); c != nil {
		b = append(b, c.encode(s.database)...)
	}
	return b
}

// changesUnsaved reports whether an hour is over that no superblock has.
func (s *Store) changesUnsaved() bool {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	return s.changes.unsaved && !s.standby
}

// readChanges is the newest history that was saved, or nil.
func (s *Store) readChanges() (newest *savedChanges) {
	if s.sealed {
		return nil
	}
	b := make([]byte, changesSize)
	for slot := range int64(2) {
		n, err := s.data.file.ReadAt(b, slot*superblockStride+superblockSize)
		if err != nil {
			s.logger.Warn("history of changes cannot be read, forecasts begin anew", "error", fmt.Errorf("read %s: %w", s.data.path, err))
			continue
		}
		if c := decodeChanges(b[:n], s.database); c != nil && (newest == nil || c.sequence > newest.sequence) {
			newest = c
		}
	}
	return newest
}

// restore goes on with what was saved. The counter has been begun at newest.
func (c *savedChanges) restore(h *changeHistory, counter *changeCounter, now time.Time, newest block.LSN) {
	h.week, h.four, h.days = c.week, c.four, c.days
	was := c.recent[0]
	h.recent = append([]ChangeHour(nil), c.recent[1:]...)
	if c.hour == h.hour.hour {
		h.hour.resume(&was)
	} else {
		h.finish(c.hour, was)
	}
	for i := changeWindows - 1; i >= 0; i-- {
		w := c.windows[i]
		if w.start <= newest && !w.begun.After(now) && windowOf(w.begun, i) == windowOf(now, i) {
			counter.starts[i], counter.distinct[i] = w.start, w.distinct
			h.windows[i] = runningWindow{w.begun, counter.overwrites - w.overwrites} // may be "below zero": the difference counts
		}
		if i+1 < changeWindows {
			counter.starts[i] = max(counter.starts[i], counter.starts[i+1])
		}
	}
}

// resume goes on with an hour that was not over when it was saved.
func (h *runningHour) resume(a *ChangeHour) {
	h.seen = time.Duration(a.Seconds * float64(time.Second))
	hours := h.seen.Hours()
	h.overwrites, h.redo, h.commits = a.Overwrites*hours, a.RedoBytes*hours, a.Commits*hours
	for i, d := range a.Distinct {
		if d >= 0 {
			w := ChangeWindow{Distinct: d, Overwrites: a.Overwrites * windowLengths[i].Hours()}
			for range max(h.seen/windowLengths[i], 1) {
				h.distinct[i].add(w)
			}
		}
	}
}
