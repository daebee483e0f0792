package mvcc

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/wal"
)

// # Repair
//
// A block is damaged if its place in the data file does not hold the version that
// the store believes to be there. What belongs there, and where it comes from:
//
//	the newest version, and it has a frame          that frame
//	the newest version, and nobody has it           an image, see below
//	an older one, which a snapshot reads; the       an image of exactly that LSN, unless
//	newest is in RAM, dirty, or the block is free   it has a frame or a slot
//	nothing: the newest is in RAM, dirty            nothing is missing
//	nothing: the block is free                      nothing is missing
//
// An image is the last whole one in our log, or one that is given as of commit A,
// with A at or above the oldest commit of our log less one: either is rolled forward
// through the log up to the durable horizon by the rules of redo (R8). So what is
// installed follows, by predecessors' LSNs, from what was given, and nothing newer
// exists: the log was read to its end with the writer's lock held. Where RAM knows
// the version's LSN it has to be that one. A given image is proven first: checksum
// with the database's seed, block, LSN at or below A, A at or below the horizon.
//
// # Who writes
//
// Repair writes nothing in place. It gives the version its frame and says that it is
// dirty (a head), or that the place does not hold it (an original): both are states
// that the cleaner knows (R4), and it writes the head by its own rules, log first,
// second copy, place, sync (L6, R8). Then repair waits for a whole round, and reads the
// place. So there is one writer of the data file, and a power cut during a repair
// leaves the damage, or the second copy that opening uses, or the block.
//
// # Order
//
//	probe    is it free, sound, in RAM? Which LSN is known? (a hint: no lock is kept)
//	read     the log up to the horizon; it is held meanwhile
//	writer   from here on no commit comes. Sync; read the rest of the log; ask the bitmap
//	latch    what belongs in place now? It is Loading while the place is read once more:
//	         nobody loads, evicts or overwrites it (R4)
//	install  if the place is still bad. The latch and the writer are let go
//	round    until the cleaner has written it
//
// Snapshots see no wrong version at any time (L1): what is installed carries the LSN
// of the version that it is an image of, and a head that is newer than a snapshot
// is not what that snapshot reads.

// RepairState is what became of a block.
type RepairState string

// What RepairBlock can say.
const (
	RepairSound   RepairState = "sound"       // nothing is wrong with it
	RepairFree    RepairState = "free"        // it is not in use: what is there counts for nothing
	RepairMap     RepairState = "changed map" // of the changed-block map: everything it speaks of counts as changed (R16)
	RepairMemory  RepairState = "memory"      // what belongs there was in RAM
	RepairLog     RepairState = "log"         // made from the database's own log
	RepairImage   RepairState = "image"       // made from the image given, and the log behind it
	RepairNoImage RepairState = "no image"    // not repaired: an image of it is needed
)

// BlockRepair asks for the repair of one block.
type BlockRepair struct {
	Block block.ID
	// Image is the whole image of the block as of commit AsOf; nil: none is given.
	Image  []byte
	AsOf   block.LSN
	DryRun bool // find out what would be done, and do nothing
}

// BlockRepaired is what was found and done.
type BlockRepaired struct {
	Block  block.ID    `json:"block"`
	Offset int64       `json:"offset"` // in the data file, bytes
	State  RepairState `json:"state"`
	Found  string      `json:"found,omitempty"` // what was wrong with the place
	LSN    block.LSN   `json:"lsn,omitempty"`   // of the version that is there now, or would be
	// Of RepairNoImage: the image has to be as of a commit from From to To. Of RepairSound:
	// the block may still be an old one, whose rewriting was lost; an image as of such a
	// commit would tell.
	From block.LSN `json:"from,omitempty"`
	To   block.LSN `json:"to,omitempty"`
}

// RepairBlock repairs a block whose place in the data file is damaged, while readers
// and writers go on; a writer may wait for a few reads. It returns when what it did
// is durable and was read back. RepairNoImage asks for an image: call it again with
// one. ErrReadOnly, ErrBehind (the image is of a later state), *block.CorruptError (the
// image is not what the log goes on from, or the block's bitmap is damaged), or
// the reason why the store takes no commits.
func (s *Store) RepairBlock(ctx context.Context, r BlockRepair) (BlockRepaired, error) {
	out, err := s.repairBlock(ctx, r)
	if err != nil {
		return out, fmt.Errorf("repair block %v: %w", r.Block, err)
	}
	return out, nil
}

func (s *Store) repairBlock(ctx context.Context, r BlockRepair) (BlockRepaired, error) {
	out := BlockRepaired{Block: r.Block, Offset: s.geo.offset(r.Block)}
	if s.opts.ReadOnly {
		return out, ErrReadOnly
	}
	if err := s.state.enterUnlessClosed(); err != nil {
		return out, err
	}
	defer s.leave()
	if err := s.state.failure(); err != nil {
		return out, err
	}
	m := mender{s: s, r: r, out: out, buf: make([]byte, s.geo.size)}
	var again bool // the cleaner has something to write
	var err error
	switch {
	case s.geo.isMap(r.Block):
		again, err = m.mendMap()
	case !s.geo.isVersioned(r.Block):
		return out, optionError("it is a superblock: the next checkpoints write both copies")
	default:
		again, err = m.mend(ctx)
	}
	if err == nil && again && !r.DryRun {
		err = m.readBack(ctx)
	}
	return m.out, err
}

// mender is one repair.
type mender struct {
	s       *Store
	r       BlockRepair
	out     BlockRepaired
	buf     []byte // one block
	roller  *Roller
	cursor  *wal.Cursor
	follows bool      // the log goes on from the image given
	used    bool      // the block is in use as of the newest commit
	want    block.LSN // of the version that belongs there; 0: not known
	proven  bool      // want is all that could be known
	mark    block.LSN // no version of the block is newer, by the changed-block map (R16)
}

// mendMap has a damaged block of the changed-block map made anew (R16).
func (m *mender) mendMap() (again bool, err error) {
	s, id := m.s, m.r.Block
	m.out.State = RepairSound
	if !s.data.has(id) {
		m.out.State = RepairFree
		return false, nil
	}
	_, err = s.data.read(id, m.buf)
	if err == nil {
		return false, nil
	}
	m.out.State, m.out.Found = RepairMap, foundIn(err)
	if m.r.DryRun {
		return false, nil
	}
	return true, s.repairMap(id, m.buf)
}

// foundIn is what an error of reading a place says of it.
func foundIn(err error) string {
	var damage *block.CorruptError
	if errors.As(err, &damage) {
		return damage.Reason
	}
	return err.Error()
}

func (m *mender) mend(ctx context.Context) (again bool, err error) {
	s := m.s
	if err := m.begin(m.probe()); err != nil {
		return false, err
	}
	hold := s.log.HoldBriefly(RepairTail, m.cursor.Next())
	defer hold.Drop()
	if err := m.read(ctx); err != nil {
		return false, err
	}
	frame, err := s.cache.NewFrame() // before the locks (R7)
	if err != nil {
		return false, err
	}
	frame, again, err = m.settle(ctx, frame)
	if frame != nil {
		s.cache.GiveFrame(frame)
	}
	return again, err
}

// settle does what needs that nobody writes. It returns the frame if it was not used.
func (m *mender) settle(ctx context.Context, frame []byte) (left []byte, again bool, err error) {
	s := m.s
	if err := s.lockWriter(ctx); err != nil {
		return frame, false, err
	}
	defer s.writer.Unlock()
	if err := s.state.writable(); err != nil {
		return frame, false, err
	}
	if err := s.log.Sync(s.log.End()); err != nil {
		return frame, false, s.fail(err)
	}
	if err := m.read(ctx); err != nil { // what was committed since
		return frame, false, err
	}
	if err := m.ask(); err != nil {
		return frame, false, err
	}
	frame, again = m.place(frame)
	return frame, again, nil
}

// probe is the LSN of an older version that belongs in place, if it is known and
// older than what the log ends with; else 0.
func (m *mender) probe() block.LSN {
	l := m.s.cache.Latch(m.r.Block)
	defer l.Unlock()
	if v, newest := m.belongs(l); v != nil && !newest {
		return v.LSN
	}
	return 0
}

// belongs is the version that the place has to hold, if RAM has it: the newest
// one, or one that a snapshot reads. Under the latch.
func (m *mender) belongs(l *blockcache.Latch) (v *blockcache.Version, newest bool) {
	h := l.Head(m.r.Block)
	if h != nil && h.InPlace && !h.Dirty && !h.Freed {
		return h, true
	}
	if h != nil {
		v = inPlaceBehind(h)
	}
	if v == nil {
		v = m.s.snapshots.InPlace(m.r.Block)
	}
	return v, false
}

// begin proves the image given and finds where the log is read from.
func (m *mender) begin(until block.LSN) error {
	s, r := m.s, &m.r
	m.roller = NewRoller(s.geo.size, s.database)
	oldest := s.log.Oldest()
	m.out.From, m.out.To = oldest-1, s.log.Durable()
	if until != 0 {
		m.out.To = until
		m.out.From = min(m.out.From, until)
	}
	from := oldest
	if r.Image != nil {
		if v := s.log.Durable(); r.AsOf > v {
			return fmt.Errorf("image as of LSN %v, the newest durable commit is %v: %w", r.AsOf, v, ErrBehind)
		}
		if err := m.roller.Track(r.Block, r.Image, until); err != nil {
			return err
		}
		if lsn := m.roller.blocks[r.Block].lsn; lsn > r.AsOf {
			return s.data.corrupt(r.Block, fmt.Sprintf("an image as of commit %v has LSN %v", r.AsOf, lsn))
		}
		if m.follows = r.AsOf+1 >= oldest; m.follows {
			from = r.AsOf + 1
		}
	}
	if !m.follows {
		if err := m.roller.Track(r.Block, nil, until); err != nil {
			return err
		}
	}
	m.cursor = s.log.Cursor(from)
	return nil
}

// read rolls the block forward to the durable horizon.
func (m *mender) read(ctx context.Context) error {
	err := m.cursor.Read(math.MaxInt64, func(lsn block.LSN, body []byte, last bool) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return m.roller.Apply(LogRecord{lsn, last, body})
	})
	if errors.Is(err, wal.ErrReleased) {
		err = fmt.Errorf("%w: %w", ErrLogGone, err)
	}
	return err
}

// ask finds out what bitmap and changed-block map say, and sees to it that there is a
// place to write to. The caller has the writer's lock.
func (m *mender) ask() (err error) {
	s, id := m.s, m.r.Block
	if m.used, err = s.inUse(id, s.meta.highWater, s.current); err != nil || !m.used {
		return err
	}
	marks := make([]byte, s.geo.bitsEnd)
	e := s.geo.extentsOf(id)
	m.mark = newest
	switch found, err := s.readMarks(e.id, marks); {
	case err != nil:
		return err
	case found:
		m.mark = getMark(marks, e.at(id))
	}
	if m.r.DryRun {
		return nil
	}
	return s.data.reserve(id) // the file may have been cut short
}

// place looks at the place once more and installs what belongs there if it is bad.
// It returns the frame if it was not used. The caller has the writer's lock.
func (m *mender) place(frame []byte) (left []byte, again bool) {
	s, id := m.s, m.r.Block
	l := s.cache.Latch(id)
	defer l.Unlock()
	for {
		h := l.Head(id)
		if h != nil && h.Loading {
			l.Wait()
			continue
		}
		again = h != nil && h.Dirty && !h.Freed // it will be written, whatever is there
		v, isNewest := m.belongs(l)
		fresh := false
		switch {
		case isNewest && !m.used: // somebody has read the place since it was freed
			m.out.State = RepairFree
			m.wantsNothing(true)
			return frame, false
		case v == nil && h == nil && m.used:
			v, isNewest, fresh = &blockcache.Version{ID: id, InPlace: true}, true, true
			l.Insert(v)
		case v == nil && again:
			m.out.State, m.out.LSN = RepairMemory, h.LSN
			m.wantsNothing(true)
			return frame, again
		case v == nil:
			m.out.State = RepairFree
			m.wantsNothing(true)
			return frame, false
		case v.Loading:
			l.Wait()
			continue
		}
		found := m.look(l, v, isNewest)
		if v.Role == blockcache.RoleDead { // let go of meanwhile
			continue
		}
		if found != "" {
			m.out.Found = found
			left, done := m.install(l, v, frame, isNewest, fresh)
			return left, done && isNewest || again
		}
		if fresh {
			forgetFresh(l, v)
		}
		if m.out.State = RepairSound; again {
			m.out.State, m.out.LSN = RepairMemory, h.LSN
		}
		m.wantsNothing(again || m.proven)
		return frame, again
	}
}

// wantsNothing says that no image would help.
func (m *mender) wantsNothing(yes bool) {
	if yes {
		m.out.From, m.out.To = 0, 0
	}
}

// forgetFresh takes a head back that was made for reading the place.
func forgetFresh(l *blockcache.Latch, v *blockcache.Version) {
	l.Remove(v)
	v.Role = blockcache.RoleDead
}

// look reads the place, where version v belongs, and says what is wrong with it. Under
// the latch, which it releases meanwhile; v is Loading then.
func (m *mender) look(l *blockcache.Latch, v *blockcache.Version, isNewest bool) (found string) {
	v.Loading = true
	l.Unlock()
	t, err := m.s.data.read(v.ID, m.buf)
	l.Lock()
	v.Loading = false
	l.Wake()
	m.want, m.proven = v.LSN, !isNewest
	if isNewest { // what RAM has of it may have been read from there
		if _, lsn, unknown := m.roller.Block(v.ID); unknown == nil && lsn <= m.mark {
			m.want, m.proven = max(m.want, lsn), lsn >= t.LSN
		}
	}
	if m.out.LSN = t.LSN; err != nil {
		return foundIn(err)
	}
	switch {
	case t.LSN > m.s.newestLSN():
		return fmt.Sprintf("it has LSN %v, the newest commit is %v", t.LSN, m.s.newestLSN())
	case t.LSN < m.want, t.LSN > m.want && !isNewest:
		return fmt.Sprintf("it has LSN %v where %v belongs", t.LSN, m.want)
	}
	return ""
}

// install gives v, whose place is bad, what belongs there; done if it has it. It
// returns the frame if it was not used. Under the latch.
func (m *mender) install(l *blockcache.Latch, v *blockcache.Version, frame []byte, isNewest, fresh bool) (left []byte, done bool) {
	s := m.s
	image, state := []byte(nil), RepairMemory
	if v.Data() == nil && v.Slot() == 0 || v.LSN < m.want {
		image, state = m.image(v.ID)
	}
	if m.out.State, m.out.LSN = state, v.LSN; image != nil {
		m.out.LSN = m.want
	}
	m.wantsNothing(state != RepairNoImage)
	switch {
	case state == RepairNoImage || m.r.DryRun:
		if fresh {
			forgetFresh(l, v)
		}
		return frame, false
	case image == nil:
		s.lost(v, isNewest)
		return frame, true
	}
	copy(frame, image)
	if isNewest {
		s.replaceBad(l, v, frame, image)
		return nil, true
	}
	s.cache.Adopt(v, frame)
	s.cache.ClearInPlace(v)
	return nil, true
}

// lost says that the place does not hold v, which has a frame or a slot: a head is
// written again. Under the latch.
func (s *Store) lost(v *blockcache.Version, isNewest bool) {
	if !isNewest {
		s.cache.ClearInPlace(v)
		return
	}
	s.cache.Forget(v)
	from := s.cache.ClassOf(v)
	s.published().Unplaced(v.ID)
	v.InPlace, v.Dirty, v.Rec, v.Image = false, true, v.LSN, 0
	s.cache.Reclass(v, from)
}

// replaceBad makes a frame with an image the head of a block, in the place of v, which
// was, or would have been, what the bad place holds. Who has v pinned keeps it. Under
// the latch.
func (s *Store) replaceBad(l *blockcache.Latch, v *blockcache.Version, frame, image []byte) {
	t, _ := block.Verify(image, v.ID, s.data.seed)
	n := &blockcache.Version{ID: v.ID, LSN: t.LSN, Type: t.Type, Role: blockcache.RoleHead, Dirty: true, Rec: t.LSN, Older: v.Older}
	l.Remove(v)
	s.cache.Kill(v)
	s.published().Mended(v.ID, shadow.Version{LSN: t.LSN, Type: t.Type, Image: image})
	l.Insert(n)
	s.cache.Adopt(n, frame)
}

// image is one of the version that is wanted: the one rolled forward, or the one given.
func (m *mender) image(id block.ID) ([]byte, RepairState) {
	state := RepairLog
	if m.follows {
		state = RepairImage
	}
	image, lsn, err := m.roller.Block(id)
	if err == nil && m.want != 0 && lsn == m.want {
		return image, state
	}
	if given := m.r.Image; given != nil && m.want != 0 {
		if t, reason := block.Verify(given, id, m.s.data.seed); reason == "" && t.LSN == m.want {
			return given, RepairImage
		}
	}
	return nil, RepairNoImage
}

// readBack waits until the cleaner has written the block, and reads it.
func (m *mender) readBack(ctx context.Context) error {
	s := m.s
	for range 2 { // one may be under way
		if err := s.cleaner.awaitRoundFor(ctx, s.cleaner.rounds()); err != nil {
			return err
		}
	}
	if m.out.State == RepairMap {
		_, err := s.data.read(m.r.Block, m.buf)
		return err
	}
	if err := s.verifyInPlace(m.r.Block); err != nil {
		return err
	}
	var err error
	for range 2 { // one that was used again meanwhile has a head: look twice
		var b Block
		if b, err = s.get(m.r.Block, view{lsn: newest}); err == nil {
			b.Release()
			return nil
		}
		if errors.Is(err, ErrNotInUse) || s.isFree(m.r.Block) {
			return nil // freed meanwhile: nobody writes its place
		}
	}
	return err
}
