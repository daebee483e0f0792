package mvcc

import (
	"context"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/snapshot"
)

// # The order in which a backup hands out blocks
//
//  1. Originals in hand.
//  2. Blocks that change often, the hottest first; those of a batch in the order of
//     the file, neighbours in one read.
//  3. The rest in the order of the file, group by group.
//
// A step goes on to the next kind only when there is nothing of the one before.
//
// # Why originals come before hot blocks
//
// By a time at which n blocks were handed out, of x blocks the version at S was
// replaced. Of these at most n are in hand, so at least x - n are kept as originals,
// whatever the order. Who takes originals first, as long as there are some, hands out
// nothing but blocks of these x, and keeps x - n: no order has a lower peak. One that
// takes a hot block while originals wait can only hope that it will be of the x, too.
// So hot blocks pay while the queue is empty: under a load that comes in bursts, before
// it rises, and when less changes than is handed out. They lower the peak there, and
// the number of originals made everywhere (see heat.go).
//
// # What must hold
//
// A hot block is handed out by the same code as in the scan, takeRun, with the same
// proofs (R4, R10), and only if
//
//   - it was in use at S: so says the bitmap at S, which the backup wants until its
//     group is listed (R9). Hence only blocks of groups that were not listed yet are
//     looked at, and bitmaps themselves are left to the listing;
//   - of an incremental: the mark of its extent is above the base.
//
// What is done is not handed out again, whoever comes to it (L3): so the scan leaves
// out what was hot, and the count at the end is the same. An error leaves what it came
// to in its place, for the next call.
//
// Heat changes while a backup runs. It is looked at when the backup begins, and again
// before each group.
//
// # What it takes
//
// The list of hot blocks is asked of the budget (L9); if that refuses there is none,
// and the order is that of the file. Blocks that are done out of order take pages of
// the done set: how many hot blocks a backup hands out is bounded, see hotShare.

// hotBatch is how many hot blocks are sorted by place and read together: enough to
// find neighbours, so few that the batch is of one heat.
const hotBatch = 64

// hotListBytes is what a block takes in the list, and while that is made.
const hotListBytes = 16

// hotShare: this part of MaxRAM may be taken by hot blocks that are done.
const hotShare = 32

// hotOrder are the hot blocks of a backup. It belongs to Next.
type hotOrder struct {
	off     bool       // the order is that of the file
	looked  bool       // for the group that is listed next
	list    []block.ID // that were not looked at, the hottest first
	run     []block.ID // of the batch: in use at S and perhaps wanted, in file order
	charged int64      // for list
	taken   int        // handed out since the backup began
}

// lookForHot fills the list with the hot blocks of groups that were not listed yet.
func (b *Backup) lookForHot() {
	h := &b.hot
	h.looked = true
	h.drop(b)
	if h.off {
		return
	}
	s := b.s
	least, n := s.heat.hot(b.info.Blocks)
	if n == 0 || b.Charge(hotListBytes*int64(n)) != nil {
		return
	}
	h.charged = hotListBytes * int64(n)
	first := block.ID(b.group * s.geo.group)
	list := slices.DeleteFunc(s.heat.hotter(least, n), func(id block.ID) bool {
		return id < first || id >= b.info.HighWater || s.geo.isReserved(id) || b.live.IsDone(id)
	})
	most := int(s.opts.MaxRAM/hotShare/snapshot.DoneBytesMax) - h.taken
	h.list = list[:min(len(list), max(most, 0))]
	if len(h.list) == 0 {
		h.drop(b)
	}
}

// drop gives the list back.
func (h *hotOrder) drop(b *Backup) {
	if h.charged > 0 {
		b.Uncharge(h.charged)
	}
	h.list, h.run, h.charged = nil, nil, 0
}

// fromHot hands out the next hot blocks; none means that there are no more for now.
func (b *Backup) fromHot(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	h := &b.hot
	for len(h.run) > 0 || len(h.list) > 0 {
		if len(h.run) == 0 {
			if err := b.nextHot(); err != nil {
				return 0, err
			}
			continue
		}
		if b.pace != nil && !b.hurry.Load() {
			b.pace.rest(ctx)
		}
		run := h.run[:b.stretch(h.run, len(ids), gapMax)]
		h.run = h.run[len(run):]
		out, rest, err := b.takeRun(run, buf, ids)
		if err != nil {
			h.run = slices.Concat(rest, h.run)
		}
		h.taken += out
		b.cost.BlocksHot += uint64(out)
		if out > 0 || err != nil {
			return out, err
		}
	}
	h.drop(b)
	return 0, nil
}

// nextHot takes the next batch off the list.
func (b *Backup) nextHot() error {
	h := &b.hot
	n := min(len(h.list), hotBatch)
	batch := slices.Clone(h.list[:n])
	slices.Sort(batch)
	batch, err := b.usedAndChanged(slices.Compact(batch)) // whatever the table says, each once
	if err != nil {
		return err
	}
	h.run, h.list = batch, h.list[n:]
	return nil
}

// usedAndChanged leaves those blocks of a sorted batch that were in use at S and, of
// an incremental, lie in extents that changed since the base.
func (b *Backup) usedAndChanged(batch []block.ID) ([]block.ID, error) {
	g := b.s.geo
	out := batch[:0]
	for len(batch) > 0 {
		group := g.groupOf(batch[0])
		n := 1
		for n < len(batch) && g.groupOf(batch[n]) == group {
			n++
		}
		r, err := b.bitmap(group)
		if err != nil {
			return nil, err
		}
		bits := r.Payload()
		for _, id := range batch[:n] {
			if g.names(bits, id) {
				out = append(out, id)
			}
		}
		r.Release()
		batch = batch[n:]
	}
	return b.dropUnchanged(out)
}

// dropUnchanged leaves out, of an incremental, what lies in extents without a mark
// above the base.
func (b *Backup) dropUnchanged(batch []block.ID) ([]block.ID, error) {
	if b.inc == nil {
		return batch, nil
	}
	var m mapBlock
	known := false
	out := batch[:0]
	for _, id := range batch {
		if id >= m.end {
			var err error
			m = b.s.geo.extentsOf(id)
			if known, err = b.readMarks(m, b.inc.extents); err != nil {
				return nil, err
			}
		}
		if !known || getMark(b.inc.extents, m.at(id)) > b.inc.base {
			out = append(out, id)
		}
	}
	return out, nil
}
