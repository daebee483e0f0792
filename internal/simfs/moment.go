package simfs

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Moment is the disk between two events: what is durable, and what is pending.
// It costs little to take, stays as it is whatever the file system does later,
// and is safe for concurrent use. [Moment.States] are the states that a power cut
// at this moment could leave.
type Moment struct {
	capacity int64
	nextID   int
	nodes    []*node         // as they were, by id; the root is the first
	then     map[*node]*node // from a node as it is to what it was
}

// Moments has fn called after each of [Events], with the event and the disk as it
// is then, in their order. fn must not call the file system. nil ends it.
func (f *FS) Moments(fn func(Event, *Moment)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moment = fn
}

// capture takes the moment. mu is held.
func (f *FS) capture() *Moment {
	now := f.reachable()
	m := &Moment{capacity: f.capacity, nextID: f.nextID, nodes: make([]*node, len(now)), then: make(map[*node]*node, len(now))}
	for i, n := range now {
		m.nodes[i] = n.freeze()
		m.then[n] = m.nodes[i]
	}
	return m
}

// freeze copies what of a node outlives the power. Pending changes are only ever
// added, and maps of durable names replaced as a whole, so both can be shared.
func (n *node) freeze() *node {
	then := &node{id: n.id, mode: n.mode}
	if n.isDir() {
		then.dir = &directory{durable: n.dir.durable, pending: slices.Clip(n.dir.pending)}
		return then
	}
	if n.frozen == nil {
		c := n.durable.clone()
		n.frozen = &c
	}
	then.durable, then.pending = *n.frozen, slices.Clip(n.pending)
	return then
}

// State is one state of the disk that a power cut at a moment could leave.
type State struct {
	moment *Moment
	choice choice
}

// Disk makes the state: a file system of its own, as [FS.Crash] returns it.
func (s State) Disk() *FS {
	c := s.choice
	return s.moment.crash(&fate{
		special: -1, chosen: &c, garbage: c.garbage,
		rng: rand.New(rand.NewPCG(uint64(c.at), uint64(c.from))),
	})
}

// Change is the number of the one change that the state is about: the states of one
// write that is torn in different places have it in common. 0: it is about no single one.
func (s State) Change() int { return s.choice.at }

// String says what is left of what was pending.
func (s State) String() string { return s.choice.String() }

// rest says what becomes of the changes that a choice is not about.
type rest uint8

const (
	restNone   rest = iota // lost
	restAll                // kept
	restBefore             // kept if they came before it
	restFile               // kept if they are of its file
	restOthers             // kept if they are of other files
)

var restNames = []string{"none else", "all else", "all before", "all of one file", "all but one file"}

// choice decides about each pending change by its number.
type choice struct {
	at       int  // the change that it is about; 0: none
	file     int  // node that restFile and restOthers mean
	whole    bool // at is kept
	torn     bool // at is a write of which some sectors reach the disk: its size is kept
	inside   bool // those in [from, to), otherwise those outside
	from, to int
	garbage  bool // what at extended and did not write is garbage
	rest     rest
}

func (c *choice) keeps(id, seq int) bool {
	if seq == c.at {
		return c.whole
	}
	switch c.rest {
	case restAll:
		return true
	case restBefore:
		return seq < c.at
	case restFile:
		return id == c.file
	case restOthers:
		return id != c.file
	}
	return false
}

func (c *choice) tears(seq int) bool { return c.torn && seq == c.at }

func (c *choice) reaches(i int) bool { return (c.from <= i && i < c.to) == c.inside }

func (c *choice) String() string {
	kept := restNames[c.rest]
	switch {
	case c.rest == restFile || c.rest == restOthers:
		return fmt.Sprintf("%s (node %d)", kept, c.file)
	case c.at == 0:
		return map[rest]string{restNone: "nothing of what is pending", restAll: "all of what is pending"}[c.rest]
	case c.torn:
		where := map[bool]string{true: "of", false: "but"}[c.inside]
		kept += fmt.Sprintf(" and sectors %s [%d,%d) of change %d", where, c.from, c.to, c.at)
	case c.whole:
		kept += fmt.Sprintf(" and change %d", c.at)
	default:
		kept += fmt.Sprintf(" and not change %d", c.at)
	}
	if c.garbage {
		kept += ", garbage where it extends the file"
	}
	return kept
}

// pendingChange is one change that a cut may keep or lose.
type pendingChange struct {
	seq     int
	sectors int  // of a write
	extends bool // a write that makes the file longer
}

// States lists the states that a cut at this moment could leave, by class: nothing
// of what is pending, and all of it; every prefix; all but one change, a lost name
// included, and only one; a write torn at each sector, on top of what came before it
// and of everything else; a size without its data, as zeros and as garbage; one
// file's changes alone, and all but those. Many of them are equal: see [Summer].
func (m *Moment) States() []State {
	changes, files := m.pending()
	list := []choice{{rest: restNone}, {rest: restAll}}
	for _, id := range files {
		list = append(list, choice{file: id, rest: restFile}, choice{file: id, rest: restOthers})
	}
	for _, c := range changes {
		list = append(list,
			choice{at: c.seq, whole: true, rest: restBefore},
			choice{at: c.seq, whole: true, rest: restNone},
			choice{at: c.seq, rest: restAll})
		list = append(list, c.torn()...)
	}
	states := make([]State, len(list))
	for i := range list {
		states[i] = State{m, list[i]}
	}
	return states
}

// pending lists what a cut may keep or lose, and the files that have any of it if
// there are several.
func (m *Moment) pending() (changes []pendingChange, files []int) {
	for _, n := range m.nodes {
		before := len(changes)
		if n.isDir() {
			for _, op := range n.dir.pending {
				changes = append(changes, pendingChange{seq: op.seq})
			}
		}
		for i := range n.pending {
			c := &n.pending[i]
			changes = append(changes, pendingChange{c.seq, len(c.data) / sectorBytes, c.kind == changeWrite && c.size != sizeSame})
		}
		if len(changes) > before {
			files = append(files, n.id)
		}
	}
	if len(files) < 2 {
		files = nil
	}
	slices.SortFunc(changes, func(a, b pendingChange) int { return cmp.Compare(a.seq, b.seq) })
	return changes, files
}

// torn lists what a write may leave by halves.
func (c pendingChange) torn() (list []choice) {
	for _, rest := range []rest{restBefore, restAll} {
		if c.extends {
			list = append(list,
				choice{at: c.seq, torn: true, inside: true, rest: rest},
				choice{at: c.seq, torn: true, inside: true, garbage: true, rest: rest})
		}
		for s := 1; s < c.sectors; s++ {
			list = append(list,
				choice{at: c.seq, torn: true, inside: true, to: s, rest: rest},
				choice{at: c.seq, torn: true, to: s, rest: rest})
		}
	}
	for s := range c.sectors {
		if c.sectors > 2 {
			list = append(list, choice{at: c.seq, torn: true, from: s, to: s + 1, rest: restAll})
		}
	}
	return list
}
