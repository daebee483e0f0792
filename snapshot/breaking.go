package snapshot

import "github.com/spillwaydb/spillway/internal/yield"

// breaking is snapshots being broken: under mu they end, and finish or finishBehind does
// without it what is left to do, once for all of them.
type breaking struct {
	set     *Set
	errs    []*BrokenError
	leaves  []*departure
	forward []forwarding // that fell forward instead
}

// backup breaks a backup, unless it has ended: that was told, or is nothing to tell, and
// somebody is letting go of what it held. mu is held, here and in what follows.
func (x *breaking) backup(b *Backup, why Reason, cause error) {
	if b.ended() {
		return
	}
	e := &BrokenError{ID: b.id, Kind: "backup", Owner: b.Owner, Label: b.Label, LSN: b.lsn, Reason: why, HeldBytes: b.exclusive, Cause: cause}
	b.broken.Store(e)
	b.done.fill() // no new original is wanted from here on
	x.set.broken++
	x.errs = append(x.errs, e)
	x.leave(b.depart())
}

// leave takes note of a departure, or nil.
func (x *breaking) leave(d *departure) {
	if d != nil {
		x.leaves = append(x.leaves, d)
	}
}

// point breaks all readers of a point, which leaves Set.points.
func (x *breaking) point(p *point, why Reason, cause error) {
	e := &BrokenError{Kind: "reader", LSN: p.lsn, Reason: why, HeldBytes: p.exclusive(), Cause: cause}
	if r := p.readers.first; r != nil {
		e.ID, e.Owner, e.Label = r.id, r.Owner, r.Label
	}
	p.broken.Store(e)
	x.set.broken += uint64(p.readerCount())
	x.errs = append(x.errs, e)
	x.leave(x.set.endPoint(p))
}

// reader breaks one reader that has a name.
func (x *breaking) reader(r *Reader, why Reason) {
	p := r.point
	e := &BrokenError{ID: r.id, Kind: "reader", Owner: r.Owner, Label: r.Label, LSN: p.lsn, Reason: why}
	if p.readerCount() == 1 {
		e.HeldBytes = p.exclusive()
	}
	r.broken.Store(e)
	x.set.broken++
	x.errs = append(x.errs, e)
	p.readers.remove(r)
	if !p.horizon && !p.ended && p.seal() {
		x.leave(x.set.endPoint(p))
	}
}

// finish tells of those that fell forward, lets go of all that is leaving, and tells of
// those that were broken. The caller holds no latch, and not mu.
func (x *breaking) finish() {
	x.tellForward()
	for _, d := range x.leaves {
		x.set.letGo(d)
	}
	x.tell()
}

// finishBehind is finish for who has no time for more than a slice.
func (x *breaking) finishBehind() {
	x.tellForward()
	x.set.leaveBehind(x.leaves)
	x.tell()
}

func (x *breaking) tellForward() {
	yield.At("snapshots ended, nobody told")
	for _, f := range x.forward {
		f.tell()
	}
}

func (x *breaking) tell() {
	if x.set.onBreak != nil {
		for _, e := range x.errs {
			x.set.onBreak(e)
		}
	}
}
