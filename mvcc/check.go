package mvcc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// CheckResult is what Check found.
type CheckResult struct {
	LSN      block.LSN
	Blocks   uint64 // that were read
	Bytes    int64
	Problems []string // damage, at most problemsMax lines; empty if all is sound
	// Damaged are blocks whose place in the data file is bad, at most damagedMax, each once.
	// Damage of what they hold, which only the front door can tell, is in Problems alone.
	Damaged []DamagedBlock
}

// DamagedBlock is a block whose place in the data file does not hold what belongs there.
type DamagedBlock struct {
	Block  block.ID `json:"block"`
	Offset int64    `json:"offset"` // in the data file, bytes
	Reason string   `json:"reason"`
}

const (
	problemsMax = 100
	damagedMax  = 256
)

func (r *CheckResult) problem(err error) {
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, err.Error())
	}
}

// damaged lists the block that err is about, if it is about one.
func (r *CheckResult) damaged(err error) {
	var c *block.CorruptError
	if !errors.As(err, &c) || c.Block == block.NoBlock || len(r.Damaged) == damagedMax ||
		slices.ContainsFunc(r.Damaged, func(d DamagedBlock) bool { return d.Block == c.Block }) {
		return
	}
	r.Damaged = append(r.Damaged, DamagedBlock{c.Block, c.Offset, c.Reason})
}

// Check reads every block in use from the disk, as of now and while writers go
// on, and proves what the front door keeps in them (Options.CheckTrees): every
// block in use is reached once, and no free one. Damage is listed in the
// result; an error means that Check could not go on. progress, if not nil, is
// told now and then.
func (s *Store) Check(ctx context.Context, progress func(done, total uint64)) (CheckResult, error) {
	t, err := s.BeginSnapshot(SnapshotOptions{Owner: "check"})
	if err != nil {
		return CheckResult{}, err
	}
	defer t.Close()
	c := checker{s: s, ctx: ctx, t: t, progress: progress, result: CheckResult{LSN: t.lsn}, seen: newBlockBits(s.geo)}
	if err := c.blocks(); err != nil {
		return c.result, fmt.Errorf("check: %w", err)
	}
	if err := c.trees(); err != nil {
		return c.result, fmt.Errorf("check: %w", err)
	}
	return c.result, nil
}

type checker struct {
	s        *Store
	ctx      context.Context // of one call of Check
	t        *ReadTx
	progress func(done, total uint64)
	result   CheckResult
	seen     blockBits // that the front door reached
}

// blocks verifies every block in use, and the changed-block map.
func (c *checker) blocks() error {
	g := c.s.geo
	total := c.t.meta.inUse
	if err := c.place(metaBlock); err != nil { // RAM would hide it
		return err
	}
	for group := range g.groups(c.t.meta.highWater) {
		if err := c.s.checkMap(group); err != nil {
			return err
		}
		if err := c.place(g.bitmapOf(group)); err != nil {
			return err
		}
		bitmap, err := c.t.Block(g.bitmapOf(group))
		if err != nil {
			if c.damageOf(err) {
				continue
			}
			return err
		}
		var ids []block.ID
		g.eachInUse(group, bitmap.Payload(), func(id block.ID) { ids = append(ids, id) })
		bitmap.Release()
		for _, id := range ids {
			if err := c.block(id); err != nil {
				return err
			}
			if c.result.Blocks%1024 == 0 && c.progress != nil {
				c.progress(c.result.Blocks, total)
			}
		}
	}
	return nil
}

func (c *checker) block(id block.ID) error {
	if c.result.Blocks%256 == 0 {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
	}
	c.result.Blocks++
	c.result.Bytes += int64(c.s.geo.size)
	if err := c.s.verifyInPlace(id); err != nil {
		if c.damageOf(err) {
			return nil // the cache may not have noticed; once is enough
		}
		return err
	}
	b, err := c.t.Block(id)
	if err != nil {
		if c.damageOf(err) {
			return nil
		}
		return err
	}
	b.Release()
	return nil
}

// place verifies a block's image on the disk, if that is where its newest version is.
func (c *checker) place(id block.ID) error {
	err := c.s.verifyInPlace(id)
	if err == nil || c.damageOf(err) {
		return nil
	}
	return err
}

// damageOf is damage, of a block's place.
func (c *checker) damageOf(err error) bool {
	if !c.damage(err) {
		return false
	}
	c.result.damaged(err)
	return true
}

// damage notes damage and reports whether err was that.
func (c *checker) damage(err error) bool {
	if errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrNotInUse) {
		c.result.problem(err)
		return true
	}
	return false
}

// verifyInPlace reads a block's image from the disk, if the data file is where
// its newest version is. A clean frame would hide the damage.
func (s *Store) verifyInPlace(id block.ID) error {
	l := s.cache.Latch(id)
	h := l.Head(id)
	clean := h != nil && h.InPlace && !h.Dirty && !h.Loading && !h.Freed
	if !clean {
		l.Unlock()
		return nil // it is read through the cache, or written again soon
	}
	lsn := h.LSN
	l.Unlock()
	b := make([]byte, s.geo.size)
	t, err := s.data.read(id, b)
	if err == nil && t.LSN == lsn {
		return nil
	}
	l.Lock()
	defer l.Unlock()
	if now := l.Head(id); now != h || !h.InPlace || h.Dirty || h.LSN != lsn {
		return nil // it was overwritten meanwhile
	}
	if err == nil {
		err = s.data.corrupt(id, fmt.Sprintf("it has LSN %v where %v was written", t.LSN, lsn))
	}
	return err
}

// trees asks the front door to prove its structure, and compares what it
// reached with what is allocated.
func (c *checker) trees() error {
	if c.s.opts.CheckTrees == nil {
		return nil
	}
	err := c.s.opts.CheckTrees(c.ctx, c.t, c.visit)
	if err != nil && !c.damage(err) {
		return err
	}
	if err != nil {
		return nil // what it did not come to would be reported as lost
	}
	g := c.s.geo
	for group := range g.groups(c.t.meta.highWater) {
		bitmap, err := c.t.Block(g.bitmapOf(group))
		if err != nil {
			return err
		}
		g.eachInUse(group, bitmap.Payload(), func(id block.ID) {
			if !c.seen.has(id) {
				c.result.problem(c.s.data.corrupt(id, "it is in use but nothing refers to it"))
			}
		})
		bitmap.Release()
	}
	return nil
}

// visit is told of each block that the front door reaches.
func (c *checker) visit(id block.ID) error {
	g := c.s.geo
	if id >= c.t.meta.highWater || g.isReserved(id) {
		return c.s.data.corrupt(id, "something refers to it, but it cannot be in use")
	}
	if !c.seen.add(id) {
		return c.s.data.corrupt(id, "it is referred to twice")
	}
	bitmap, err := c.t.Block(g.bitmapOf(g.groupOf(id)))
	if err != nil {
		return err
	}
	defer bitmap.Release()
	if !g.names(bitmap.Payload(), id) {
		return c.s.data.corrupt(id, "something refers to it, but it is free")
	}
	return nil
}
