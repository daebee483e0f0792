package livebackup

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// indexWriter writes the index as the groups are written: it never holds more
// than one section. Not safe for concurrent use.
type indexWriter struct {
	out    *objectSeries
	first  uint32 // number of the first group of the open section
	groups []groupEntry
	runs   []runEntry
	buf    []byte
}

// add enters a group whose slots hold the blocks ids.
func (w *indexWriter) add(ctx context.Context, g groupEntry, ids []block.ID) error {
	number := w.first + uint32(len(w.groups))
	runs := appendRuns(w.runs, number, ids)
	if len(w.groups) > 0 && (len(w.groups) == sectionGroupsMax || len(runs) > sectionRunsMax) {
		if err := w.flush(ctx); err != nil {
			return err
		}
		runs = appendRuns(w.runs, number, ids)
	}
	w.groups, w.runs = append(w.groups, g), runs
	return nil
}

// appendRuns adds the runs that ids, in slots from 0 on, make up.
func appendRuns(runs []runEntry, group uint32, ids []block.ID) []runEntry {
	for slot, id := range ids {
		if last := len(runs) - 1; slot > 0 && runs[last].end() == id {
			runs[last].blocks++
			continue
		}
		runs = append(runs, runEntry{first: id, blocks: 1, group: group, slot: uint32(slot)})
	}
	return runs
}

// flush writes the open section.
func (w *indexWriter) flush(ctx context.Context) error {
	if len(w.groups) == 0 {
		return nil
	}
	slices.SortFunc(w.runs, func(a, b runEntry) int { return cmp.Compare(a.first, b.first) })
	w.buf = w.buf[:0]
	for _, g := range w.groups {
		w.buf = g.append(w.buf)
	}
	for _, r := range w.runs {
		w.buf = r.append(w.buf)
	}
	header := sectionHeader{
		first: w.first, groups: uint32(len(w.groups)), runs: uint32(len(w.runs)),
		lowest: w.runs[0].first, highest: w.runs[len(w.runs)-1].end() - 1, crc: checksum(w.buf),
	}.encode()
	_, _, err := w.out.append(ctx, header[:], w.buf)
	w.first += uint32(len(w.groups))
	w.groups, w.runs = w.groups[:0], w.runs[:0]
	return err
}

// bytes is what the writer takes in memory.
func (w *indexWriter) bytes() int64 {
	return int64(cap(w.groups)*groupEntrySize + cap(w.runs)*runEntrySize + cap(w.buf))
}

// section is a decoded, proven part of the index.
type section struct {
	first  uint32
	groups []groupEntry
	runs   []runEntry // in the order of their places: group, slot
}

// indexReader reads sections in order. The next section takes the place of the
// last. Not safe for concurrent use.
type indexReader struct {
	in        *seriesReader
	blockSize int
	next      uint32 // number of the group that is due
	buf       []byte
	section   section
}

// read returns the next section, io.EOF after the last.
func (r *indexReader) read(ctx context.Context) (*section, error) {
	if err := r.in.more(ctx); err != nil {
		return nil, err
	}
	off := r.in.off
	var head [sectionHeaderSize]byte
	if err := r.in.fill(head[:]); err != nil {
		return nil, err
	}
	h, err := decodeSectionHeader(r.in.name, off, head[:])
	if err != nil {
		return nil, err
	}
	if left := r.in.now.Size - r.in.off; int64(h.bytes()) > left { // no memory for what is not there
		return nil, damaged(r.in.name, off, fmt.Sprintf("section of %d bytes, and the object has %d more", h.bytes(), left), nil)
	}
	r.buf = slices.Grow(r.buf[:0], h.bytes())[:h.bytes()]
	if err := r.in.fill(r.buf); err != nil {
		return nil, err
	}
	reason := r.section.decode(h, r.buf, r.blockSize)
	if h.first != r.next {
		reason = fmt.Sprintf("section starts with group %d where %d was due", h.first, r.next)
	}
	if reason != "" {
		return nil, damaged(r.in.name, off, reason, nil)
	}
	r.next += h.groups
	return &r.section, nil
}

// bytes of the entries that follow h.
func (h sectionHeader) bytes() int { return int(h.groups)*groupEntrySize + int(h.runs)*runEntrySize }

// decode fills s from the entries in buf and says what is wrong with them, or "".
func (s *section) decode(h sectionHeader, buf []byte, blockSize int) string {
	if checksum(buf) != h.crc {
		return "section's checksum does not agree"
	}
	s.first, s.groups, s.runs = h.first, s.groups[:0], s.runs[:0]
	for b := buf[:h.groups*groupEntrySize]; len(b) > 0; b = b[groupEntrySize:] {
		g, ok := decodeGroupEntry(b)
		raw := uint64(g.blocks) * uint64(blockSize)
		if !ok || g.blocks == 0 || raw > groupBytesMax || uint64(g.stored) > raw {
			return "impossible group entry"
		}
		s.groups = append(s.groups, g)
	}
	return s.decodeRuns(h, buf[h.groups*groupEntrySize:])
}

// decodeRuns proves that the runs are in order of blocks, then that they tile
// the groups.
func (s *section) decodeRuns(h sectionHeader, buf []byte) string {
	var end block.ID
	for b := buf; len(b) > 0; b = b[runEntrySize:] {
		e, ok := decodeRunEntry(b)
		if !ok || e.blocks == 0 || e.end() < e.first || len(s.runs) > 0 && e.first < end {
			return "impossible run entry"
		}
		end = e.end()
		s.runs = append(s.runs, e)
	}
	if s.runs[0].first != h.lowest || end-1 != h.highest {
		return "section's range of blocks is not that of its runs"
	}
	slices.SortFunc(s.runs, func(a, b runEntry) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.slot, b.slot))
	})
	return s.untiled()
}

// byBlock puts the runs in order of blocks, for find.
func (s *section) byBlock() {
	slices.SortFunc(s.runs, func(a, b runEntry) int { return cmp.Compare(a.first, b.first) })
}

// find returns the run that holds block id. The runs are in order of blocks.
func (s *section) find(id block.ID) (runEntry, bool) {
	i, exact := slices.BinarySearchFunc(s.runs, id, func(e runEntry, id block.ID) int { return cmp.Compare(e.first, id) })
	if !exact {
		i--
	}
	if i < 0 || s.runs[i].end() <= id {
		return runEntry{}, false
	}
	return s.runs[i], true
}

// untiled says where the runs of s do not tile its groups, or "".
func (s *section) untiled() string {
	group, slot := 0, uint32(0)
	for _, e := range s.runs {
		if group == len(s.groups) || e.group != s.first+uint32(group) || e.slot != slot || e.blocks > s.groups[group].blocks-slot {
			return fmt.Sprintf("run of block %v is out of place", e.first)
		}
		if slot += e.blocks; slot == s.groups[group].blocks {
			group, slot = group+1, 0
		}
	}
	if group != len(s.groups) {
		return "groups without runs"
	}
	return ""
}
