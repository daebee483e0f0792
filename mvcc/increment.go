package mvcc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/shadow"
)

// An incremental from base B at S hands out the blocks in use at S whose version v
// has B < v.LSN: exactly, by the LSN of the version itself. The changed-block map
// only tells which extents need not be looked at: every commit up to S has raised its
// marks before it was published, and marks never fall, so whenever the scan comes to an
// extent with a mark at or below B, no block of it is carried.
//
// R11 has the commit that first raises a mark above S decide, from the mark it
// replaces, whether the extent is carried, and record that. This needs no such
// set: what is carried depends on nothing that changes after S was fixed. Base 100,
// S = 200, mark 50: commit 201 replaces b@50, which is not wanted, since 50 <= 100;
// the scan then finds mark 201, looks, and finds no version of b at S: b is not
// carried, because one that is carried is kept until it is in hand. And it is sharper:
// of an extent with one change one block is carried, not eight.
//
// Two kinds of versions at or below B are wanted all the same:
//
//   - The audit: extents drawn at random when the backup is opened, of those that the
//     map says did not change. They are handed out for the taker to compare with the
//     base. One that did change proves that the map is wrong.
//   - Bitmaps, until their group was listed: without it the scan cannot tell what
//     was in use at S from what was freed before, which the file may hold as sound as
//     on the day it was written.
//
// While the audit is drawn the backup wants everything, like a full one; what that
// kept in vain goes when it is narrowed.

// increment is what a Backup has to be an incremental.
type increment struct {
	base    block.LSN
	audit   map[block.ID]struct{}
	regions []byte     // the map block of the second level of the group
	extents []byte     // one of the first level
	listed  []block.ID // blocks of changed extents
	ahead   lookAhead
	changed changedGroup
	asked   uint64 // the group of which the system was told before its turn; 0: none
}

// changedGroup is the first blocks of a group's changed extents, as the map had them at
// some moment of the backup: each is as good as another, since what counts was marked
// before S was fixed.
type changedGroup struct {
	group uint64
	known bool
	list  []block.ID
}

// lookAhead is how much an incremental has to look at, by the map: the changed extents of
// each group, counted before the scan begins, between two of its turns. So a total is known
// soon, for a few reads. An extent is looked at for all of its blocks and carries one at
// least: how many of those that are looked at are carried shows on the way.
//
// Marks that are raised later make the scan look at more. That is not counted: a group
// weighs what it weighed when it was counted.
type lookAhead struct {
	extents []uint32 // changed ones of each group that was counted
	left    uint64   // of the groups that the scan has not come to
	looked  uint64   // blocks of changed extents that the scan is through with
	carried uint64   // of these
}

// takeChanged is takeRun, and counts what was looked at and what was carried: also what was
// handed out before.
func (b *Backup) takeChanged(run []block.ID, buf []byte, ids []block.ID) (out int, rest []block.ID, err error) {
	a, n := &b.inc.ahead, len(run)
	for _, id := range run {
		if b.live.IsDone(id) {
			a.carried++
		}
	}
	out, rest, err = b.takeRun(run, buf, ids)
	a.looked, a.carried = a.looked+uint64(n-len(rest)), a.carried+uint64(out)
	return out, rest, err
}

// countNext counts the changed extents of the next group; false if all were counted, or
// it is no incremental.
func (b *Backup) countNext() (bool, error) {
	if b.inc == nil {
		return false, nil
	}
	a, n := &b.inc.ahead, uint32(0)
	group := uint64(len(a.extents))
	if group == b.track.groups {
		return false, nil
	}
	if group%mapsAhead == 0 {
		b.announceMaps(group)
	}
	if err := b.eachChanged(group, func(block.ID) { n++ }); err != nil {
		return false, err
	}
	a.extents, a.left = append(a.extents, n), a.left+uint64(n)
	return true, nil
}

// mapsAhead is of how many groups map and bitmap are asked for at once.
const mapsAhead = 16

// announceMaps tells the system that map and bitmap of some groups will be read.
func (b *Backup) announceMaps(group uint64) {
	g := b.s.geo
	for end := min(group+mapsAhead, b.track.groups); group < end; group++ {
		b.file.WillRead(g.offset(g.bitmapOf(group)), int64(reserved-offsetBitmap)*int64(g.size))
	}
}

// expect works out how many blocks an incremental will have handed out in the end, as far
// as that is known.
func (b *Backup) expect() {
	if b.inc == nil || b.fwd.told || uint64(len(b.inc.ahead.extents)) < b.track.groups {
		return
	}
	a := &b.inc.ahead
	toLook := uint64(len(b.pending)) + extentBlocks*a.left
	// One of an extent's blocks at least, to begin with.
	share := float64(a.carried+extentBlocks) / float64(a.looked+extentBlocks*extentBlocks)
	more := uint64(math.Round(float64(toLook) * min(share, 1)))
	b.track.toLook.Store(max(a.looked+toLook, 1))
	if b.track.looked.Store(a.looked); toLook == 0 {
		b.track.looked.Store(b.track.toLook.Load())
	}
	total := max(b.handed, a.carried+more) // what was handed out before its turn is ahead still
	if toLook == 0 {
		total = b.handed
	}
	b.track.total.Store(total)
}

// ScanCost is what a backup's scan has read so far, in blocks.
type ScanCost struct {
	Blocks    uint64 // of the data file, by reads that bypass the cache
	MapBlocks uint64 // of the changed-block map, from RAM or from the data file
	Bitmaps   uint64 // from RAM or from the data file
}

// ScanCost is what the scan has read so far.
func (b *Backup) ScanCost() ScanCost {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.scanned
}

// checkBase refuses a base that the map does not reach back to. On a store that has
// failed it refuses all: what the system's cache shows of the map may be old.
func (s *Store) checkBase(base, lsn block.LSN) error {
	if err := s.state.failure(); err != nil {
		return fmt.Errorf("%w: only a full backup can be taken: %w", ErrBase, err)
	}
	if floor := s.mapFloor(); base < floor {
		return fmt.Errorf("%w: base %v is below %v, from where on changes are known", ErrBase, base, floor)
	}
	if base > lsn {
		return fmt.Errorf("%w: base %v is above the newest commit %v", ErrBase, base, lsn)
	}
	return nil
}

// makeIncremental turns a backup that has just been opened into an incremental.
func (b *Backup) makeIncremental(base block.LSN, audit int) error {
	if err := b.s.checkBase(base, b.info.LSN); err != nil {
		return err
	}
	g := b.s.geo
	b.info.Base = base
	b.inc = &increment{base: base, audit: map[block.ID]struct{}{}, regions: make([]byte, g.bitsEnd), extents: make([]byte, g.bitsEnd)}
	if err := b.drawAudit(audit); err != nil {
		return fmt.Errorf("draw blocks to audit: %w", err)
	}
	drawn := b.inc.audit
	b.live.Narrow(base, func(id block.ID) bool {
		_, audited := drawn[id]
		return audited || id == g.bitmapOf(g.groupOf(id))
	})
	return nil
}

// auditNear is how many extents are drawn of one group.
const auditNear = 4

// drawAudit draws up to n of the blocks in use of which the map says that they did
// not change. Where there are few of them it finds fewer.
//
// It draws extents, and all of an extent's blocks: they lie beside each other in the
// base, too, where one costs as much to read as all eight. And a mark that is too low is
// found by any of them. For the same reason a few are of one group: its bitmap in the
// base is read once.
func (b *Backup) drawAudit(n int) error {
	g, group := b.s.geo, uint64(0)
	for try := range 16 * max(n, 0) {
		if len(b.inc.audit) >= n {
			break
		}
		if try%auditNear == 0 {
			group = g.groupOf(block.ID(rand.Uint64N(uint64(b.info.HighWater))))
		}
		first := group * g.group
		id := block.ID(first + rand.Uint64N(min(g.group, uint64(b.info.HighWater)-first)))
		if g.isReserved(id) {
			continue
		}
		m := g.extentsOf(id)
		if known, err := b.readMarks(m, b.inc.extents); err != nil {
			return err
		} else if !known || getMark(b.inc.extents, m.at(id)) > b.inc.base {
			continue
		}
		extent := id - (id-m.first)%extentBlocks
		used, err := b.inUse(extent)
		if err != nil {
			return err
		}
		for i := range block.ID(extentBlocks) {
			if used>>i&1 != 0 && !g.isReserved(extent+i) && len(b.inc.audit) < n {
				b.inc.audit[extent+i] = struct{}{}
			}
		}
	}
	return nil
}

func (b *Backup) readMarks(m mapBlock, dst []byte) (bool, error) {
	b.scanned.MapBlocks++
	return b.s.readMarks(m.id, dst)
}

// inUse has a bit for each block of the extent that begins at first: its byte of the
// bitmap.
func (b *Backup) inUse(first block.ID) (byte, error) {
	g := b.s.geo
	r, err := b.bitmap(g.groupOf(first))
	if err != nil {
		return 0, err
	}
	defer r.Release()
	return r.Payload()[g.bitOf(first)/8], nil
}

func (b *Backup) bitmap(group uint64) (Block, error) {
	b.scanned.Bitmaps++
	r, err := b.s.get(b.s.geo.bitmapOf(group), b.view)
	if err != nil {
		return r, fmt.Errorf("read allocation bitmap: %w", err)
	}
	b.taken(r)
	return r, nil
}

// listChanges lists the blocks of a group that may have changed, and those to
// audit.
func (b *Backup) listChanges() error {
	b.inc.listed = b.inc.listed[:0]
	if err := b.changedExtents(); err != nil {
		return err
	}
	b.pending = b.pending[:0]
	for id := range b.inc.audit {
		if b.s.geo.groupOf(id) == b.group {
			b.pending = append(b.pending, id)
		}
	}
	slices.Sort(b.pending)
	audited := slices.Clone(b.pending)
	if err := b.keepInUse(); err != nil {
		return err
	}
	slices.Sort(b.pending)
	b.pending = slices.Compact(b.pending)
	if b.group > 0 && b.inc.asked == b.group {
		b.announce(audited) // the others were, before
	} else {
		b.announce(b.pending)
	}
	b.announceNext()
	return nil
}

// announcedMax is how many bytes of the file an incremental asks for before it reads
// them: few enough that others do not wait long for the disk.
const announcedMax = 1 << 20

// announce tells the system what of the data file will be read next. What changed lies
// scattered: one by one, the scan would wait for the disk once for each place.
func (b *Backup) announce(list []block.ID) { b.willRead(list, 1, gapMax, announcedMax) }

// announceNext announces what the map says of the group that comes next: it is fetched
// while this one is read. Where others need the disk it waits for its turn.
func (b *Backup) announceNext() {
	next := b.group + 1
	if next >= b.track.groups || !b.alone() {
		return
	}
	list, err := b.changedOf(next)
	if err != nil {
		return // it comes again when it is the group's turn
	}
	b.willRead(list, extentBlocks, 0, announcedMax)
	b.inc.asked = next
}

// changedOf is the first blocks of the changed extents of a group, valid until it is
// called for another one.
func (b *Backup) changedOf(group uint64) ([]block.ID, error) {
	c := &b.inc.changed
	if c.known && c.group == group {
		return c.list, nil
	}
	c.known, c.list = false, c.list[:0]
	err := b.eachChanged(group, func(first block.ID) { c.list = append(c.list, first) })
	c.known, c.group = err == nil, group
	return c.list, err
}

// changedExtents lists the blocks of the group's extents whose mark is above the base.
func (b *Backup) changedExtents() error {
	inc := b.inc
	if a := &inc.ahead; b.group < uint64(len(a.extents)) {
		a.left -= uint64(a.extents[b.group])
		a.extents[b.group] = 0 // should it be listed again
	}
	list, err := b.changedOf(b.group)
	for _, first := range list {
		for i := range block.ID(extentBlocks) {
			inc.listed = append(inc.listed, first+i)
		}
	}
	return err
}

// eachChanged calls fn with the first block of each extent of a group whose mark is above
// the base, or is not known.
func (b *Backup) eachChanged(group uint64, fn func(first block.ID)) error {
	g, inc := b.s.geo, b.inc
	second := g.regionsOf(group)
	known, err := b.readMarks(second, inc.regions)
	if err != nil {
		return err
	}
	for n := range uint64(offsetMapSecond - offsetMap) {
		m, loaded, read := g.extentBlock(group, n), false, false
		for first := m.first; first < m.end; first += regionBlocks {
			if known && getMark(inc.regions, second.at(first)) <= inc.base {
				continue
			}
			if !read {
				if loaded, err = b.readMarks(m, inc.extents); err != nil {
					return err
				}
				read = true
			}
			for at := first; at < first+regionBlocks; at += extentBlocks {
				if at < b.info.HighWater && (!loaded || getMark(inc.extents, m.at(at)) > inc.base) {
					fn(at)
				}
			}
		}
	}
	return nil
}

// keepInUse moves from listed to pending what was in use at S. Then the bitmap is
// not needed any more, unless it is carried.
func (b *Backup) keepInUse() error {
	g, id := b.s.geo, b.s.geo.bitmapOf(b.group)
	carried := false
	if len(b.inc.listed) > 0 {
		r, err := b.bitmap(b.group)
		if err != nil {
			return err
		}
		defer r.Release()
		bits := r.Payload()
		for _, at := range b.inc.listed {
			if at == metaBlock || !g.isReserved(at) && g.names(bits, at) {
				b.pending = append(b.pending, at)
			}
		}
		if carried = r.v.LSN > b.inc.base; carried {
			b.pending = append(b.pending, id)
		}
	}
	if !carried {
		b.done(id)
	}
	return nil
}

// carries decides about the version of a block that the backup sees. Only an
// incremental leaves any out.
func (b *Backup) carries(id block.ID, lsn block.LSN) (bool, error) {
	if b.inc == nil {
		return true, nil
	}
	_, audited := b.inc.audit[id]
	switch {
	case !audited:
		return lsn > b.inc.base, nil
	case lsn <= b.inc.base:
		return true, nil
	}
	b.s.distrustMap()
	b.s.logger.Error("changed-block map is behind its blocks: no base so far serves any more", "block", id.String(), "lsn", uint64(lsn), "base", uint64(b.inc.base))
	return false, fmt.Errorf("%w: block %v has LSN %v, but no mark above %v", ErrMapBehind, id, lsn, b.inc.base)
}

// getVersion returns the version of a block that the backup sees; ErrNotInUse, of an
// incremental, if that is not carried and therefore was not kept.
//
// If the block was freed since, there is no head, and its place may hold anything:
// what cannot be read there was not carried. But damage of a block that is in use must
// not be taken for that. One that was used again meanwhile has a head: look twice.
func (b *Backup) getVersion(id block.ID) (r Block, err error) {
	for range 2 {
		r, err = b.s.get(id, b.view)
		switch {
		case err == nil || b.inc == nil || b.live.Err() != nil:
			return r, err
		case errors.Is(err, ErrNotInUse) || b.s.isFree(id):
			return r, ErrNotInUse
		}
	}
	return r, err
}

// gone reports whether an error says that a block is not carried.
func (b *Backup) gone(id block.ID, err error) bool {
	if b.inc == nil || !errors.Is(err, ErrNotInUse) {
		return false
	}
	_, audited := b.inc.audit[id]
	return !audited && id != b.s.geo.bitmapOf(b.s.geo.groupOf(id))
}

// dropKnown drops from a run what is known, from RAM, not to be carried.
func (b *Backup) dropKnown(run []block.ID) []block.ID {
	return slices.DeleteFunc(run, func(id block.ID) (known bool) {
		if shadow.On {
			defer func() {
				if known {
					b.leftOut(id, nil)
				}
			}()
		}
		if _, audited := b.inc.audit[id]; audited {
			return false
		}
		l := b.s.cache.Latch(id)
		defer l.Unlock()
		v, err := b.s.find(l, id, b.view)
		if err != nil {
			return b.gone(id, err)
		}
		return v != nil && !v.Loading && v.LSN <= b.inc.base
	})
}

// endIncremental is io.EOF, unless the store has failed meanwhile: what was read of the
// map since is not to be trusted.
func (b *Backup) endIncremental() error {
	if err := b.s.state.failure(); err != nil {
		return fmt.Errorf("incremental at LSN %v: %w", b.info.LSN, err)
	}
	return io.EOF
}
