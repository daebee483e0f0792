package simfs

import (
	"io/fs"
	"maps"
	"path"
	"slices"
)

// Names lists every file and directory but the root, by its full name, sorted.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	f.walk(func(name string, _ *node) { names = append(names, name) })
	slices.Sort(names)
	return names
}

// walk visits every name but the root's.
func (f *FS) walk(visit func(name string, n *node)) {
	var within func(dir string, d *directory)
	within = func(dir string, d *directory) {
		for _, base := range slices.Sorted(maps.Keys(d.live)) {
			name, n := path.Join(dir, base), d.live[base]
			visit(name, n)
			if n.isDir() {
				within(name, n.dir)
			}
		}
	}
	within("/", f.root.dir)
}

// OpenFiles lists the names by which files are open, sorted, once for each time
// that it is open. Temporary files are "(temporary)" in their directory.
func (f *FS) OpenFiles() []string { return f.openNames(func(*file) bool { return true }) }

// TempFiles lists the temporary files that are open.
func (f *FS) TempFiles() []string { return f.openNames(func(o *file) bool { return o.node.temp }) }

func (f *FS) openNames(which func(*file) bool) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for o := range f.open {
		if which(o) {
			names = append(names, o.name)
		}
	}
	slices.Sort(names)
	return names
}

// Bytes returns what reads of the whole file would show.
func (f *FS) Bytes(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.regular(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n.live.size)
	n.live.read(b, 0)
	return b, nil
}

// FlipBits changes the byte at off by exclusive or with mask, in the cache and
// on disk: rot. A byte beyond the end stays unchanged and is an error.
func (f *FS) FlipBits(name string, off int64, mask byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.regular(name)
	if err != nil {
		return err
	}
	if off < 0 || off >= n.live.size {
		return &fs.PathError{Op: "flip bits", Path: name, Err: fs.ErrInvalid}
	}
	n.frozen = nil
	for _, c := range []*content{&n.live, &n.durable} {
		c.flip(off, mask)
	}
	for i := range n.pending {
		c := &n.pending[i]
		if at := off - c.off; at >= 0 && at < int64(len(c.data)) {
			c.data[at] ^= mask
		}
	}
	f.recount()
	return nil
}

func (c *content) flip(off int64, mask byte) {
	if off >= c.size {
		return
	}
	var b [1]byte
	c.read(b[:], off)
	b[0] ^= mask
	c.write(b[:], off)
}

func (f *FS) regular(name string) (*node, error) {
	n, err := f.lookup(name)
	if err == nil && n.isDir() {
		err = fs.ErrInvalid
	}
	if err != nil {
		return nil, &fs.PathError{Op: "inspect", Path: name, Err: err}
	}
	return n, nil
}
