package snapshot

// breaking is snapshots being broken: under mu they end, and finish does without it what
// is left to do, once for all of them.
type breaking struct {
	set     *Set
	errs    []*BrokenError
	free    []*sublist   // of points that ended
	backups []*Backup    // that were broken, or had ended and not let go yet
	forward []forwarding // that fell forward instead
}

// backup breaks a backup, unless it has ended: that was told, or is nothing to tell. Then
// finish only helps to let go of what it held. mu is held, here and in what follows.
func (x *breaking) backup(b *Backup, why Reason, cause error) {
	x.backups = append(x.backups, b)
	if b.ended() {
		return
	}
	e := &BrokenError{ID: b.id, Kind: "backup", Owner: b.Owner, Label: b.Label, LSN: b.lsn, Reason: why, HeldBytes: b.exclusive, Cause: cause}
	b.broken.Store(e)
	x.set.broken++
	x.errs = append(x.errs, e)
}

// point breaks all readers of a point, which leaves Set.points.
func (x *breaking) point(p *point, why Reason, cause error) {
	e := &BrokenError{Kind: "reader", LSN: p.lsn, Reason: why, HeldBytes: p.exclusive(), Cause: cause}
	if r := p.readers.first; r != nil {
		e.ID, e.Owner, e.Label = r.id, r.Owner, r.Label
	}
	p.broken.Store(e)
	x.set.broken += uint64(p.readerCount())
	x.errs, x.free = append(x.errs, e), append(x.free, x.set.endPoint(p)...)
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
		x.free = append(x.free, x.set.endPoint(p)...)
	}
}

// finish lets go of what they held, and tells: in this order, because who is told may
// ask for room, and would wait for what is leaving. The caller holds no latch, and not mu.
func (x *breaking) finish() {
	x.set.release(x.free)
	for _, b := range x.backups {
		b.Close()
	}
	for _, f := range x.forward {
		f.finish()
	}
	if x.set.onBreak != nil {
		for _, e := range x.errs {
			x.set.onBreak(e)
		}
	}
}
