package mvcc

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// buildMap makes the changed-block map of a database that is built from block
// images (R16): an extent's mark is the highest LSN in their trailers. So a
// restored database can be the source of an incremental from any base that it
// has in its history; its floor is 0. Freed blocks have no trailer, and need no mark:
// nobody carries them, and the bitmap that frees them has one.
//
// Marks are kept for a few groups at a time, those that were told last; the others
// are in their places in the file, and come back if more of them is told.
type buildMap struct {
	file vfs.File
	geo  geometry
	seed block.Seed
	lsn  block.LSN // of the state that is built
	most int       // groups kept in RAM

	mu     sync.Mutex
	groups []*groupMarks // the one told last is last
	begun  map[uint64]struct{}
	buf    []byte // the map blocks of a group
	failed error
}

// groupMarks are the marks of a group's extents.
type groupMarks struct {
	group uint64
	marks []block.LSN
}

// buildMapBytes is what the marks of groups in RAM may take, at least one.
const buildMapBytes = 4 << 20

func newBuildMap(file vfs.File, geo geometry, seed block.Seed, lsn block.LSN) *buildMap {
	return &buildMap{
		file: file, geo: geo, seed: seed, lsn: lsn, most: max(1, buildMapBytes/int(geo.group)), // 8 bytes for 8 blocks
		begun: map[uint64]struct{}{}, buf: make([]byte, (reserved-offsetMap)*geo.size),
	}
}

// told is told the LSN of each block. Safe for concurrent use. Errors come with
// finish.
func (m *buildMap) told(id block.ID, lsn block.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return
	}
	g, err := m.of(m.geo.groupOf(id))
	if err != nil {
		m.failed = err
		return
	}
	at := m.geo.bitOf(id) >> extentShift
	g.marks[at] = max(g.marks[at], lsn)
}

// of returns the marks of a group.
func (m *buildMap) of(group uint64) (*groupMarks, error) {
	at := slices.IndexFunc(m.groups, func(g *groupMarks) bool { return g.group == group })
	if at == len(m.groups)-1 && at >= 0 {
		return m.groups[at], nil
	}
	var g *groupMarks
	switch {
	case at >= 0:
		g = m.groups[at]
		m.groups = slices.Delete(m.groups, at, at+1)
	case len(m.groups) >= m.most:
		g = m.groups[0]
		if err := m.write(g); err != nil {
			return nil, err
		}
		m.groups = slices.Delete(m.groups, 0, 1)
		clear(g.marks)
	default:
		g = &groupMarks{marks: make([]block.LSN, m.geo.group/extentBlocks)}
	}
	if at < 0 {
		g.group = group
		if err := m.read(g); err != nil {
			return nil, err
		}
	}
	m.groups = append(m.groups, g)
	return g, nil
}

// write puts a group's map blocks of both levels in place.
func (m *buildMap) write(g *groupMarks) error {
	clear(m.buf)
	first := block.ID(g.group*m.geo.group) + offsetMap
	second := m.buf[(offsetMapSecond-offsetMap)*m.geo.size:]
	for i, lsn := range g.marks {
		n := m.geo.marks()
		putMark(m.buf[i/n*m.geo.size:], 8*(i%n), lsn)
		at := 8 * (i / (regionBlocks / extentBlocks))
		putMark(second, at, max(getMark(second, at), lsn))
	}
	for i := range block.ID(reserved - offsetMap) {
		block.Seal(m.buf[int(i)*m.geo.size:][:m.geo.size], block.Trailer{Type: block.TypeMap, ID: first + i, LSN: m.lsn}, m.seed)
	}
	if _, err := m.file.WriteAt(m.buf, m.geo.offset(first)); err != nil {
		return fmt.Errorf("write changed-block map of group %d: %w", g.group, err)
	}
	m.begun[g.group] = struct{}{}
	return nil
}

// read brings back the marks of a group that was written before.
func (m *buildMap) read(g *groupMarks) error {
	if _, begun := m.begun[g.group]; !begun {
		return nil
	}
	first := block.ID(g.group*m.geo.group) + offsetMap
	if _, err := m.file.ReadAt(m.buf, m.geo.offset(first)); err != nil {
		return fmt.Errorf("read changed-block map of group %d: %w", g.group, err)
	}
	n := m.geo.marks()
	for i := range offsetMapSecond - offsetMap {
		image := m.buf[i*m.geo.size:][:m.geo.size]
		if _, reason := block.Verify(image, first+block.ID(i), m.seed); reason != "" {
			return &block.CorruptError{Path: m.file.Name(), Offset: m.geo.offset(first + block.ID(i)), Block: first + block.ID(i), Reason: reason}
		}
		for at := range n {
			g.marks[i*n+at] = getMark(image, 8*at)
		}
	}
	return nil
}

// finish writes what is left, in the order of the file.
func (m *buildMap) finish() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return m.failed
	}
	slices.SortFunc(m.groups, func(a, b *groupMarks) int { return cmp.Compare(a.group, b.group) })
	for _, g := range m.groups {
		if err := m.write(g); err != nil {
			return err
		}
	}
	return nil
}
