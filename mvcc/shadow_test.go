//go:build invariants

package mvcc

import (
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// noticed runs f, and returns what would have ended the process.
func noticed(f func()) string {
	var texts []string
	shadow.Instead(func(text string) { texts = append(texts, text) })
	defer shadow.Instead(nil)
	f()
	return strings.Join(texts, "\n")
}

// withHead calls f with the head of a block, under the latch.
func withHead(s *Store, id block.ID, f func(l *blockcache.Latch, h *blockcache.Version)) {
	l := s.cache.Latch(id)
	defer l.Unlock()
	f(l, l.Head(id))
}

// lsnOf is the newest version of a block that has a head.
func lsnOf(s *Store, id block.ID) (lsn block.LSN) {
	withHead(s, id, func(_ *blockcache.Latch, h *blockcache.Version) { lsn = h.LSN })
	return lsn
}

// TestShadow_IsAskedWhereItCounts does to a store what a bug would do, and nothing else
// finds: each is noticed in the step that does it, or in the next one that relies on it.
func TestShadow_IsAskedWhereItCounts(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, s *Store, id block.ID)
		text string
	}{
		"an older version becomes the head": {func(t *testing.T, s *Store, id block.ID) {
			old := lsnOf(s, id)
			set(t, s, id, 2)
			withHead(s, id, func(l *blockcache.Latch, h *blockcache.Version) {
				l.Remove(h)
				l.Insert(&blockcache.Version{ID: id, LSN: old, InPlace: true})
			})
		}, "becomes its head"},
		"a frame is written to": {func(t *testing.T, s *Store, id block.ID) {
			withHead(s, id, func(_ *blockcache.Latch, h *blockcache.Version) { h.Data()[9] ^= 1 })
			r, err := s.BeginRead()
			ok(t, err)
			b, err := r.Block(id)
			ok(t, err)
			b.Release()
			r.Close()
		}, "a reader: version"},
		"what is replaced ended later": {func(t *testing.T, s *Store, id block.ID) {
			v := &blockcache.Version{ID: id, LSN: lsnOf(s, id), InPlace: true, Role: blockcache.RolePending}
			v.Until = set(t, s, id, 2) + 1
			l := s.cache.Latch(id)
			defer l.Unlock()
			s.snapshots.Replaced(v)
		}, "is kept as one until"},
		"an older version is written in place": {func(t *testing.T, s *Store, id block.ID) {
			old := lsnOf(s, id)
			set(t, s, id, 2)
			settle(t, s)
			s.cleaner.turn.Lock()
			defer s.cleaner.turn.Unlock()
			image := make([]byte, s.geo.size)
			s.cleaner.picked = append(s.cleaner.picked[:0], picked{&blockcache.Version{ID: id, LSN: old}, image, old, false})
			s.cleaner.checkBatch()
			s.cleaner.picked = s.cleaner.picked[:0]
		}, "is written in place, over"},
		"a place counts as another version": {func(t *testing.T, s *Store, id block.ID) {
			settle(t, s)
			set(t, s, id, 2)
			withHead(s, id, func(_ *blockcache.Latch, h *blockcache.Version) {
				s.found(&blockcache.Version{ID: id, LSN: h.LSN}, h.Data(), false)
			})
		}, "counts as in place, where"},
		"an incremental leaves a change out": {func(t *testing.T, s *Store, id block.ID) {
			base := s.newestLSN()
			set(t, s, id, 2)
			p := openIncremental(t, s, base, 0)
			p.b.leftOut(id, nil)
			ok(t, p.b.Close())
		}, "leaves it out"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustOpen(t, smallOptions(simfs.New()))
			id := someBlocks(t, s, 4)[2]
			if text := noticed(func() { test.do(t, s, id) }); !strings.Contains(text, test.text) {
				t.Errorf("noticed is %q", text)
			}
			_ = noticed(func() { _ = s.Close() }) // it is spoiled
		})
	}
}
