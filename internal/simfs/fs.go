package simfs

import (
	"io/fs"
	"maps"
	"sync"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// capacityDefault is the size in bytes of a disk of which no test will see the
// end.
const capacityDefault = 1 << 40

// FS is a file system in memory. Names are slash-separated paths from its root;
// a relative name counts from the root too. Safe for concurrent use.
type FS struct {
	mu       sync.Mutex
	root     *node
	nextID   int
	open     map[*file]struct{}
	capacity int64 // pages
	used     int64 // pages

	events   int
	cutAt    int
	cutArmed bool
	dead     bool

	faults []*Armed
	trace  func(Event)
	before func(Event)
	moment func(Event, *Moment)
	clock  *int // numbers changes in their order; shared with the nodes
}

var _ vfs.FS = (*FS)(nil)

// New returns an empty file system with a root directory and 1 TiB of space.
func New() *FS {
	f := newFS(capacityDefault / pageBytes)
	f.root = f.newNode(fs.ModeDir | 0o700)
	f.root.links = 1
	return f
}

func newFS(capacityPages int64) *FS {
	return &FS{capacity: capacityPages, open: make(map[*file]struct{}), clock: new(int)}
}

// node is a file or a directory, whatever its names.
type node struct {
	id    int
	mode  fs.FileMode
	links int // names, as the cache shows them
	opens int // open files
	dir   *directory

	temp    bool
	locked  *file
	live    content // what reads show
	durable content // what the last good Sync left
	pending []change
	apart   bool   // pending does not lead from durable to live: some of it was lost
	untold  *Fault // lost writes that no Sync has told of
	clock   *int
	frozen  *content // clone of durable; nil if there is none of it as it is now
}

func (f *FS) newNode(mode fs.FileMode) *node {
	n := &node{id: f.nextID, mode: mode, clock: f.clock}
	f.nextID++
	if mode.IsDir() {
		n.dir = newDirectory(f.clock)
	} else {
		n.live, n.durable = newContent(), newContent()
	}
	return n
}

func (n *node) isDir() bool { return n.dir != nil }

// directory maps names to nodes. pending leads from durable to live.
type directory struct {
	live    map[string]*node
	durable map[string]*node
	same    bool // live and durable are one map, which is not changed
	pending []nameOp
	clock   *int
}

func newDirectory(clock *int) *directory {
	return &directory{live: make(map[string]*node), durable: make(map[string]*node), clock: clock}
}

// nameOp is one atomic change of a directory.
type nameOp struct {
	entries []entry
	seq     int // its number among all changes
}

// entry is a name and what it leads to afterwards; nil if nothing.
type entry struct {
	name string
	node *node
}

func (op nameOp) apply(entries map[string]*node) {
	for _, e := range op.entries {
		if e.node == nil {
			delete(entries, e.name)
		} else {
			entries[e.name] = e.node
		}
	}
}

// change makes a change of names that the next SyncDir makes durable.
func (d *directory) change(entries ...entry) {
	*d.clock++
	op := nameOp{entries, *d.clock}
	if d.same {
		d.live, d.same = maps.Clone(d.live), false
	}
	op.apply(d.live)
	d.pending = append(d.pending, op)
}

func (d *directory) sync() {
	d.durable, d.same = d.live, true
	d.pending = nil
}

// Kill returns the file system as a process finds it that is started after
// this one was killed: files and names are as they were, what was not synced is
// still not synced, and nothing is open or locked. After [FS.CutAfter] that is
// the end of the process, not of the power, at the event chosen. This FS, with
// all that is open on it, is dead and empty. Faults and hooks are not carried
// over.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := newFS(f.capacity)
	next.root, next.nextID, next.clock = f.root, f.nextID, f.clock
	f.clock = new(int)
	for file := range f.open {
		file.closed = true
		file.node.opens = 0
		file.node.locked, file.node.untold = nil, nil
	}
	clear(f.open)
	f.root = f.newNode(fs.ModeDir) // the nodes are next's, under its lock
	f.dead = true
	next.recount()
	return next
}

// SetCapacity sets how much the disk holds, in bytes, rounded down to whole
// pages of 4 KiB. Less than what is used is allowed: nothing can be added then.
func (f *FS) SetCapacity(capacityBytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = capacityBytes / pageBytes
}

// UsedBytes is the space that files take up, reserved space and open files
// without a name included.
func (f *FS) UsedBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used * pageBytes
}

func (f *FS) freePages() int64 { return max(f.capacity-f.used, 0) }

// recount counts afresh what is used.
func (f *FS) recount() {
	f.used = 0
	seen := make(map[*node]bool)
	add := func(n *node) {
		if !seen[n] {
			seen[n] = true
			f.used += n.live.pages
		}
	}
	f.walk(func(_ string, n *node) { add(n) })
	for file := range f.open {
		add(file.node)
	}
}

// forget returns the space of a node that nobody can reach any more.
func (f *FS) forget(n *node) {
	if n.links == 0 && n.opens == 0 && !n.isDir() {
		f.used -= n.live.pages
	}
}
