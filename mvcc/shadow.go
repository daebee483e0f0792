package mvcc

import (
	"errors"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
)

// What is checked in programs that are built with the tag invariants, against what was
// published (package shadow, whose comment says who tells it what, and when). Without the
// tag all of this is empty.

// published is what was published of each block.
func (s *Store) published() *shadow.Blocks { return s.cache.Shadow() }

// given proves that a view at a commit is given what it has to be. The caller has asked
// before whether the view was broken.
func (s *Store) given(r Block, at block.LSN, who string) {
	if shadow.On && s.geo.isVersioned(r.v.ID) {
		s.published().Given(r.v.ID, at, shadow.Version{LSN: r.v.LSN, Type: r.v.Type, Image: r.data}, who)
	}
}

// denied proves that a block which a reader was refused is not in use.
func (t *ReadTx) denied(id block.ID, err error) {
	if shadow.On && errors.Is(err, ErrNotInUse) && t.reader.Err() == nil {
		t.s.published().Denied(id, t.lsn, "a reader")
	}
}

// found proves that what was read from its place is what has to be there. Under the latch,
// before it is shown.
func (s *Store) found(v *blockcache.Version, frame []byte, fresh bool) {
	switch p := s.published(); {
	case !shadow.On:
	case !fresh:
		p.InPlace(v.ID, v.LSN, "it is read")
	case p.Found(v.ID, shadow.Version{LSN: v.LSN, Type: v.Type, Image: frame}):
		s.snapshots.Shown(v.ID, v)
	}
}

// stands reports whether what a backup has just done as of S counts: originals that it
// needed may be gone since it was broken, or fell forward.
func (b *Backup) stands() bool { return b.live.Err() == nil && !b.live.FellForward() }

// taken proves that a backup hands out, or goes by, the version that it sees.
func (b *Backup) taken(r Block) {
	if shadow.On && b.stands() {
		b.s.given(r, b.live.LSN(), "a backup")
	}
}

// takenFrom is taken for what was read from the data file past the cache.
func (b *Backup) takenFrom(id block.ID, image []byte, lsn block.LSN) {
	if shadow.On && b.stands() {
		b.s.published().Given(id, b.live.LSN(), shadow.Version{LSN: lsn, Image: image}, "a backup's scan")
	}
}

// leftOut proves that an incremental need not carry a block that it does not. With an
// error it says so itself.
func (b *Backup) leftOut(id block.ID, err error) {
	if shadow.On && err == nil && b.inc != nil && b.stands() {
		b.s.published().LeftOut(id, b.live.LSN(), b.inc.base)
	}
}

// caught proves that a backup that fell forward is given a version from behind F, or
// the one as of F.
func (b *Backup) caught(id block.ID, image []byte, t block.Trailer) {
	if shadow.On && b.live.Err() == nil {
		b.s.published().Caught(id, b.fwd.lsn, shadow.Version{LSN: t.LSN, Type: t.Type, Image: image})
	}
}

// checkSwept proves, for the tag invariants, that the version which a commit ended is
// there when it is decided who wants it.
func checkSwept(r replacedBlock, v *blockcache.Version) {
	if shadow.On && v == nil {
		shadow.Fail("block %v: the version that commit %v ended is not pending", r.id, r.until)
	}
}

// checkPicked proves that a head which is about to be written in place overwrites nothing
// that is wanted and has no other place (L4). Under the latch.
func (s *Store) checkPicked(l *blockcache.Latch, v *blockcache.Version) {
	if !shadow.On {
		return
	}
	s.published().Head(v.ID, v.LSN, false)
	if l.Head(v.ID) != v || inPlaceBehind(v) != nil || s.snapshots.InPlace(v.ID) != nil {
		shadow.Fail("block %v: version %v is picked to be written in place, over one that is wanted", v.ID, v.LSN)
	}
}

// checkBatch proves that what is written in place was published, is durable, and is not
// older than what is there (L6).
func (c *cleaner) checkBatch() {
	durable := c.s.log.Durable()
	for i := range c.picked {
		if p := &c.picked[i]; shadow.On && !c.s.geo.isMap(p.v.ID) {
			c.s.published().Overwrite(p.v.ID, shadow.Version{LSN: p.lsn, Type: p.v.Type, Image: p.image}, durable)
		}
	}
}
