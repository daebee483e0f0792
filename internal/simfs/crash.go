package simfs

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

// Mode says what a power cut leaves of what was not synced.
type Mode int

const (
	// DropAll leaves nothing of it.
	DropAll Mode = iota
	// KeepAll leaves all of it. After CutAfter(k) that is the run's first k
	// events, exactly.
	KeepAll
	// Random leaves any part of it that the model of the package comment
	// allows: mostly each change by its own chance, now and then exactly one,
	// or all but one.
	Random
)

// Crash returns a file system as a power cut at this moment could leave it:
// everything in it is synced, nothing is open or locked, there are no faults.
// The file system itself goes on unharmed, so that many crashes can be taken at
// one moment. rng is used by Random only. Safe for concurrent use, but for rng.
func (f *FS) Crash(rng *rand.Rand, mode Mode) *FS {
	f.mu.Lock()
	m := f.capture()
	f.mu.Unlock()
	return m.crash(newFate(rng, mode, m.nodes))
}

// crash works out what is left of the moment by one fate.
func (m *Moment) crash(fate *fate) *FS {
	after := newFS(m.capacity)
	c := crash{m: m, clock: after.clock, entries: make(map[*node]map[string]*node), copies: make(map[*node]*node, len(m.nodes))}
	for _, n := range m.nodes {
		if n.isDir() {
			c.entries[n] = n.dir.survivors(n.id, fate)
		}
	}
	after.root = c.rebuild(m.nodes[0])
	after.nextID = m.nextID
	for _, n := range m.nodes {
		if copied := c.copies[n]; copied != nil && !n.isDir() {
			copied.durable = n.survivor(fate)
			copied.live = copied.durable.clone()
			after.used += copied.live.pages
		}
	}
	return after
}

// crash is one crash being worked out.
type crash struct {
	m       *Moment
	clock   *int                       // of the file system that is left
	entries map[*node]map[string]*node // what is left of each directory
	copies  map[*node]*node
}

// rebuild copies the tree of names that is left; contents come later, in an
// order that does not depend on it.
func (c *crash) rebuild(n *node) *node {
	if copied := c.copies[n]; copied != nil {
		copied.links++
		return copied
	}
	copied := &node{id: n.id, mode: n.mode, links: 1, clock: c.clock}
	c.copies[n] = copied
	if n.isDir() {
		live := make(map[string]*node, len(c.entries[n]))
		for name, child := range c.entries[n] {
			live[name] = c.rebuild(c.m.then[child])
		}
		copied.dir = &directory{live: live, durable: live, same: true, clock: c.clock}
	}
	return copied
}

// reachable lists, in a fixed order, the nodes that some crash could leave.
func (f *FS) reachable() []*node {
	seen := map[*node]bool{f.root: true}
	nodes := []*node{f.root}
	add := func(n *node) {
		if n != nil && !seen[n] {
			seen[n] = true
			nodes = append(nodes, n)
		}
	}
	for i := 0; i < len(nodes); i++ {
		if !nodes[i].isDir() {
			continue
		}
		for _, child := range nodes[i].dir.durable {
			add(child)
		}
		for _, op := range nodes[i].dir.pending {
			for _, entry := range op.entries {
				add(entry.node)
			}
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	return nodes
}

// survivors returns the names left of a directory.
func (d *directory) survivors(id int, fate *fate) map[string]*node {
	if len(d.pending) == 0 {
		return d.durable
	}
	entries := maps.Clone(d.durable)
	for _, op := range d.pending {
		if fate.keeps(id, op.seq) {
			op.apply(entries)
		}
	}
	return entries
}

// span is a range of bytes.
type span struct{ start, end int64 }

func (s span) touches(off, n int64) bool { return off < s.end && off+n > s.start }

// survivor returns what is left of a file.
func (n *node) survivor(fate *fate) content {
	left := n.durable.clone()
	if len(n.pending) == 0 {
		return left
	}
	structureLost := false
	var detached []span // data written here later went to blocks that no file has
	for i := range n.pending {
		c := &n.pending[i]
		if c.structural() && !structureLost {
			structureLost = !fate.keepsSize(n.id, c.seq)
		}
		if c.kind == changeWrite {
			fate.writeSectors(&left, n.id, c, detached)
		}
		if !structureLost {
			c.applyStructure(&left)
			continue
		}
		switch c.kind {
		case changeResize:
			detached = append(detached, span{c.size, 1<<63 - 1})
		case changePunch:
			detached = append(detached, span{c.off, c.off + c.n})
		}
	}
	left.trim()
	return left
}
