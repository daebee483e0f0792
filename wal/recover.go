package wal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// Start is what the owner knows about its log when it opens it.
type Start struct {
	// Redo is the first commit that recovery needs.
	Redo block.LSN
	// Durable is the highest LSN that was ever declared durable outside the
	// log: by a checkpoint, by a repository's head. A log that ends below it is
	// refused (R6). 0: unknown.
	Durable block.LSN
	// Keep is the first commit that some holder other than recovery still
	// wants, if it is below Redo. The log is kept from there on, as far as it
	// is sound, until the first Release: call Hold before. 0: none.
	Keep block.LSN
}

// Open finds and proves the end of the log by R5 and makes what it accepts
// durable. It refuses with a [*block.CorruptError] where a power cut cannot
// explain what is there. Nothing is ever written behind the accepted end: the
// first Append goes on in a fresh segment.
func Open(o Options, s Start) (*Log, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	l, err := recoverLog(o, s)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

func recoverLog(o Options, s Start) (*Log, error) {
	s.Redo = max(s.Redo, 1)
	l := newLog(o)
	r := recovery{o: &l.o}
	defer r.close()
	if err := r.load(); err != nil {
		return nil, err
	}
	if err := r.prove(s); err != nil {
		return nil, err
	}
	r.trim()
	secure := r.secure
	if o.readOnly {
		secure = r.settleAccepted
	}
	if err := secure(max(r.claim, s.Durable)); err != nil {
		return nil, err
	}
	l.adopt(&r)
	l.floor = s.Redo
	return l, nil
}

// recordName is how a segment's header names the record that it follows.
type recordName struct {
	lsn block.LSN
	sum uint32
}

// cursor is a place in the log: behind record (lsn, sum), where the next one is
// due.
type cursor struct {
	seg  *segment
	pos  int64
	lsn  block.LSN
	sum  uint32
	open bool      // commit lsn is not complete
	end  block.LSN // last complete commit
}

// recovery finds the end of a log.
type recovery struct {
	o     *Options
	files []*segment              // all slot files, by segment number; spares first
	next  map[recordName]*segment // the highest-numbered segment that follows a record
	in    *segmentReader          // of the segment read last
	chain []*segment              // segments from the first needed one to at.seg
	at    cursor                  // where the walk is
	cut   cursor                  // behind the last accepted record
	claim block.LSN               // highest "synced" of an accepted record or header
	clean bool                    // the last accepted record is an end mark
}

func (r *recovery) close() { r.in.close() }

// load reads the headers of all slot files.
func (r *recovery) load() error {
	slots, err := listSlots(r.o)
	if errors.Is(err, fs.ErrNotExist) {
		err = corrupt(r.o.Dir, -1, "the log is missing", err)
	}
	if err != nil {
		return err
	}
	// What a killed process renamed or removed without syncing is settled now.
	if !r.o.readOnly {
		if err := r.o.FS.SyncDir(r.o.Dir); err != nil {
			return err
		}
	}
	r.next = map[recordName]*segment{}
	for _, slot := range slots {
		s, err := loadSlot(r.o, slot)
		if err != nil {
			return err
		}
		r.files = append(r.files, s)
	}
	slices.SortFunc(r.files, func(a, b *segment) int { return cmp.Compare(a.header.number, b.header.number) })
	for i, s := range r.files {
		if s.header.kind != kindSegment {
			continue
		}
		if i > 0 && r.files[i-1].header.number == s.header.number {
			return corrupt(s.path(r.o.Dir), 0, fmt.Sprintf("segment %d is also in slot %d",
				s.header.number, r.files[i-1].slot), nil)
		}
		r.next[recordName{s.header.prevLSN, s.header.prevSum}] = s
	}
	return nil
}

// prove walks the log from where it is needed and judges its end. What holders
// want is kept if it is sound; what recovery wants has to be.
func (r *recovery) prove(s Start) error {
	if s.Keep != 0 && s.Keep < s.Redo {
		err := r.proveFrom(s.Keep, s)
		if err == nil || !errors.Is(err, block.ErrCorrupt) {
			return err
		}
		r.o.Logger.Warn("log kept for a holder is not whole", "dir", r.o.Dir, "from", s.Keep, "cause", err)
	}
	return r.proveFrom(s.Redo, s)
}

func (r *recovery) proveFrom(from block.LSN, s Start) error {
	first := r.holding(from)
	if first == nil {
		return corrupt(r.o.Dir, -1, fmt.Sprintf("no segment reaches back to LSN %v", from), nil)
	}
	if err := r.walk(first); err != nil {
		return err
	}
	if err := r.judge(); err != nil {
		return err
	}
	if need := max(s.Durable, s.Redo-1); r.cut.end < need {
		return corrupt(r.at.seg.path(r.o.Dir), r.at.pos,
			fmt.Sprintf("log ends at LSN %v, LSN %v was declared durable", r.cut.end, need), ErrEndsEarly)
	}
	return nil
}

// holding is the segment in which commit lsn is to be looked for: the newest
// one that begins at or before it. Older ones may hold a dead commit lsn.
func (r *recovery) holding(lsn block.LSN) *segment {
	for _, s := range slices.Backward(r.files) {
		if s.header.kind == kindSegment && s.first() <= lsn {
			return s
		}
	}
	return nil
}

// walk follows the records from the start of segment first until none is due
// that is sound.
func (r *recovery) walk(first *segment) error {
	h := &first.header
	r.chain = r.chain[:0]
	r.clean = false
	r.claim = 0
	r.at = cursor{lsn: h.prevLSN, sum: h.prevSum, open: h.open, end: h.prevLSN}
	if h.open {
		r.at.end-- // not below 0, see header.meaningful
	}
	if err := r.enter(first); err != nil {
		return err
	}
	r.cut = r.at
	for {
		if s := r.next[recordName{r.at.lsn, r.at.sum}]; s != nil && s.header.number > r.at.seg.header.number {
			if err := r.enter(s); err != nil {
				return err
			}
			continue
		}
		rec, ok, err := r.in.record(r.at.pos)
		if err != nil {
			return err
		}
		if !ok || !rec.follows(r.at.lsn, r.at.sum, r.at.open) {
			return nil
		}
		r.step(&rec)
	}
}

// enter goes on at the start of s, whose header names the record before.
func (r *recovery) enter(s *segment) error {
	if s.header.open != r.at.open {
		return corrupt(s.path(r.o.Dir), 0, fmt.Sprintf("header and log differ on whether LSN %v is complete", r.at.lsn), nil)
	}
	r.in.close()
	in, err := openSegment(r.o, s)
	if err != nil {
		r.in = nil
		return err
	}
	r.in = in
	r.at.seg, r.at.pos = s, recordsOffset
	r.chain = append(r.chain, s)
	s.end, s.last = recordsOffset, r.at.lsn
	if !r.at.open {
		r.accept(s.header.synced)
	}
	return nil
}

// step moves behind rec.
func (r *recovery) step(rec *record) {
	at := &r.at
	at.pos += int64(recordBytes(len(rec.body)))
	at.lsn, at.sum = rec.lsn, rec.sum
	at.open = !rec.completes(at.open)
	at.seg.end, at.seg.last = at.pos, at.lsn
	if !at.open {
		at.end = at.lsn
		r.accept(rec.synced)
		r.clean = rec.is(flagEnd)
	}
}

// accept makes the place of the walk the end, until it gets further.
func (r *recovery) accept(claim block.LSN) {
	r.cut = r.at
	r.claim = max(r.claim, claim)
}

// judge decides whether what stands behind the cut is a torn tail (R5). Commit d
// is due there. It is a torn tail only if no later sound record claims that d
// was synced. Later is: further on in the cut's segment, to which nothing was
// appended after a cut, and in segments of higher numbers. Lower-numbered ones
// and what lies between a cut and the segment that went on from it are dead.
func (r *recovery) judge() error {
	due := r.cut.end + 1
	for _, s := range r.files {
		if s.header.number < r.cut.seg.header.number {
			continue
		}
		from := int64(recordsOffset)
		if s == r.cut.seg {
			from = r.cut.pos
		} else if s.header.synced >= due {
			return r.damage(due, s, 0, s.header.synced)
		}
		if err := r.search(s, from, due); err != nil {
			return err
		}
	}
	return nil
}

// search looks at every place of s from off on for a sound record that claims
// commit due was synced.
func (r *recovery) search(s *segment, off int64, due block.LSN) error {
	in, err := openSegment(r.o, s)
	if err != nil {
		return err
	}
	defer in.close()
	for {
		var rec record
		if off, rec, err = in.sound(off); err != nil || off < 0 {
			return err
		}
		if rec.synced >= due {
			return r.damage(due, s, off, rec.synced)
		}
		off += recordAlign
	}
}

// sound is the first place from off on where a sound record stands, -1 if there
// is none.
func (r *segmentReader) sound(off int64) (int64, record, error) {
	for ; ; off += recordAlign {
		at, err := r.candidate(off)
		if err != nil || at < 0 {
			return -1, record{}, err
		}
		rec, ok, err := r.record(at)
		if ok || err != nil {
			return at, rec, err
		}
		off = at
	}
}

func (r *recovery) damage(due block.LSN, s *segment, off int64, claim block.LSN) error {
	return corrupt(r.at.seg.path(r.o.Dir), r.at.pos, fmt.Sprintf(
		"no sound record where LSN %v is due, but offset %d of %s says that LSN %v was synced",
		due, off, slotName(s.slot), claim), nil)
}

// trim drops from the chain what is behind the cut, and segments at its end in
// which nothing was accepted: all that is dead once a fresh segment names the
// last accepted record.
func (r *recovery) trim() {
	n := slices.Index(r.chain, r.cut.seg) + 1
	r.cut.seg.end, r.cut.seg.last = r.cut.pos, r.cut.lsn
	for n > 1 && r.chain[n-1].end == recordsOffset {
		n--
	}
	r.chain = r.chain[:n]
}

// secure makes durable what was accepted and is not known synced: after a kill
// it may be in the system's cache only (B6). It is written again, not just
// synced: after a failed sync the cache may call clean what the disk never got.
// The same bytes overwrite themselves, so a power cut here changes nothing.
func (r *recovery) secure(synced block.LSN) error {
	for _, s := range r.chain {
		if s.last < synced {
			continue
		}
		if err := r.rewrite(s, synced); err != nil {
			return fmt.Errorf("secure the end of the log: %w", err)
		}
	}
	return nil
}

func (r *recovery) rewrite(s *segment, synced block.LSN) error {
	in, err := openSegment(r.o, s)
	if err != nil {
		return err
	}
	defer in.close()
	if err := s.openSlot(r.o); err != nil {
		return err
	}
	defer func() {
		s.file.Close()
		s.file = nil
	}()
	if s.end == recordsOffset {
		// Records vouch for the header: they were written when it was synced. Here
		// there are none, and what comes before may be removed from now on.
		if err := s.writeHeaders(s.header.synced); err != nil {
			return err
		}
	}
	for off := int64(recordsOffset); off < s.end; {
		rec, ok, err := in.record(off)
		if err != nil {
			return err
		}
		if !ok {
			return corrupt(in.path, off, "record changed while it was read", nil)
		}
		n := recordBytes(len(rec.body))
		// A claim covers commits; a mark behind the last of them may be in the
		// cache only, and the next segment's header is going to name it.
		if rec.lsn > synced || rec.lsn == synced && rec.is(flagMark) {
			b, err := in.bytes(off, n)
			if err != nil {
				return err
			}
			if _, err := s.file.WriteAt(b, off); err != nil {
				return err
			}
		}
		off += int64(n)
	}
	return s.file.Sync()
}

// adopt makes l the log that r has proven.
func (l *Log) adopt(r *recovery) {
	c := &r.cut
	l.lsn, l.sum, l.end, l.claimed = c.lsn, c.sum, c.end, r.claim
	l.durable.Store(uint64(c.end))
	l.announced.Store(uint64(c.end))
	l.clean, l.ended = r.clean, r.clean
	l.live = slices.Clone(r.chain)
	for _, s := range r.files {
		l.slots[s.slot] = true
		l.number = max(l.number, s.header.number)
		if !slices.Contains(l.live, s) {
			l.idle = append(l.idle, s)
		}
	}
	if l.o.readOnly {
		return
	}
	for _, s := range l.surplus() {
		l.removeSlot(s)
	}
}
