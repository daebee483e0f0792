package wal

import (
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// pieceBytesMin is how much room a segment must have left for a body to be cut
// in two at its end; less is left unused.
const pieceBytesMin = 4096

// group is what is written under one turn of the syncing role: records in one
// buffer, cut into runs.
type group struct {
	buf  []byte
	runs []run
}

// run is the part of a group that goes to one segment in one write.
type run struct {
	seg      *segment
	off      int64     // where it goes
	from, to int       // of group.buf
	last     block.LSN // last commit that it completes, or 0
	commits  int
	head     bool     // the segment begins: its headers are to be written first
	retire   *segment // the segment that head replaces, or nil
}

// Append adds one record to the log; it is durable once a Sync covers lsn. A
// commit is one or more records with the same LSN, the last with last set; the
// LSNs of commits follow each other without gaps. body, at most
// [RecordBytesMax], is copied.
//
// Append waits while more than Options.BufferBytes are not yet durable (R3),
// and then forces a sync, also in the middle of a commit.
func (l *Log) Append(lsn block.LSN, body []byte, last bool) error {
	if len(body) > RecordBytesMax {
		return fmt.Errorf("append to log: body of %d bytes, at most %d: %w", len(body), RecordBytesMax, ErrOrder)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if due := l.due(); lsn != due {
		return fmt.Errorf("append to log: LSN %v where %v is due: %w", lsn, due, ErrOrder)
	}
	if err := l.waitForBuffer(recordBytes(len(body))); err != nil {
		return err
	}
	l.stats.RecordBytes += int64(recordBytes(len(body)))
	return l.putBody(lsn, body, last)
}

// due is the LSN that the next record must have. mu is held.
func (l *Log) due() block.LSN {
	if l.open {
		return l.lsn
	}
	return l.lsn + 1
}

// waitForBuffer returns once n more bytes may be in flight. mu is held, and
// released while waiting.
func (l *Log) waitForBuffer(n int) error {
	for {
		if err := l.usable(); err != nil {
			return err
		}
		used := len(l.active.buf) + len(l.flushing.buf)
		if used == 0 || used+n <= l.o.BufferBytes {
			return nil
		}
		l.stats.BufferWaits++
		if l.syncing {
			l.changed.Wait()
		} else {
			l.syncing = true
			l.lead()
		}
	}
}

// putBody puts a body into as many records as the ends of segments ask for.
func (l *Log) putBody(lsn block.LSN, body []byte, last bool) error {
	for {
		n := l.fit(len(body))
		if n < 0 {
			if err := l.turn(); err != nil {
				return l.outOfRoom(lsn, err)
			}
			continue
		}
		if n < len(body) {
			l.put(flagPart, lsn, body[:n])
			body = body[n:]
			continue
		}
		flags := recordFlags(0)
		if last {
			flags = flagLast
		}
		l.put(flags, lsn, body)
		return nil
	}
}

// outOfRoom is reached only by a commit that reserved too little. Half a commit
// cannot be taken back.
func (l *Log) outOfRoom(lsn block.LSN, cause error) error {
	err := fmt.Errorf("append LSN %v beyond what was reserved: %w", lsn, cause)
	if l.open {
		l.fail(err)
		return l.failed
	}
	return err
}

// fit is how many of n body bytes the next record may hold, -1 if the current
// segment has no room for it.
func (l *Log) fit(n int) int {
	if l.cur == nil {
		return -1
	}
	rest := int(l.cur.limit() - l.pos)
	if recordBytes(n) <= rest {
		return n
	}
	if rest < recordHeaderBytes+pieceBytesMin {
		return -1
	}
	return rest - recordHeaderBytes
}

// put seals one record and adds it to the active group. There is room for it.
// mu is held.
func (l *Log) put(flags recordFlags, lsn block.LSN, body []byte) {
	g := l.active
	if len(g.runs) == 0 {
		g.runs = append(g.runs, run{seg: l.cur, off: l.pos, from: len(g.buf)})
	}
	v := l.Durable()
	r := record{flags: flags, lsn: lsn, synced: v, prevSum: l.sum}
	n, at := recordBytes(len(body)), len(g.buf)
	g.buf = slices.Grow(g.buf, n)[:at+n]
	b := g.buf[at:]
	clear(b[n-min(n, recordAlign+recordHeaderBytes):]) // at least the padding
	copy(b[recordHeaderBytes:], body)
	l.sum = l.cur.seal.encodeRecord(b, l.pos, r, len(body))
	if invariants {
		l.checkRecord(b, &r)
	}
	l.open = !r.completes(l.open)
	l.lsn, l.claimed, l.ended = lsn, v, flags&flagEnd != 0
	l.pos += int64(n)
	l.cur.end = l.pos
	if flags&flagLast != 0 {
		run := &g.runs[len(g.runs)-1]
		run.last = lsn
		run.commits++
		l.end, l.endSum = lsn, l.sum
		l.reserved = 0
	}
}

// turn makes a ready spare the current segment. Its header names the record
// before it and is written with the first run. mu is held, and released while
// there is no spare.
func (l *Log) turn() error {
	for len(l.ready) == 0 {
		if err := l.prepare(); err != nil {
			return err
		}
	}
	seg := l.ready[0]
	l.ready = slices.Delete(l.ready, 0, 1)
	l.reserved = max(0, l.reserved-1)
	l.number++
	seg.header = header{
		kind: kindSegment, open: l.open, size: seg.header.size,
		database: l.o.Database, timeline: l.o.Timeline,
		number: l.number, salt: newSalt(), prevLSN: l.lsn, prevSum: l.sum,
	}
	seg.seal, seg.end = seg.header.seal(), recordsOffset
	seg.written = false
	l.active.pad()
	l.active.runs = append(l.active.runs, run{
		seg: seg, off: recordsOffset, from: len(l.active.buf), head: true, retire: l.cur,
	})
	l.cur, l.pos = seg, recordsOffset
	l.live = append(l.live, seg)
	l.prepareAhead()
	return nil
}

// pad ends the last run of the group, filled up to a whole page, so that the
// write never has to read the rest of the page first. Nothing that counts
// stands behind the last record.
func (g *group) pad() {
	if len(g.runs) == 0 {
		return
	}
	r := &g.runs[len(g.runs)-1]
	end := r.off + int64(len(g.buf)-r.from)
	n := int(-end & (headerBlockBytes - 1))
	at := len(g.buf)
	g.buf = slices.Grow(g.buf, n)[:at+n]
	clear(g.buf[at:])
	r.to = len(g.buf)
}

func (g *group) reset() {
	g.buf = g.buf[:0]
	clear(g.runs)
	g.runs = g.runs[:0]
}
