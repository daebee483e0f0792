package simfs

import "slices"

// change is one change of a file that no Sync has covered yet.
type change struct {
	kind changeKind
	off  int64
	n    int64
	data []byte // of a write: whole sectors, as the cache showed them then
	size int64  // of the file after it, or sizeSame
	seq  int    // its number among all changes
}

type changeKind int

const (
	changeWrite    changeKind = iota
	changeResize              // to size
	changeAllocate            // n bytes from off on
	changePunch               // n bytes from off on
)

const sizeSame = -1

// structural tells whether a change has a part that is not data: those parts
// reach the disk in their order.
func (c *change) structural() bool { return c.kind != changeWrite || c.size != sizeSame }

// apply carries out the whole change.
func (c *change) apply(to *content) {
	if c.kind == changeWrite {
		to.write(c.data, c.off)
	}
	c.applyStructure(to)
}

// applyStructure carries out all of the change but the data.
func (c *change) applyStructure(to *content) {
	switch c.kind {
	case changeWrite:
		if c.size != sizeSame {
			to.size = c.size
		}
	case changeResize:
		to.resize(c.size)
	case changeAllocate:
		to.reserve(c.off, c.n)
		if c.size != sizeSame {
			to.size = c.size
		}
	case changePunch:
		to.free(c.off, c.off+c.n)
	}
}

// change makes a change in the cache and remembers it until a Sync.
func (n *node) change(c change) {
	c.applyStructure(&n.live)
	n.remember(c)
}

// write is change for data: p need not be whole sectors.
func (n *node) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	n.live.write(p, off)
	end := off + int64(len(p))
	c := change{kind: changeWrite, off: off - off%sectorBytes, size: sizeSame}
	if end > n.live.size {
		n.live.size, c.size = end, end
	}
	if n.temp {
		return
	}
	c.n = (end+sectorBytes-1)/sectorBytes*sectorBytes - c.off
	if c.n == int64(len(p)) {
		c.data = slices.Clone(p)
	} else {
		c.data = make([]byte, c.n)
		n.live.read(c.data, c.off)
	}
	n.remember(c)
}

// punch gives the whole pages of a hole back. What is left of it at its edges
// lies in pages that stay, and is zeros like those that anybody writes.
func (n *node) punch(off, end int64) {
	first := min((off+pageBytes-1)/pageBytes*pageBytes, end)
	last := max(end/pageBytes*pageBytes, first)
	n.writeZeros(off, first)
	if last > first {
		n.change(change{kind: changePunch, off: first, n: last - first, size: sizeSame})
	}
	n.writeZeros(last, end)
}

// writeZeros blanks a part of one page, as far as there is anything to blank.
func (n *node) writeZeros(off, end int64) {
	end = min(end, n.live.size)
	if off < end && n.live.missing(off, end-off) == 0 {
		n.write(make([]byte, end-off), off)
	}
}

// remember keeps a change for the next Sync or crash. Temporary files have
// neither.
func (n *node) remember(c change) {
	if !n.temp {
		*n.clock++
		c.seq = *n.clock
		n.pending = append(n.pending, c)
	}
}

// sync makes all that is pending durable: what the cache shows, then, unless it has lost
// something on the way.
func (n *node) sync() {
	switch {
	case len(n.pending) == 0:
		return
	case n.apart:
		for i := range n.pending {
			n.pending[i].apply(&n.durable)
		}
	default:
		n.durable = n.live.clone()
	}
	n.frozen, n.pending = nil, nil
}

func (n *node) failSync(how SyncFailure) {
	switch how {
	case SyncCacheNew:
		n.apart = n.apart || len(n.pending) > 0
		n.pending = nil
	case SyncCacheOld:
		n.pending = nil
		if !n.temp {
			n.live, n.apart = n.durable.clone(), false
		}
	}
}

// loseFrom has the data of pending changes from number from on reach no disk, and the next
// Sync tell of it. A temporary file has no next Sync.
func (n *node) loseFrom(from int, fault *Fault) {
	if n.temp || from >= len(n.pending) {
		return
	}
	n.pending = slices.Clone(n.pending) // moments have it, too
	for i := from; i < len(n.pending); i++ {
		n.pending[i].data = nil
	}
	n.apart, n.untold = true, fault
}

// tell is the error of writes that were lost, once. All else is durable.
func (n *node) tell() error {
	fault := n.untold
	if fault == nil {
		return nil
	}
	n.untold = nil
	if fault.Sync == SyncCacheOld {
		n.live, n.apart = n.durable.clone(), false
	}
	return fault.Err
}
