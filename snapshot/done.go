package snapshot

import "github.com/spillwaydb/spillway/block"

// doneSet is the set of blocks that a backup has in hand. It is kept in pages:
// a page that is full, or was never touched, costs no bitmap; so a backup in
// block order needs one bitmap at a time, and one out of order needs as many as
// there are regions it is in the middle of.
type doneSet struct {
	all   bool
	full  map[uint64]struct{} // pages wholly done, above the run
	run   uint64              // pages below it are wholly done
	pages map[uint64]*donePage
}

const donePageBits = 1 << 13

type donePage struct {
	bits [donePageBits / 64]uint64
	n    int
}

// heapBytes is what the set takes on the Go heap, twice.
func (d *doneSet) heapBytes() int64 {
	const page, full = 2 * (donePageBits/8 + 64), 2 * 32 // with their places in maps
	return int64(len(d.pages))*page + int64(len(d.full))*full
}

func (d *doneSet) has(id block.ID) bool {
	at, bit := uint64(id)/donePageBits, uint64(id)%donePageBits
	if d.all || at < d.run {
		return true
	}
	if _, ok := d.full[at]; ok {
		return true
	}
	p := d.pages[at]
	return p != nil && p.bits[bit/64]>>(bit%64)&1 != 0
}

func (d *doneSet) add(id block.ID) {
	if d.has(id) {
		return
	}
	at, bit := uint64(id)/donePageBits, uint64(id)%donePageBits
	p := d.pages[at]
	if p == nil {
		if d.pages == nil {
			d.pages = map[uint64]*donePage{}
			d.full = map[uint64]struct{}{}
		}
		p = &donePage{}
		d.pages[at] = p
	}
	p.bits[bit/64] |= 1 << (bit % 64)
	if p.n++; p.n == donePageBits {
		d.pageDone(at)
	}
}

// below says that every block below id needs nothing more: those not handed
// out were free. It makes whole pages cheap.
func (d *doneSet) below(id block.ID) {
	for d.run < uint64(id)/donePageBits {
		d.pageDone(d.run)
	}
}

func (d *doneSet) pageDone(at uint64) {
	delete(d.pages, at)
	if at != d.run {
		d.full[at] = struct{}{}
		return
	}
	for d.run++; ; d.run++ {
		if _, ok := d.full[d.run]; !ok {
			return
		}
		delete(d.full, d.run)
	}
}

func (d *doneSet) fill() { *d = doneSet{all: true} }

// Passed says that the backup's scan has handed out, or seen free, every block
// below id.
func (b *Backup) Passed(id block.ID) {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	if b.done.pages == nil {
		b.done.pages = map[uint64]*donePage{}
		b.done.full = map[uint64]struct{}{}
	}
	b.done.below(id)
	b.set.account()
}
