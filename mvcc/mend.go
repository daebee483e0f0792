package mvcc

import (
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

// BlockNeed is a damaged block that opening needs an image of, and whose it is.
type BlockNeed struct {
	Block    block.ID
	Database block.DatabaseID
	Timeline block.TimelineID
	History  []block.Fork // the timelines that led to Timeline, the newest first
	From, To block.LSN    // the image is to be as of a commit from From to To
	Cause    error        // what is wrong with the block

	// CheckHead is [Store.CheckHead]: whoever has the image has it from a repository, whose
	// head must lie in this history (R18).
	CheckHead func(repo [16]byte, h Head) error
}

// MendImage is an image of a block as of commit AsOf.
type MendImage struct {
	Image []byte
	AsOf  block.LSN
}

// mend makes a block whose place is damaged, and that nothing else has made good, out
// of an image that the opener has from elsewhere, and the log behind it. The proofs are
// those of RepairBlock. The block is dirty then: the cleaner writes it.
func (r *recovery) mend(id block.ID, cause error) error {
	s := r.s
	if s.opts.Mend == nil {
		return cause
	}
	v, oldest := s.log.Durable(), s.log.Oldest()
	got, err := s.opts.Mend(BlockNeed{
		Block: id, Database: s.database, Timeline: s.timeline, History: s.history(), From: oldest - 1, To: v, Cause: cause,
		CheckHead: s.CheckHead,
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w; no image of it: %w", cause, err)
	case got.AsOf > v || got.AsOf+1 < oldest:
		return fmt.Errorf("%w; the image is as of LSN %v, the log goes from %v to %v", cause, got.AsOf, oldest, v)
	}
	roller := NewRoller(s.geo.size, s.database)
	if err := roller.Track(id, got.Image, 0); err != nil {
		return errors.Join(cause, err)
	}
	if lsn := roller.blocks[id].lsn; lsn > got.AsOf {
		return errors.Join(cause, s.data.corrupt(id, fmt.Sprintf("an image as of commit %v has LSN %v", got.AsOf, lsn)))
	}
	err = s.log.Replay(got.AsOf+1, func(lsn block.LSN, body []byte, last bool) error {
		return roller.Apply(LogRecord{lsn, last, body})
	})
	if err != nil {
		return err
	}
	image, lsn, err := roller.Block(id)
	if err != nil {
		return errors.Join(cause, err)
	}
	frame, err := s.cache.NewFrame()
	if err != nil {
		return err
	}
	copy(frame, image)
	r.lsn = lsn
	t, _ := block.Verify(image, id, s.data.seed)
	r.install(&redoEntry{id: id, typ: t.Type}, frame, 0)
	s.logger.Warn("damaged block was made from an image given", "block", id.String(), "lsn", uint64(lsn), "cause", cause)
	return nil
}
