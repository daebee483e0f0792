package snapshot

import (
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// doneSet is the set of blocks that a backup has in hand. It is kept in pages:
// a page that is full, or was never touched, costs no bitmap, and one of which a few
// blocks are done has a list; so a backup in block order needs one bitmap at a time,
// and one out of order needs as many as there are regions it is in the middle of.
type doneSet struct {
	all   bool
	full  map[uint64]struct{} // pages wholly done, above the run
	run   uint64              // pages below it are wholly done
	pages map[uint64]*donePage
	dense int // of pages, those with a bitmap
}

// A page is of donePageBits blocks. It has a list for the first doneFew of them that
// are done, so that it fills 64 bytes.
const (
	donePageBits = 1 << 13
	doneFew      = 24
)

type donePage struct {
	n    int
	few  [doneFew]uint16            // the first n, while there is no bitmap
	bits *[donePageBits / 64]uint64 // nil: few are done
}

// DoneBytesMax is what a block that is done out of order takes on the Go heap at
// most, twice: alone on a page, with its place in the map.
const DoneBytesMax = 2 * (64 + 40)

// heapBytes is what the set takes on the Go heap, twice.
func (d *doneSet) heapBytes() int64 {
	const bitmap, full = 2 * donePageBits / 8, 2 * 32
	return int64(len(d.pages))*DoneBytesMax + int64(d.dense)*bitmap + int64(len(d.full))*full
}

// has reports whether block at of the page is done.
func (p *donePage) has(at uint64) bool {
	if p.bits != nil {
		return p.bits[at/64]>>(at%64)&1 != 0
	}
	return slices.Contains(p.few[:p.n], uint16(at))
}

// add adds a block that the page does not have; true if it has a bitmap since.
func (p *donePage) add(at uint64) (dense bool) {
	if p.bits == nil && p.n < doneFew {
		p.few[p.n] = uint16(at)
		p.n++
		return false
	}
	if p.bits == nil {
		p.bits, dense = new([donePageBits / 64]uint64), true
		for _, at := range p.few {
			p.bits[at/64] |= 1 << (at % 64)
		}
	}
	p.bits[at/64] |= 1 << (at % 64)
	p.n++
	return dense
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
	return p != nil && p.has(bit)
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
	if p.add(bit) {
		d.dense++
	}
	if p.n == donePageBits {
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
	if p := d.pages[at]; p != nil && p.bits != nil {
		d.dense--
	}
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
